"""One process that does one piece of work, again and again, asked by a pipe; and how it is started.

What is sent and answered are plain bytes: nothing is in shared memory or holds a descriptor, be it a tensor. There
is no semaphore, so nothing to clean up after a process that was killed, and no need for /dev/shm.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import connection, forkserver, resource_tracker
from typing import Any, NamedTuple

import torch

from dsfp_env.common.lifetime import end_with_parent

_READY = b""
_starting = threading.Lock()


class Ended(Exception):
    """The process is gone."""


class Terms(NamedTuple):
    """What work is done under, besides what it is."""

    parent: int  # a process that was forked cannot use its parent's workers
    matmul_precision: str
    dtype: torch.dtype


def terms() -> Terms:
    """Those of this process, now."""
    return Terms(os.getpid(), torch.get_float32_matmul_precision(), torch.get_default_dtype())


class WorkerProcess:
    """A process that has begun to start. It ignores Ctrl-C, and ends with this one.

    Args:
        path: The work: a function, or a method of an object, as `torch.save` writes it.
        terms: What it is done under.
        needs_main: Whether the work is defined in the script that is run.

    Raises:
        OSError: If there cannot be any here.
        AssertionError: If this process may not start others.
    """

    def __init__(self, path: str, terms: Terms, needs_main: bool) -> None:
        context = _start_method()
        self._connection, theirs = context.Pipe()
        self._has_ended = False  # as far as is known
        self._process = context.Process(target=_serve, args=(theirs, path, terms))  # type: ignore[attr-defined]
        try:
            _check_descriptors(theirs)
            with _starting, _main_hidden(not needs_main):
                self._begin()
        except BaseException:
            self._connection.close()
            raise
        finally:
            theirs.close()

    def _begin(self) -> None:
        for patience in (0.1, 1.0, None):
            try:
                self._process.start()
                break
            except (ConnectionError, EOFError) as error:  # the server of processes ends before it answers
                if patience is None:
                    raise OSError(f"the server of processes ends ({type(error).__name__})") from error
                time.sleep(patience)
                _start_method()

    @property
    def is_idle(self) -> bool:
        """Whether it is there, when it is asked nothing; then nothing comes from it but its end."""
        try:
            return not self._has_ended and not self._connection.poll() and bool(self._process.is_alive())
        except OSError:
            return False

    def wait_until_ready(self) -> None:
        """Wait until it has read the work.

        Raises:
            Ended: If it has ended before.
            Exception: What reading the work has raised there.
        """
        if (message := self._received()) != _READY and (error := answer_of(message)[1]) is not None:
            raise error

    def ask(self, arguments: bytes) -> tuple[Any, BaseException | None]:
        """The result of the work, or what it has raised.

        Args:
            arguments: Pickled.

        Raises:
            Ended: If the process has.
        """
        try:
            self._connection.send_bytes(arguments)
        except OSError as error:
            self._has_ended = True
            raise Ended from error
        return answer_of(self._received())

    def kill(self) -> None:
        """End it, whatever it is at."""
        self._process.kill()

    def end(self) -> None:
        """End it when it is done, and wait for that."""
        self._connection.close()
        self._process.join()

    def _received(self) -> bytes:
        try:
            # Both are watched: a process that this one has started may outlive it, and hold its end of the pipe.
            if self._connection in connection.wait([self._connection, self._process.sentinel]):
                return self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self._has_ended = True
            raise Ended from error
        self._has_ended = True
        raise Ended


class _RaisedThere(Exception):
    """The traceback of an error in another process."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def answer_of(message: bytes) -> tuple[Any, BaseException | None]:
    """The result that a message tells, or the error that was raised in its place."""
    try:
        result, error, where = pickle.loads(message)
    except Exception as wrong:  # something of somebody's own that cannot be made anew here
        return None, wrong
    if error is not None:
        error.__cause__ = _RaisedThere(where)
    return result, error


def _serve(asked: connection.Connection, path: str, terms: Terms) -> None:
    """What the process does."""
    end_with_parent()
    torch.set_float32_matmul_precision(terms.matmul_precision)
    torch.set_default_dtype(terms.dtype)
    # Whatever is raised, also by sys.exit() in somebody's function, is for who asked: all errors are caught.
    try:
        work = torch.load(path, mmap=True, weights_only=False)
    except BaseException as error:
        asked.send_bytes(message_of_error(error))
        return
    asked.send_bytes(_READY)
    while True:
        try:
            arguments = asked.recv_bytes()
        except (EOFError, OSError):
            return
        message = message_of(work, arguments)
        try:
            asked.send_bytes(message)
        except OSError:
            return
        del arguments, message


def message_of(work: Callable[..., Any], arguments: bytes) -> bytes:
    """What work comes to, be it a result or an error, as `answer_of` reads it.

    Args:
        work: The work.
        arguments: Pickled.
    """
    try:
        return pickle.dumps((work(*pickle.loads(arguments)), None, ""))
    except BaseException as error:
        return message_of_error(error)


def message_of_error(error: BaseException) -> bytes:
    """An error, as `answer_of` reads it."""
    where = "".join(traceback.format_exception(error))
    try:
        message = pickle.dumps((None, error, where))
        pickle.loads(message)
    except Exception:  # an error of somebody's own, that does not pickle or cannot be made anew
        message = pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}"), where))
    return message


def _start_method() -> multiprocessing.context.BaseContext:
    """Whatever the user has set for processes of their own."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dsfp_env", "torch._dynamo"])  # imported once, in memory once
    resource_tracker.ensure_running()  # first: it lets Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is not for what is started here
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _check_descriptors(pipe: connection.Connection) -> None:
    """Raise an OSError if there are too few left for a start: one that breaks off ends the server of processes."""
    taken: list[int] = []
    try:
        for _ in range(8):
            taken.append(os.dup(pipe.fileno()))
    finally:
        for one in taken:
            os.close(one)


@contextmanager
def _main_hidden(hidden: bool) -> Iterator[None]:
    """Processes started here do not run the user's script anew, as Python's own would.

    So a script needs no ``if __name__ == "__main__":``, unless it defines the network. What takes its place has
    all that it has, but no file: other threads may look something up there.
    """
    main = sys.modules["__main__"]
    if hidden:
        fileless = types.ModuleType("__main__")
        vars(fileless).update({name: value for name, value in vars(main).items() if name != "__file__"})
        fileless.__spec__ = None
        sys.modules["__main__"] = fileless
    try:
        yield
    finally:
        sys.modules["__main__"] = main
