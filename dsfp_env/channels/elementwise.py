"""Elementwise operations: channels that meet in one element are joined, and those that meet a fixed width stay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch

from dsfp_env.channels.events import Event, seen
from dsfp_env.channels.labels import Labels, Made, distinct, is_constant, pairs, unexpanded

Decide = Callable[[Event, Callable[[], bool]], bool]  # see `Propagation.decide`


def meet(
    operands: Iterable[torch.Tensor],
    shape: torch.Size,
    event: Event,
    known: Labels,
    made: Made,
    decide: Decide,
) -> torch.Tensor:
    """Labels of an elementwise result of a shape: of the first operand that has any there.

    What meets is written down in the event.
    """
    result: torch.Tensor | None = None
    fixed: list[torch.Tensor] = []  # operands without labels
    for operand in map(unexpanded, operands):
        labels = known.of(operand)
        if labels is None or not labels.any():
            if operand.numel() > 1:
                fixed.append(operand)
            continue
        if result is None:
            result = labels
        elif result.shape != labels.shape or not torch.equal(result, labels):
            result = _join(result, labels, event, decide)
    if result is None:
        return torch.zeros(1).expand(shape)
    if any(_is_fixed(other, result, event, made) for other in fixed):
        event.stays.append((distinct(result), f"{event.operation} combines it with numbers of fixed width"))
        result = torch.zeros(1)  # from here on of fixed width itself
    return result.expand(shape)


def _is_fixed(numbers: torch.Tensor, labels: torch.Tensor, event: Event, made: Made) -> bool:
    """Whether numbers without labels are of a width that does not follow the channels they meet."""
    along = [
        dim
        for dim in range(-min(labels.dim(), numbers.dim()), 0)
        if numbers.shape[dim] > 1 and _varies(labels, dim)
    ]
    if along and numbers in made and all(is_constant(numbers, dim) for dim in along):
        event.doubt = "combines it with numbers of fixed width"
        event.read = seen(labels)
        return False  # perhaps as many as there are channels
    return bool(along)


def _join(first: torch.Tensor, second: torch.Tensor, event: Event, decide: Decide) -> torch.Tensor:
    spread = [
        decide(event, partial(_varies_where_single, *sides))
        for sides in ((second, first.shape), (first, second.shape))
    ]
    for labels, is_spread in zip((first, second), spread, strict=True):
        if is_spread:
            event.stays.append((distinct(labels), f"{event.operation} spreads it over other channels"))
    if any(spread):
        return second if spread[0] else first
    first, second = torch.broadcast_tensors(first, second)
    met = pairs(first, second)
    both = met[:, (met > 0).all(0)]
    if (both[0] != both[1]).any():
        event.joins.append(both)
    for side in (0, 1):
        alone = met[side][met[1 - side] == 0]
        alone = alone[(alone > 0) & ~torch.isin(alone, both[side])]
        if len(alone):
            event.stays.append((alone, f"{event.operation} combines it with padding of fixed width"))
    return torch.where(first > 0, first, second)


def _varies_where_single(labels: torch.Tensor, other: torch.Size) -> bool:
    """Whether labels change along a dimension in which another operand has the size 1 (or none)."""
    return any(_varies(labels, -dim) for dim in range(1, labels.dim() + 1) if dim > len(other) or other[-dim] == 1)


def _varies(labels: torch.Tensor, dim: int) -> bool:
    """Whether different channels follow one another along a dimension."""
    if is_constant(labels, dim):
        return False
    lowest = labels.masked_fill(labels == 0, torch.inf).amin(dim)
    return bool((labels.amax(dim) > lowest).any())
