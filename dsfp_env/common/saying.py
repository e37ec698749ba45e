"""What a command says: a full or closed output is told of once, and does not end the work."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

_lost = False  # whether something could not be said


def say(text: str = "", end: str = "\n") -> None:
    """Print to standard output, at once; if that cannot be, one sentence says so on standard error."""
    try:
        if sys.stdout is None:
            raise ValueError("it is closed")
        print(f"{text}{end}", end="", flush=True)  # in one write, so that `head` takes what it wants
    except (OSError, ValueError) as error:  # full, or a pipe whose reader has gone; closed
        lose(error)


def remark(text: object) -> None:
    """Print to standard error, at once; if that cannot be, nobody is told."""
    with suppress(OSError, ValueError):  # a terminal that has gone: there is nowhere left to say so
        print(text, file=sys.stderr, flush=True)


def begin() -> None:
    """Forget what could not be said before."""
    global _lost
    _lost = False


def all_was_said() -> bool:
    """Whether everything reached standard output, what was printed by others included."""
    say(end="")
    return not _lost


def lose(error: Exception, quietly: bool = False) -> None:
    """Say, once, that something could not be printed, unless quietly; from now on nothing is tried."""
    global _lost
    if not _lost and not quietly:
        reason = getattr(error, "strerror", None) or error
        remark(f"error: standard output cannot be written ({reason}); what goes to files is not affected")
    _lost = True
    stdout = sys.__stdout__
    if stdout is not None and stdout is sys.stdout:  # its buffer would raise again at the end
        with suppress(OSError, ValueError):  # it was closed from the start
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stdout.fileno())
            os.close(nowhere)
