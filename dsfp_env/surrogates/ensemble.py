"""Small networks that tell accuracies from what is kept of each layer, as arrays; NumPy answers, block by block.

Each member of the ensemble maps the share that is kept of each coupled set, standardised, by two hidden layers
with ReLUs, to the accuracies on both splits, behind a sigmoid. The mean of the members is the prediction; how far
they are apart grows away from the data. The noise of the fine-tuning's seed depends on that accuracy alone: few
joint actions were measured with several seeds, and a model of all layers would make noise up between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

BLOCK = 192  # rows that fit into the cache with what is computed of them

Layers = Sequence[tuple[np.ndarray, np.ndarray]]  # weight [in, out] and bias [out] of each layer


class Predicted(NamedTuple):
    """What is predicted of N joint actions."""

    of_members: np.ndarray  # [members, N, 2], accuracies on the validation and on the test split

    @property
    def accuracy(self) -> np.ndarray:
        """Mean over seeds, on the validation and on the test split, ``[N, 2]``."""
        mean: np.ndarray = np.add.reduce(self.of_members, 0)  # of few in a third of the time of np.mean
        mean /= len(self.of_members)
        return mean

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation between members, on the validation split, ``[N]``."""
        deviation: np.ndarray = self.of_members[:, :, 0].std(0)
        return deviation


class Ensemble:
    """Predicts.

    Args:
        centre: ``[sets]``, subtracted from what is kept.
        scale: ``[sets]``, divides it then.
        members: The layers of each network.
        noise: For both splits, ``[5, 2]``: what multiplies the powers 0, 1 and 2 of the logit of the accuracy, in
            the logarithm of the deviation; and the lowest and the highest logit that it was fitted to.
    """

    def __init__(
        self, centre: np.ndarray, scale: np.ndarray, members: Sequence[Layers], noise: np.ndarray
    ) -> None:
        self.centre, self.scale = centre.astype(np.float32), scale.astype(np.float32)
        self.members, self.noise = members, np.asarray(noise, np.float64)

    def predict(self, kept: np.ndarray, exactly: bool = False) -> Predicted:
        """Accuracies of joint actions.

        Args:
            kept: The share that is kept of each coupled set, ``[N, sets]``.
            exactly: Whether to compute in float64, in twice the time. In float32 the last digits depend on how
                many are asked about at once.
        """
        answers = (self._exact if exactly else self._quick)(self._standardised(kept))
        return Predicted(_sigmoid(answers))

    def deviations(self, accuracy: np.ndarray, split: int) -> np.ndarray:
        """The standard deviations between seeds of mean accuracies on a split, 0 or 1, ``[N]`` each."""
        *powers, lowest, highest = self.noise[:, split].tolist()
        logits = np.minimum(np.maximum(logit(accuracy), lowest), highest)
        deviations: np.ndarray = np.exp(powers[0] + logits * (powers[1] + logits * powers[2]))
        return deviations

    @cached_property
    def _quick(self) -> _Together:
        return _Together(self.members, np.float32)

    @cached_property
    def _exact(self) -> _Together:
        return _Together(self.members, np.float64)

    def _standardised(self, kept: np.ndarray) -> np.ndarray:
        inputs = kept.astype(np.float32, order="C")
        inputs -= self.centre
        inputs /= self.scale
        return inputs

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers by name."""
        named: dict[str, np.ndarray] = {"centre": self.centre, "scale": self.scale, "noise": self.noise}
        for number, layers in enumerate(self.members):
            for depth, (weight, bias) in enumerate(layers):
                named |= {f"member{number}.{depth}.weight": weight, f"member{number}.{depth}.bias": bias}
        return named

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> Ensemble:
        """One from its `arrays`.

        Raises:
            KeyError: If one is missing.
        """
        count = len({name.split(".")[0] for name in arrays if name.startswith("member")})
        members = [_layers(arrays, f"member{number}") for number in range(count)]
        noise = arrays["noise"]
        if noise.shape != (5, 2) or noise.dtype.kind != "f" or not np.isfinite(noise).all():
            raise KeyError("noise")
        return cls(arrays["centre"], arrays["scale"], members, noise)


def _layers(arrays: dict[str, np.ndarray], name: str) -> Layers:
    depth = len([key for key in arrays if key.startswith(f"{name}.") and key.endswith(".weight")])
    if not depth:
        raise KeyError(name)
    return [(arrays[f"{name}.{place}.weight"], arrays[f"{name}.{place}.bias"]) for place in range(depth)]


class _Together:
    """Networks of one shape that answer together.

    A ReLU of z + b is max(z, -b) + b. The maximum is all that is computed here; the b that is added is in the bias
    of the next layer.

    Args:
        members: The layers of each network.
        precision: In which to compute.
    """

    def __init__(self, members: Sequence[Layers], precision: Any) -> None:
        weights: list[np.ndarray] = []
        floors: list[np.ndarray] = []
        added = np.zeros(())
        for layers in zip(*members, strict=True):
            weight = np.stack([weight for weight, _ in layers]).astype(np.float64)  # [members, in, out]
            bias = np.stack([bias for _, bias in layers])[:, None].astype(np.float64)  # [members, 1, out]
            added = bias + added @ weight if weights else bias
            weights.append(weight.astype(precision))
            floors.append(-added.astype(precision))
        *self._hidden, self._last = weights
        *self._floors, self._lowered = floors

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Outputs, ``[N, in]`` -> ``[members, N, out]``."""
        count, block = len(inputs), min(len(inputs), BLOCK)
        inputs = inputs.astype(self._last.dtype, copy=False)
        if count == 1:
            return self._of_one(inputs)
        floors = [np.repeat(floor, block, axis=1) for floor in self._floors]  # [members, block, width]
        rooms = [np.empty_like(floor) for floor in floors]  # used again for each block
        answers = np.empty((len(self._last), count, self._last.shape[2]), self._last.dtype)
        for first in range(0, count, BLOCK):
            rows = inputs[first : first + BLOCK]
            some = slice(len(rows))
            for weight, floor, room in zip(self._hidden, floors, rooms, strict=True):
                rows = np.matmul(rows, weight, out=room[:, some])
                np.maximum(rows, floor[:, some], out=rows)
            np.matmul(rows, self._last, out=answers[:, first : first + BLOCK])
        answers -= self._lowered
        return answers

    def _of_one(self, rows: np.ndarray) -> np.ndarray:
        """The same of one row, sooner."""
        for weight, floor in zip(self._hidden, self._floors, strict=True):
            rows = rows @ weight
            np.maximum(rows, floor, out=rows)
        answers: np.ndarray = rows @ self._last
        answers -= self._lowered
        return answers


def logit(shares: np.ndarray) -> np.ndarray:
    """The inverse of the sigmoid, of shares that are brought within [0.001, 0.999]."""
    within = np.minimum(np.maximum(shares, 1e-3), 1 - 1e-3).astype(np.float64)
    logits: np.ndarray = np.log(within / (1 - within))
    return logits


def _sigmoid(values: np.ndarray) -> np.ndarray:
    """Of values that are changed in place."""
    np.negative(values, out=values)
    np.exp(values, out=values)
    values += 1
    return np.divide(1, values, out=values)
