"""What one operation of a running network did to labels, as it is written down."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from dsfp_env.channels.labels import compact


@dataclass(frozen=True)
class Seen:
    """The labels of one tensor."""

    compact: torch.Tensor  # one index for every dimension along which nothing changes
    shape: torch.Size  # of the tensor


@dataclass
class Event:
    """What one operation did to labels."""

    operation: str  # with the module that it ran in, for people
    module: str = ""  # path of that
    labels: list[Seen] = field(default_factory=list)  # of what it wrote; of what it read, if it failed
    read: Seen | None = None  # of what it read, if it looks at channels by their position, or number
    joins: list[torch.Tensor] = field(default_factory=list)  # [2, n]: channels that it lets meet
    stays: list[tuple[torch.Tensor, str]] = field(default_factory=list)  # channels that must stay, and why
    decisions: list[bool] = field(default_factory=list)  # that a cut network cannot make: widths tell them
    doubt: str = ""  # what it does, if its other numbers turn out not to follow the channels
    macs: int = 0  # multiply-adds of a convolution or matrix product that is no layer's, in evaluation mode
    mixes: bool = False  # one element reads several channels of one tensor


def seen(labels: torch.Tensor) -> Seen:
    """Labels, as they are now."""
    return Seen(compact(labels)[0].clone(), labels.shape)
