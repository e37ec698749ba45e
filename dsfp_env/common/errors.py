"""How bad input is refused: one exception.

A message says what was expected, what came, for which agent or layer, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


_LONGEST = 300  # characters of what came, in a sentence


class InputError(ValueError):
    """The caller's input cannot be used; the message is a sentence the caller can act on."""


class UnknownArgument(InputError, TypeError):
    """An argument came by a name that there is not; also the error that Python itself would raise."""


def shortened(came: object) -> str:
    """What came, as code, for a sentence: a long one without its middle."""
    try:
        text = repr(came)
    except Exception as error:  # of a class of the user's own, or a number of too many digits
        return f"a {type(came).__name__} that cannot be shown ({type(error).__name__})"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without its full stop; its type if it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


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
