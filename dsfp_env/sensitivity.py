"""How much each filter matters: one function per criterion; higher = keep.

A filter F of a convolution is the slice ``weight[i]`` with ``bias[i]`` (``weight[:, i]`` if transposed); its
elements are F_1 ... F_N, and g is the gradient of the mean cross entropy L, in evaluation mode and float32,
averaged as |g| over batches.

`dsfp`, Differential Sensitivity Fusion (DSFP, arXiv 2509.05446, section III-A), as printed:

    Grad(F)   = 1/N sum_i |dL/dF_i|
    Taylor(F) = sum_i |dL/dF_i * F_i|
    KL(F)     = mean over images of KL(p || q), p the network's output distribution and q that without F
    Imp(F)    = exp|Grad - Taylor| + exp|Taylor - KL| + 1/2 exp|Grad - KL|

Without F means its output is zero after the normalisation, that is before the activation. The score returned is
log Imp(F), by logsumexp in float64: the same order, and no overflow. A dead filter has the least possible score,
log 2.5. The paper leaves some choices open; made here: mean cross entropy, no normalisation of the three terms,
and the lowest go (the paper's abstract and its section III-A differ on the end).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env.coupling import PrunableLayer
from dsfp_env.data import LabelledImages
from dsfp_env.distillation import draw_batches
from dsfp_env.errors import InputError, choose
from dsfp_env.layers import filters_first, weight_of
from dsfp_env.replay import Replay

Scores = dict[str, torch.Tensor]  # module path -> [out_channels] float64, higher = keep


class Evidence(NamedTuple):
    """What a criterion may look at. The network comes in evaluation mode and must be left unchanged."""

    network: nn.Module
    layers: Mapping[str, PrunableLayer]
    batches: Sequence[LabelledImages]  # of the training split
    rng: torch.Generator  # on the CPU


Criterion = Callable[[Evidence], Mapping[str, torch.Tensor]]


def score_network(
    network: nn.Module,
    layers: Mapping[str, PrunableLayer],
    train: LabelledImages,
    criterion: str | Criterion,
    *,
    num_batches: int = 8,
    batch_size: int = 128,
    seed: int = 0,
) -> Scores:
    """Score every filter of some layers; for the arguments see `tasks.score_filters`."""
    function: Criterion = (
        choose("criterion", criterion, CRITERIA, importable=True) if isinstance(criterion, str) else criterion
    )
    images, labels = train
    size = min(batch_size, len(labels))
    indices = draw_batches(len(labels), size, min(num_batches, len(labels) // size), seed).to(labels.device)
    batches = [LabelledImages(images[i], labels[i]) for i in indices]
    scores = function(Evidence(network, layers, batches, torch.Generator().manual_seed(seed)))
    name = getattr(function, "__name__", repr(function))
    return {path: _checked(name, layer, scores) for path, layer in layers.items()}


def dsfp(evidence: Evidence) -> Scores:
    """Differential Sensitivity Fusion: log Imp(F), as at the top of this file."""
    gradients, taylors = _of_gradients(evidence, _mean_gradient, _summed_effect)
    divergences = output_kl(evidence)
    return {path: fuse(gradients[path], taylors[path], divergences[path]) for path in evidence.layers}


def fuse(gradient: torch.Tensor, taylor: torch.Tensor, divergence: torch.Tensor) -> torch.Tensor:
    """Log of exp|g - t| + exp|t - k| + 1/2 exp|g - k|, elementwise in float64."""
    g, t, k = gradient.double(), taylor.double(), divergence.double()
    return torch.stack([(g - t).abs(), (t - k).abs(), (g - k).abs() - math.log(2)]).logsumexp(0)


def grad(evidence: Evidence) -> Scores:
    """Grad(F): mean over the filter's elements of |gradient| (DSFP, section III-A.1)."""
    return _of_gradients(evidence, _mean_gradient)[0]


def taylor(evidence: Evidence) -> Scores:
    """Taylor(F): sum over the filter's elements of |gradient * weight| (DSFP, section III-A.2)."""
    return _of_gradients(evidence, _summed_effect)[0]


def output_kl(
    evidence: Evidence, num_images: int = 256, max_batch: int = 1024, max_memory: int = 2 << 30
) -> Scores:
    """KL(F): divergence of the output distribution when the filter is silent (DSFP, section III-A.3).

    Exact: one forward pass per filter, several filters to a batch, the layers before the filter computed once.

    Args:
        evidence: The first ``num_images`` of its batches are used.
        num_images: Images to average over.
        max_batch: Images times filters in one pass.
        max_memory: Bytes for what the layers answered; as many images as fit are looked at together.
    """
    images = torch.cat([batch.images for batch in evidence.batches])[:num_images]
    at_once = max(1, min(len(images), max_memory // Replay(evidence.network, images[:1]).num_bytes))
    scores = {p: torch.zeros(layer.out_channels, dtype=torch.float64) for p, layer in evidence.layers.items()}
    for part in images.split(at_once):
        replay = Replay(evidence.network, part)
        log_p = F.log_softmax(replay.logits, 1)  # [images, classes]
        for path, layer in evidence.layers.items():
            divergences = []
            for filters in torch.arange(layer.out_channels).split(max(1, max_batch // len(part))):
                log_q = F.log_softmax(replay.without(layer.norm or path, filters), 2)  # [filters, images, classes]
                divergences.append((log_p.exp() * (log_p - log_q)).sum(2).mean(1))
            scores[path] += torch.cat(divergences).double().cpu() * (len(part) / len(images))
    return {path: score.clamp(min=0) for path, score in scores.items()}


def l1(evidence: Evidence) -> Scores:
    """Sum of |weight| (Li et al. 2017)."""
    return _of_weights(evidence, lambda filters: filters.abs().sum(1))


def l2(evidence: Evidence) -> Scores:
    """Euclidean norm of the weights (He et al. 2018)."""
    return _of_weights(evidence, lambda filters: filters.norm(dim=1))


def fisher(evidence: Evidence) -> Scores:
    """Half the mean over images of (sum over positions of activation * gradient)^2 (Theis et al. 2018).

    The activation is the layer's output after its normalisation; the gradient is of each image's own loss.
    """
    scores = {p: torch.zeros(layer.out_channels, dtype=torch.float64) for p, layer in evidence.layers.items()}
    for images, labels in evidence.batches:
        activations: dict[str, list[torch.Tensor]] = {path: [] for path in scores}  # one for each call
        with _activations_noted(evidence, activations):
            logits, _ = _differentiable(evidence, images)
        flat = [activation for calls in activations.values() for activation in calls]
        gradients = iter(torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), flat))
        for path, calls in activations.items():
            effects = [(call * next(gradients)).detach().double().flatten(2).sum(2) for call in calls]
            scores[path] += torch.stack(effects).sum(0).square().sum(0).cpu() / 2  # from [images, channels]
    num_images = sum(len(batch.labels) for batch in evidence.batches)
    return {path: score / num_images for path, score in scores.items()}


def random(evidence: Evidence) -> Scores:
    """Uniform random numbers: the yardstick for every other criterion."""
    return {
        path: torch.rand(layer.out_channels, generator=evidence.rng, dtype=torch.float64)
        for path, layer in evidence.layers.items()
    }


CRITERIA: dict[str, Criterion] = {
    "dsfp": dsfp,
    "grad": grad,
    "taylor": taylor,
    "output_kl": output_kl,
    "fisher": fisher,
    "l1": l1,
    "l2": l2,
    "random": random,
}


def _of_weights(evidence: Evidence, function: Callable[[torch.Tensor], torch.Tensor]) -> Scores:
    """A function of each layer's weights ``[filters, elements]``."""
    modules = {path: evidence.network.get_submodule(path) for path in evidence.layers}
    return {
        path: function(filters_first(module, weight_of(module).detach()).double()).cpu()
        for path, module in modules.items()
    }


def _mean_gradient(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return gradient.abs().mean(1)


def _summed_effect(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (gradient * weight).abs().sum(1)


def _of_gradients(
    evidence: Evidence, *functions: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> list[Scores]:
    """Functions of each layer's gradients and weights ``[filters, elements]``, averaged over the batches.

    All of them share one forward and backward pass per batch.
    """
    scores: list[Scores] = [
        {p: torch.zeros(layer.out_channels, dtype=torch.float64) for p, layer in evidence.layers.items()}
        for _ in functions
    ]
    for images, labels in evidence.batches:
        logits, parameters = _differentiable(evidence, images)
        gradients = torch.autograd.grad(F.cross_entropy(logits, labels), list(parameters.values()))
        by_name = dict(zip(parameters, gradients, strict=True))
        for path in evidence.layers:
            names = [name for name in (f"{path}.weight", f"{path}.bias") if name in parameters]
            filters = partial(filters_first, evidence.network.get_submodule(path))
            gradient = torch.cat([filters(by_name[name]).double() for name in names], 1)
            weight = torch.cat([filters(parameters[name].detach()).double() for name in names], 1)
            for function, total in zip(functions, scores, strict=True):
                total[path] += function(gradient, weight).cpu() / len(evidence.batches)
    return scores


def _differentiable(evidence: Evidence, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of images, and stand-ins for the layers' parameters to differentiate them by.

    The network's own parameters are not touched: they may be frozen, and keep whatever gradient they have.
    """
    parameters = {
        f"{path}.{name}": parameter.detach().requires_grad_()
        for path in evidence.layers
        for name, parameter in evidence.network.get_submodule(path).named_parameters()
    }
    with torch.enable_grad():
        return torch.func.functional_call(evidence.network, parameters, (images,)), parameters


@contextmanager
def _activations_noted(evidence: Evidence, activations: dict[str, list[torch.Tensor]]) -> Iterator[None]:
    """Append each layer's output after its normalisation to its list, call by call."""

    def note(path: str, module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        activations[path].append(output)
        return output.clone()  # an activation in place must not overwrite it

    hooks = [
        evidence.network.get_submodule(layer.norm or path).register_forward_hook(partial(note, path))
        for path, layer in evidence.layers.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _checked(criterion: str, layer: PrunableLayer, scores: Mapping[str, torch.Tensor]) -> torch.Tensor:
    came = scores.get(layer.path)
    if came is None or tuple(came.shape) != (layer.out_channels,) or not torch.isfinite(came).all():
        what = "none" if came is None else f"shape {tuple(came.shape)}, values {came.flatten()[:3].tolist()}..."
        raise InputError(
            f"Criterion {criterion!r} gave layer {layer.path!r} {what}: expected one finite score per filter, "
            f"({layer.out_channels},)."
        )
    return came.detach().to("cpu", torch.float64)
