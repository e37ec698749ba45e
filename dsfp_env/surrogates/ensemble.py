"""Small networks that tell accuracies from what is kept of each layer, as arrays; NumPy answers, block by block.

Each member of the ensemble maps the share that is kept of each coupled set, standardised, by two hidden layers
with ReLUs, to the accuracies on both splits, behind a sigmoid. The mean of the members is the prediction; how far
they are apart grows away from the data. One more, smaller network tells the noise of the fine-tuning's seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BLOCK = 2048  # rows that fit into the cache with what is computed of them

Layers = Sequence[tuple[np.ndarray, np.ndarray]]  # weight [in, out] and bias [out] of each layer


class Predicted(NamedTuple):
    """What is predicted of N joint actions."""

    accuracy: np.ndarray  # [N, 2] float32: mean over seeds, on the validation and on the test split
    spread: np.ndarray  # [N] float32: standard deviation between members, on the validation split


class Ensemble:
    """Predicts.

    Args:
        centre: ``[sets]``, subtracted from what is kept.
        scale: ``[sets]``, divides it then.
        members: The layers of each network.
        noise: Those of the network that tells the noise.
    """

    def __init__(self, centre: np.ndarray, scale: np.ndarray, members: Sequence[Layers], noise: Layers) -> None:
        self.centre, self.scale = centre.astype(np.float32), scale.astype(np.float32)
        self.members, self.noise = members, noise

    def predict(self, kept: np.ndarray) -> Predicted:
        """Accuracies of joint actions.

        Args:
            kept: The share that is kept of each coupled set, ``[N, sets]``.
        """
        accuracy, spread = np.empty((len(kept), 2), np.float32), np.empty(len(kept), np.float32)
        for first in range(0, len(kept), BLOCK):
            rows = slice(first, first + BLOCK)
            inputs = self._standardised(kept[rows])
            answers = np.stack([_sigmoid(_through(member, inputs)) for member in self.members])  # [members, N, 2]
            accuracy[rows] = answers.mean(0)
            spread[rows] = answers[:, :, 0].std(0)
        return Predicted(accuracy, spread)

    def deviations(self, kept: np.ndarray) -> np.ndarray:
        """The standard deviation between seeds on both splits, ``[N, 2]``; ``kept`` as for `predict`."""
        blocks = np.array_split(kept, -(-len(kept) // BLOCK) or 1)
        return np.concatenate([np.exp(_through(self.noise, self._standardised(block))) for block in blocks])

    def _standardised(self, kept: np.ndarray) -> np.ndarray:
        return (kept.astype(np.float32) - self.centre) / self.scale

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers by name."""
        named = {"centre": self.centre, "scale": self.scale}
        networks = {f"member{number}": layers for number, layers in enumerate(self.members)} | {
            "noise": self.noise
        }
        for name, layers in networks.items():
            for depth, (weight, bias) in enumerate(layers):
                named |= {f"{name}.{depth}.weight": weight, f"{name}.{depth}.bias": bias}
        return named

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Ensemble:
        """One from its `arrays`.

        Raises:
            KeyError: If one is missing.
        """
        count = len({name.split(".")[0] for name in arrays if name.startswith("member")})
        members = [_layers(arrays, f"member{number}") for number in range(count)]
        return cls(arrays["centre"], arrays["scale"], members, _layers(arrays, "noise"))


def _layers(arrays: dict[str, np.ndarray], name: str) -> Layers:
    depth = len([key for key in arrays if key.startswith(f"{name}.") and key.endswith(".weight")])
    if not depth:
        raise KeyError(name)
    return [(arrays[f"{name}.{place}.weight"], arrays[f"{name}.{place}.bias"]) for place in range(depth)]


def _through(layers: Layers, inputs: np.ndarray) -> np.ndarray:
    """The outputs of a network, ``[N, in]`` -> ``[N, out]``."""
    for depth, (weight, bias) in enumerate(layers):
        if depth:
            np.maximum(inputs, 0, out=inputs)
        inputs = inputs @ weight
        inputs += bias
    return inputs


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))
