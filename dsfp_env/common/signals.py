"""Signals that end a command end it as Ctrl-C does: what it does then, it does for all of them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


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

    here = threading.current_thread() is threading.main_thread()  # elsewhere, none can be had
    unset = signal.SIG_DFL, None  # the second: that of a library, such as Ray, in C
    wanted = [one for one in ENDING if here and signal.getsignal(one) in unset]
    for one in wanted:
        signal.signal(one, end)
    try:
        yield came
    finally:
        for one in wanted:
            signal.signal(one, signal.SIG_DFL)
