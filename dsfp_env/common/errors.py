"""How bad input is refused: one exception.

A message says what was expected, what came, for which agent or layer, and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class InputError(ValueError):
    """The caller's input cannot be used; the message is a sentence the caller can act on."""


class UnknownArgument(InputError, TypeError):
    """An argument came by a name that there is not; also the error that Python itself would raise."""


def check_ranges(settings: object, expected: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse settings that are out of their ranges.

    Args:
        settings: A dataclass.
        expected: Field -> whether its value is fine, and what is, in words.

    Raises:
        InputError: For the first one that is not fine.
    """
    for name, (fine, range_) in expected.items():
        if not fine:
            came = getattr(settings, name)
            raise InputError(f"{type(settings).__name__}.{name} is {came}: expected {range_}.")


def check_differentiable(loss: torch.Tensor, instead: str) -> None:
    """Refuse a loss that no gradient can be taken of.

    Args:
        loss: That a network has led to.
        instead: What needs no gradients, for the message.

    Raises:
        InputError: If it does not depend on anything that could be trained.
    """
    if not loss.requires_grad:
        raise InputError(
            "No gradient comes out of the network: its forward pass runs under torch.no_grad, or detaches what it "
            f"computes. Expected one that can be trained, or {instead}."
        )
