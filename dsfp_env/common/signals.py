"""Signals that end a command end it as Ctrl-C does: what it does then, it does for all of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def end_by_ctrl_c() -> None:
    """Until `raised_as_ctrl_c`, let Ctrl-C end this process without a word, as SIGTERM does."""
    if _is_main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def raised_as_ctrl_c() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt; those that are ignored (``nohup``) stay so.

    Yields:
        The numbers of the signals that came.
    """
    came: list[int] = []

    def end(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    here = _is_main_thread()
    unset = signal.SIG_DFL, None  # the second: that of a library, such as Ray, in C
    wanted = [one for one in ENDING if here and signal.getsignal(one) in unset]
    if here and signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of `end_by_ctrl_c`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for one in wanted:
        signal.signal(one, end)
    try:
        yield came
    finally:
        for one in wanted:
            signal.signal(one, signal.SIG_DFL)


def _is_main_thread() -> bool:
    """Elsewhere, no signal can be had."""
    return threading.current_thread() is threading.main_thread()
