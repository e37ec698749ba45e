"""Errors of the machine, such as a lack of memory: where all errors are caught, these come out all the same."""

from __future__ import annotations

import sys


def raise_if_of_the_machine(error: BaseException, doing: str, smaller: str = "the batch or the images") -> None:
    """Raise an error that is the machine's, such as a lack of memory; for where all errors are caught.

    Args:
        error: That was caught.
        doing: What was tried, for the sentence it comes out with: "tracing the network".
        smaller: What may be made smaller.

    Raises:
        Exception: The error, of its own type, if it is one of these.
    """
    if not isinstance(error, _of_the_machine()):
        return
    if getattr(error, "told", False):  # where it was, already
        raise error
    sentence = f"{error} (while {doing}; if memory is short, make {smaller} smaller)"
    try:
        told = type(error)(sentence)
    except TypeError:  # it takes more than a message
        raise error from None
    vars(told)["told"] = True
    raise told from error


def _of_the_machine() -> tuple[type[BaseException], ...]:
    """Not of what it was given: they say nothing about a network, a file or a plan."""
    torch = sys.modules.get("torch")  # which takes seconds to import; until then it raises nothing
    names = ("OutOfMemoryError", "AcceleratorError")  # older releases lack some
    return (MemoryError, *(getattr(torch, name) for name in names if hasattr(torch, name)))
