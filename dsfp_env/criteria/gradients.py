"""Criteria by gradients: what a filter's parameters, or its activations, do to the loss of the task.

An *effect* is a value times its gradient: to first order, how much the loss changes when the value goes to zero.
All gradients are taken in evaluation mode and float32. The activation of a filter is its layer's output after the
normalisation and before the activation function; its effect there is, for a ReLU, the effect after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from dsfp_env.channels.layers import filters_first
from dsfp_env.common.devices import in_double
from dsfp_env.common.errors import InputError, check_differentiable
from dsfp_env.criteria.criterion import Evidence, Scores, activations_noted, on_cpu, scaled_norms, zero_scores


def grad(evidence: Evidence) -> Scores:
    """Grad(F): mean over the filter's elements of |gradient| (DSFP, section III-A.1)."""
    return of_gradients(evidence, mean_gradient)[0]


def taylor(evidence: Evidence) -> Scores:
    """Taylor(F): sum over the filter's elements of |gradient * weight| (DSFP, section III-A.2)."""
    return of_gradients(evidence, summed_effect)[0]


def taylor_bn(evidence: Evidence) -> Scores:
    """(scale * its gradient + shift * its gradient)^2 of the normalisation (Molchanov et al. 2019).

    That is the squared effect of a gate of 1 on the filter's normalised output; averaged over the batches.

    Raises:
        InputError: If a layer has no normalisation, or one without a scale.
    """
    norms = scaled_norms(evidence, "taylor_bn", instead="taylor_activation")
    scores = zero_scores(evidence)
    for images, labels in evidence.batches:
        logits, parameters = _differentiable(evidence.network, norms.values(), images)
        gradients = _gradients(evidence.objective.loss(logits, labels), list(parameters.values()))
        effects = {
            name: in_double(parameter.detach()) * in_double(gradient)
            for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
        }
        for path, norm in norms.items():
            gate = effects[f"{norm}.weight"] + effects.get(f"{norm}.bias", 0)
            scores[path] += _shared(gate.square(), len(evidence.batches))
    return on_cpu(scores)


def taylor_activation(evidence: Evidence) -> Scores:
    """Mean over images of |mean over positions of activation * gradient| (Molchanov et al. 2017).

    The gradient is of each image's own loss. The paper then divides by the norm of the layer's scores, which
    leaves the order within a layer as it is; not done here.
    """
    return of_effects(evidence, lambda effect, positions: (effect / positions).abs())


def fisher(evidence: Evidence) -> Scores:
    """Half the mean over images of (sum over positions of activation * gradient)^2 (Theis et al. 2018).

    The gradient is of each image's own loss.
    """
    return of_effects(evidence, half_square)


def mean_gradient(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Grad(F) of gradients and weights ``[filters, elements]``."""
    return gradient.abs().mean(1)


def summed_effect(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Taylor(F) of gradients and weights ``[filters, elements]``."""
    return (gradient * weight).abs().sum(1)


def mean_effect(gradient: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Taylor(F) as a mean over the elements of gradients and weights ``[filters, elements]``."""
    return (gradient * weight).abs().mean(1)


def half_square(effect: torch.Tensor, positions: int) -> torch.Tensor:
    """Half the square of effects ``[images, channels]``."""
    return effect.square() / 2


def of_gradients(
    evidence: Evidence, *functions: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> list[Scores]:
    """Functions of each layer's gradients and weights ``[filters, elements]``, averaged over the batches.

    All of them share one forward and backward pass per batch.
    """
    scores = [zero_scores(evidence) for _ in functions]
    for images, labels in evidence.batches:
        logits, parameters = _differentiable(evidence.network, evidence.layers, images)
        gradients = _gradients(evidence.objective.loss(logits, labels), list(parameters.values()))
        by_name = dict(zip(parameters, gradients, strict=True))
        for path in evidence.layers:
            names = [name for name in (f"{path}.weight", f"{path}.bias") if name in parameters]
            filters = partial(filters_first, evidence.network.get_submodule(path))
            gradient = torch.cat([in_double(filters(by_name[name])) for name in names], 1)
            weight = torch.cat([in_double(filters(parameters[name].detach())) for name in names], 1)
            for function, total in zip(functions, scores, strict=True):
                total[path] += _shared(function(gradient, weight), len(evidence.batches))
    return [on_cpu(total) for total in scores]


def of_effects(
    evidence: Evidence, function: Callable[[torch.Tensor, int], torch.Tensor], *, sampled: bool = False
) -> Scores:
    """The mean over images of a function of each filter's effect.

    Args:
        evidence: One forward and backward pass for each of its batches.
        function: Of the effects ``[images, channels]``, sums over positions of activation * gradient of the
            image's own loss, and of the number of positions.
        sampled: Whether the targets are drawn from the network's own answers instead of given.
    """
    scores = zero_scores(evidence)
    for images, labels in evidence.batches:
        with activations_noted(evidence) as activations:
            logits, _ = _differentiable(evidence.network, evidence.layers, images)
        flat = [activation for calls in activations.values() for activation in calls]
        objective = evidence.objective
        loss = objective.sampled_loss(logits, evidence.rng) if sampled else objective.summed_loss(logits, labels)
        gradients = iter(_gradients(loss, flat))
        for path, calls in activations.items():
            effects = [in_double((call * next(gradients)).detach().flatten(2).sum(2)) for call in calls]
            positions = sum(call[0, 0].numel() for call in calls)
            scores[path] += function(torch.stack(effects).sum(0), positions).sum(0)
    num_images = sum(len(batch.labels) for batch in evidence.batches)
    return {path: score / num_images for path, score in on_cpu(scores).items()}


def _shared(scores: torch.Tensor, batches: int) -> torch.Tensor:
    """A batch's part of the mean. Divided by a tensor: for a number, a GPU takes 1/n times, and rounds twice."""
    return scores / torch.full_like(scores, batches)


def _gradients(loss: torch.Tensor, by: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The gradient of a loss by some tensors; zeros for one that it does not depend on, as behind ``detach``.

    Raises:
        InputError: If the network recomputes its activations in the way that allows no such gradients.
    """
    check_differentiable(loss, "a criterion without gradients, as 'l1' or 'output_kl'")
    if _recomputes(loss):
        raise InputError(
            "The network recomputes activations by torch.utils.checkpoint with use_reentrant=True, which allows "
            "no gradients by single tensors: expected use_reentrant=False, or a criterion that takes none, as "
            "'l1' or 'output_kl'."
        )
    return torch.autograd.grad(loss, by, materialize_grads=True)


def _recomputes(loss: torch.Tensor) -> bool:
    """Whether a loss was computed through reentrant checkpoints, and not otherwise."""
    seen: set[Any] = set()
    ahead: set[Any] = {loss.grad_fn} - {None}
    while ahead:
        seen |= ahead
        ahead = {before for function in ahead for before, _ in function.next_functions} - seen - {None}
    return any(function.name() == "CheckpointFunctionBackward" for function in seen)


def _differentiable(
    network: nn.Module, paths: Iterable[str], images: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits of images, and stand-ins for the parameters of some modules to differentiate them by.

    The network's own parameters are not touched: they may be frozen, and keep whatever gradient they have.
    """
    stands_for: dict[int, torch.Tensor] = {}  # id of a parameter -> its stand-in; layers may share it
    parameters = {
        f"{path}.{name}": stands_for.setdefault(id(parameter), parameter.detach().requires_grad_())
        for path in paths
        for name, parameter in network.get_submodule(path).named_parameters()
    }
    with torch.enable_grad():
        return torch.func.functional_call(network, parameters, (images,)), parameters
