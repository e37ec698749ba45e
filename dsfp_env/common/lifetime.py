"""Processes that end with the one that started them, whatever ends that one, and leave Ctrl-C to it.

An ordinary exit of the one that started them ends them by `at_exit`. If it is killed, nothing of it runs any more;
then they end by themselves, at once, whatever they are at: each has a thread that waits for just that.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from multiprocessing import connection, parent_process, util
from typing import Any
from weakref import WeakMethod

_endings: dict[int, list[WeakMethod[Callable[[], None]]]] = {}  # by process: a fork has none of its parent's


def end_with_parent() -> None:
    """From now on this process, one of `multiprocessing`, ends when the process that started it does.

    What tells is a pipe of which the other holds the last end; on Linux, also the other process itself: a fork of
    it may hold that end, too. From now on Ctrl-C does nothing here.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return
    watched: list[Any] = [parent.sentinel]
    if hasattr(os, "pidfd_open"):
        try:
            watched.append(os.pidfd_open(parent.pid))  # type: ignore[arg-type]
        except ProcessLookupError:
            os._exit(1)
        except OSError:  # a kernel or a sandbox that has none, or no descriptor is left: the pipe will do
            pass
    if connection.wait(watched, timeout=0):  # it has ended already
        os._exit(1)
    threading.Thread(target=_end_after, args=(watched,), daemon=True, name="dsfp_env: end with parent").start()


def at_exit(end: Callable[[], None]) -> None:
    """Call a method when this process exits, before `multiprocessing` waits for the processes it has started.

    Args:
        end: Of an object; not called if that is gone by then, nor in a fork of this process.
    """
    here = _endings.setdefault(os.getpid(), [])
    if not here:
        util.Finalize(None, _end_all, exitpriority=100)
    here[:] = [method for method in here if method() is not None] + [WeakMethod(end)]


def _end_all() -> None:
    for method in _endings.pop(os.getpid(), []):
        if (end := method()) is not None:
            end()


def _end_after(watched: list[Any]) -> None:
    connection.wait(watched)
    os._exit(1)
