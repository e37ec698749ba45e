"""Processes that do one piece of work, again and again, with other arguments.

What the work needs (networks, images) is written once, into memory without a name that every worker maps: so all
workers share one copy, beside that of the process that asked. It needs no room in /dev/shm, and is gone with the
last process. A worker that writes into it gets a copy of its own of that page.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import types
import weakref
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, forkserver
from typing import Any, NamedTuple, TypeVar

import torch

from dsfp_env.common.errors import InputError

Key = TypeVar("Key")
Job = TypeVar("Job")
Result = TypeVar("Result")


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """Processes for one piece of work. They are started when needed, ignore Ctrl-C, and end with this process.

    Args:
        work: A function, or a method of an object, that pickles.
        count: How many processes, at most.

    Raises:
        OSError: If there cannot be any here.
        Exception: Whatever pickling raises, if the work cannot be sent.
    """

    def __init__(self, work: Callable[..., Any], count: int) -> None:
        self._terms = _terms(count)
        path, free = _shared_file()
        self._free = weakref.finalize(self, free)
        torch.save(work, path)
        self._needs_main = _mentions_main(path)
        context = _start_method()
        wanted, self._want = context.Pipe(duplex=False)  # while the second end is open, they are wanted
        self._executor = ProcessPoolExecutor(
            count, context, initializer=_start, initargs=(path, self._terms, wanted)
        )

    def suit(self, count: int) -> bool:
        """Whether these are the workers that would be started now."""
        return self._terms == _terms(count)

    def submit(self, *arguments: Any) -> Future[Any]:
        """Start ``work(*arguments)``.

        Returns:
            Its result to be. `BrokenProcessPool` is raised there if a worker was ended from outside.
        """
        with _main_hidden(not self._needs_main):
            return self._executor.submit(_work_on, *arguments)

    def stop(self, at_once: bool = False) -> None:
        """End the workers; what has not begun is cancelled.

        Args:
            at_once: Whether what they are at is dropped, rather than waited for.
        """
        if at_once:
            self._want.close()
        self._executor.shutdown(cancel_futures=True)
        self._want.close()
        self._free()


def as_done(work: Callable[[Job], Result], jobs: Mapping[Key, Job], count: int) -> Iterator[tuple[Key, Result]]:
    """Do jobs with several workers, and say what came of each, in the order in which they are done.

    Who stops asking, by an exception or by Ctrl-C, stops the workers at once.

    Args:
        work: Of one job; pickles.
        jobs: What is to be done, by whatever tells one from another.
        count: Workers, at most; with 1, the work is done in this process.

    Raises:
        InputError: If the count is not positive, or a worker is ended from outside.
    """
    if count < 1:
        raise InputError(f"The number of workers is {count}: expected 1 or more.")
    if count == 1 or not jobs:
        for key, job in jobs.items():
            yield key, work(job)
        return
    workers, whole = Workers(work, min(count, len(jobs))), False
    try:
        futures = {workers.submit(job): key for key, job in jobs.items()}
        for future in as_completed(futures):
            yield futures[future], future.result()
        whole = True
    except BrokenProcessPool as error:
        raise InputError(
            "A worker was ended from outside. Was memory short? Nothing that was measured is lost: the same "
            "command goes on, if need be with fewer --workers."
        ) from error
    finally:
        workers.stop(at_once=not whole)


def _shared_file() -> tuple[str, Callable[[], None]]:
    """A new file, and how to be rid of it: one in memory, without a name, where the system has such."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("dsfp_env")
        return f"/proc/{os.getpid()}/fd/{memory}", partial(os.close, memory)
    descriptor, path = tempfile.mkstemp(prefix="dsfp_env-")
    os.close(descriptor)
    return path, partial(os.unlink, path)


def _start_method() -> multiprocessing.context.BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["dsfp_env", "torch._dynamo"])  # imported once, in memory once
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is not for what is started here
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _mentions_main(path: str) -> bool:
    """Whether something that was saved is defined in the script that is run."""
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return b"__main__" in archive.read(pickled)


@contextmanager
def _main_hidden(hidden: bool) -> Iterator[None]:
    """Processes started here do not run the user's script anew, as Python's own would.

    So a script needs no ``if __name__ == "__main__":``, unless it defines the network.
    """
    main = sys.modules["__main__"]
    if hidden:
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Terms(NamedTuple):
    processes: int
    parent: int  # a process that was forked cannot use its parent's workers
    matmul_precision: str
    dtype: torch.dtype


def _terms(count: int) -> _Terms:
    return _Terms(count, os.getpid(), torch.get_float32_matmul_precision(), torch.get_default_dtype())


_work: Callable[..., Any]  # of a worker


def _start(path: str, terms: _Terms, wanted: connection.Connection) -> None:
    global _work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    threading.Thread(target=_end_when_unwanted, args=(wanted,), daemon=True).start()
    torch.set_float32_matmul_precision(terms.matmul_precision)
    torch.set_default_dtype(terms.dtype)
    _work = torch.load(path, mmap=True, weights_only=False)


def _end_when_unwanted(wanted: connection.Connection) -> None:
    """End when the process that asked does, or when it does not want this one any more."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel, wanted])
        os._exit(1)


def _work_on(*arguments: Any) -> Any:
    return _work(*arguments)
