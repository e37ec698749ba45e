"""What a criterion may look at, what it answers, and what several criteria need on the way."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from dsfp_env.channels.coupling import PrunableLayer
from dsfp_env.common.devices import device_of, has_float64
from dsfp_env.common.errors import InputError
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.training.objectives import Objective

Scores = dict[str, torch.Tensor]  # module path -> [out_channels] float64, higher = keep


class Evidence(NamedTuple):
    """What a criterion may look at. The network comes in evaluation mode and must be left unchanged."""

    network: nn.Module
    layers: Mapping[str, PrunableLayer]
    batches: Sequence[LabelledImages]  # of the training split
    rng: torch.Generator  # on the CPU
    objective: Objective = Objective()  # its loss is that of the task


Criterion = Callable[[Evidence], Mapping[str, torch.Tensor]]


def zero_scores(evidence: Evidence) -> Scores:
    """Zeros to add to, where the network is; on the CPU, if there is no float64 there."""
    there = device_of(evidence.network, torch.device("cpu"))
    place = there if has_float64(there) else torch.device("cpu")
    return {
        path: torch.zeros(layer.out_channels, dtype=torch.float64, device=place)
        for path, layer in evidence.layers.items()
    }


def on_cpu(scores: Mapping[str, torch.Tensor]) -> Scores:
    """Scores of all layers on the CPU. They are sent together: a GPU is waited for at every piece."""
    if all(score.device.type == "cpu" for score in scores.values()):
        return dict(scores)
    pieces = torch.cat(list(scores.values())).cpu().split([len(score) for score in scores.values()])
    return {path: piece.clone() for path, piece in zip(scores, pieces, strict=True)}


@contextmanager
def activations_noted(evidence: Evidence) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Note each layer's output after its normalisation, ``[images, channels, ...]``, call by call."""
    activations: dict[str, list[torch.Tensor]] = {path: [] for path in evidence.layers}

    def note(path: str, module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        activations[path].append(output)
        return output.clone()  # an activation in place must not overwrite it

    hooks = [
        evidence.network.get_submodule(layer.norm or path).register_forward_hook(partial(note, path))
        for path, layer in evidence.layers.items()
    ]
    try:
        yield activations
    finally:
        for hook in hooks:
            hook.remove()


def scaled_norms(evidence: Evidence, criterion: str, instead: str) -> dict[str, str]:
    """Module path of each layer -> that of its normalisation.

    Args:
        evidence: Names the layers.
        criterion: Who needs the normalisations, for the message.
        instead: A criterion that needs none, for the message.

    Raises:
        InputError: If a layer has no normalisation, or one without a scale.
    """
    norms = {path: layer.norm for path, layer in evidence.layers.items() if layer.norm is not None}
    for path in evidence.layers:
        if path not in norms or evidence.network.get_submodule(norms[path])._parameters.get("weight") is None:
            what = "has none" if path not in norms else f"has {norms[path]!r}, which has no scale"
            raise InputError(
                f"Criterion {criterion!r} needs a normalisation with a scale (affine=True) after each layer, "
                f"and layer {path!r} {what}. Use {instead!r} instead."
            )
    return norms


def check_positive(criterion: str, **options: float) -> None:
    """Refuse options of a criterion that are not finite numbers above 0.

    Raises:
        InputError: If there is one.
    """
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise InputError(f"Criterion {criterion!r} came with {name} = {value}: expected a number above 0.")
