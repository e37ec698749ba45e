"""What verification teaches: channels that must go together, or stay, for an operation to find them after removal.

``y.chunk(2, 1)`` takes the first half of the channels, and the second. After removal it still takes halves; they
hold what they held if every channel of the first has gone with its like in the second. So pieces are *tied*, where
that may help: across them (channel i of each goes with channel i of the others), or within (a piece goes as a
whole). Whether it did help is seen when the network is verified again; if nothing helps, the channels stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import nn

from dsfp_env.channels.coupling import Classes, Ties
from dsfp_env.channels.events import Event


class _Try(NamedTuple):
    """What may be done about an operation."""

    stays: list[tuple[torch.Tensor, str]]  # if nothing helps
    left: Iterator[Ties]  # ties that were not tried yet


@dataclass
class Amendments:
    """What was learnt so far of the channels of a network."""

    network: nn.Module
    events: list[Event]  # of its trace
    ties: dict[int, Ties] = field(default_factory=dict)  # by number of the event that needs them
    stays: list[tuple[torch.Tensor, str]] = field(default_factory=list)  # labels that must stay, and why
    _tries: dict[int, _Try] = field(default_factory=dict)  # by event

    def learn(self, classes: Classes, faults: Mapping[int, str], event: int | None) -> None:
        """Learn from a removal that was not exact.

        Args:
            classes: As they were.
            faults: Classes that were at fault, with the reason.
            event: The number of the operation that took other channels than before, if it is known.
        """
        stays = list(_as_labels(classes, faults))
        if event is not None:
            self._tries.setdefault(event, _Try(stays, possible_ties(self.network, self.events[event])))
            suspects = [event]
        else:  # perhaps what was tied was wrong
            at_fault = set(faults)
            suspects = [e for e, tie in self.ties.items() if at_fault & set(classes.of_label[tie.labels].tolist())]
        if any(map(self._tie, reversed(suspects))):
            return
        for one in suspects:
            self.ties.pop(one, None)
            stays = [*self._tries[one].stays] or stays  # those of before, without what was tied to them since
            self._tries[one].stays.clear()
        self.stays += stays

    def _tie(self, event: int) -> bool:
        """Try the next ties for an operation; whether there were any left."""
        if (ties := next(self._tries[event].left, None)) is None:
            return False
        self.ties[event] = ties
        return True


def _as_labels(classes: Classes, faults: Mapping[int, str]) -> Iterator[tuple[torch.Tensor, str]]:
    """The labels that must stay if classes are at fault, reason by reason."""
    for reason in dict.fromkeys(faults.values()):
        of_reason = [one for one, why in faults.items() if why == reason and one not in classes.pinned]
        at_fault = torch.isin(classes.of_label, torch.tensor(of_reason, dtype=torch.int64))
        yield at_fault.nonzero().flatten(), reason


def possible_ties(network: nn.Module, event: Event) -> Iterator[Ties]:
    """What might make an operation find its channels, the likeliest first.

    The module that it runs in may hold the size of a piece, or of all, as in ``y.split(self.width, 1)``. If
    nothing else helps, such an attribute is made to follow.
    """
    if event.read is None or not event.labels:
        return
    channels, wrote = event.read.compact.flatten().long(), [seen.compact for seen in event.labels]
    pieces = [
        (size, across)
        for size, across in _pieces(channels, event.read.compact.shape, wrote)
        if 1 < size < len(channels) and len(channels) % size == 0
    ]
    for size, across in pieces:
        yield Ties(event.operation, _tied(channels, size, across), {})
    for size in [*(size for size, across in pieces if across), len(channels)]:
        for counts in _counts(network.get_submodule(event.module), size, channels):
            of_module = {(event.module, name): labels for name, labels in counts.items()}
            yield Ties(event.operation, _tied(channels, size, across=True), of_module)


def _tied(channels: torch.Tensor, size: int, across: bool) -> torch.Tensor:
    """Pairs of labels ``[2, n]`` of channels that go together, if a row of them consists of pieces of a size."""
    rows = channels.view(-1, size)
    rows = rows.T if across else rows
    pairs = torch.stack([rows[:, :1].expand_as(rows).flatten(), rows.flatten()])
    return pairs[:, (pairs > 0).all(0)]


def _counts(module: nn.Module, size: int, channels: torch.Tensor) -> Iterator[dict[str, torch.Tensor]]:
    """Attributes that may be the number of channels in a piece, or of all; by name, with the labels they count."""
    found = {
        name: channels[:value]
        for name, value in vars(module).items()
        if type(value) is int and value in (size, len(channels))
    }
    yield from ({name: labels} for name, labels in found.items())
    if len(found) > 1:
        yield found


def _pieces(channels: torch.Tensor, shape: torch.Size, wrote: list[torch.Tensor]) -> Iterator[tuple[int, bool]]:
    """Sizes of pieces that an operation may see in a row of channels; and whether they are tied across, or within.

    Args:
        channels: The labels that it read, one after another.
        shape: How they lay; a dimension of size 1 tells no channels apart.
        wrote: The labels of what it wrote.
    """
    inner = [size for size in shape if size > 1][1:] or [size for size in wrote[0].shape if size > 1][1:]
    if len(wrote) > 1:  # split
        yield len(wrote[0].flatten()), True
    elif inner:  # several dimensions tell channels apart, before or after
        for place in range(len(inner)):
            yield math.prod(inner[place:]), True
        for place in range(len(inner)):
            yield math.prod(inner[place:]), False
    elif wrote[0].numel() > 1:
        first, second = ((channels == label).nonzero()[:1].sum().item() for label in wrote[0].flatten()[:2])
        if second - first == 1:  # a slice
            yield math.gcd(int(first), int(first) + wrote[0].numel(), len(channels)), True
        else:  # every n-th, or a shuffle
            yield int(second - first), False
            yield int(second - first), True
