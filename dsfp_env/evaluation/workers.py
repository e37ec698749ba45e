"""Several processes that do one piece of work, with one job after another; one that is killed is replaced.

What the work needs (networks, images) is written once, into memory without a name that every worker maps: so all
workers share one copy, beside that of the process that asked. It needs no room in /dev/shm, and is gone with the
last process. A worker that writes into it gets a copy of its own of that page.

Each worker has a thread here that hands it jobs. If a worker is ended from outside, a new one does its job again,
up to `TRIES` times in all, and what the others are at goes on.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import torch

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.lifetime import at_exit
from dsfp_env.evaluation.worker_process import Ended, Terms, WorkerProcess, terms

MOST_WORKERS = 1024
TRIES = 3  # of one job, if its worker is ended from outside
REPLACED = "A worker was ended from outside. Was memory short? Fewer workers need less. Its work is done again."
GIVEN_UP = (
    f"A worker was ended from outside, {TRIES} times at the same work. Was memory short? Fewer workers need less, "
    "and so do fewer images at a time."
)

NOTHING_LOST = "Nothing that was measured is lost: the same command goes on, if need be with fewer --workers."


class GivenUp(InputError):
    """A job whose workers were ended from outside, one after the other."""


class Job(Future[Any]):
    """The result of a job to be."""

    def __init__(self, arguments: bytes) -> None:
        super().__init__()
        self.arguments = arguments
        self.deaths = 0  # of workers that were at it


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_workers(count: int, what: str = "--workers") -> None:
    """Refuse a number of workers that there cannot be.

    Raises:
        InputError: If it is below 1, or so large that it must be a mistake.
    """
    if not 1 <= count <= MOST_WORKERS:
        raise InputError(f"{what} is {shortened(count)}: expected from 1 to {MOST_WORKERS}.")


class Workers:
    """Processes for one piece of work. They are started when needed, ignore Ctrl-C, and end with this process.

    When nobody holds this any more, they end when they have done what they were given.

    Args:
        work: A function, or a method of an object, that pickles.
        count: How many processes, at most.

    Raises:
        OSError: If the work cannot be written.
        Exception: Whatever pickling raises, if the work cannot be sent.
    """

    def __init__(self, work: Callable[..., Any], count: int) -> None:
        self._count, self._terms = count, terms()
        self._crew = _Crew(work, self._terms, count)
        weakref.finalize(self, self._crew.dismiss).atexit = False

    def suit(self, count: int) -> bool:
        """Whether these are the workers that would be started now."""
        return (self._count, self._terms) == (count, terms())

    @property
    def ahead(self) -> int:
        """See `Crew.ahead`."""
        return 4 * self._count

    def submit(self, *arguments: Any) -> Job:
        """Start ``work(*arguments)``.

        Returns:
            Its result to be. `GivenUp` is raised there if its workers were ended from outside again and again,
            `concurrent.futures.BrokenExecutor` if they end as soon as they begin.

        Raises:
            BrokenExecutor: If that has been so already, or the workers were stopped.
            OSError: If no worker can be started.
        """
        return self._crew.submit(pickle.dumps(arguments))

    def stop(self, at_once: bool = False) -> None:
        """End the workers; what has not begun is cancelled.

        Args:
            at_once: Whether what they are at is dropped, rather than waited for.
        """
        if self._terms.parent == os.getpid():
            self._crew.stop(at_once)


class _Crew:
    """The threads of some workers, and what they share. A thread ends, and its process with it, after a None."""

    def __init__(self, work: Callable[..., Any], terms: Terms, count: int) -> None:
        path, free = _shared_file()
        weakref.finalize(self, free)
        torch.save(work, path)
        self._start = partial(WorkerProcess, path, terms, _mentions_main(path))
        self._count, self._jobs = count, SimpleQueue[Job | None]()
        self._lock = threading.Lock()  # of what is below
        self._threads: list[threading.Thread] = []
        self._processes: set[WorkerProcess] = set()
        self._waiting = 0  # jobs that are not done
        self._over = ""  # why nothing is done any more
        self._may_grow, self._dropped = True, False
        at_exit(self._drop)

    def submit(self, arguments: bytes) -> Job:
        job = Job(arguments)
        with self._lock:
            if self._over:
                raise BrokenExecutor(self._over)
            self._waiting += 1
            too_few = self._may_grow and len(self._threads) < min(self._count, self._waiting)
            started = self._another() if too_few or not self._threads else None
        if started is not None:
            try:
                started.result()
            except BaseException as error:
                with self._lock:
                    self._may_grow = False
                    if not (self._threads and isinstance(error, OSError)):  # else those that there are will do
                        self._waiting -= 1
                        raise
        self._jobs.put(job)
        return job

    def dismiss(self) -> None:
        """Let them end when all is done. Takes no lock: it may be called by the garbage collector at any time."""
        for _ in range(self._count):
            self._jobs.put(None)

    def stop(self, at_once: bool) -> None:
        """End them, and wait for it; what has not begun is cancelled."""
        with self._lock:
            self._over = self._over or "The workers were stopped."
            threads = list(self._threads)
        self._empty(lambda job: job.cancel())
        if at_once:
            self._drop()
        for _ in threads:
            self._jobs.put(None)
        for thread in threads:
            thread.join()

    def _another(self) -> Future[None]:
        """One more thread, with the lock held; done when its process has started, or could not be.

        A thread is not reached by Ctrl-C, so a process is started wholly or not at all.
        """
        started = Future[None]()
        thread = threading.Thread(target=self._member, args=(started,), daemon=True, name="dsfp_env: workers")
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError as error:  # there can be no more threads
            self._threads.remove(thread)
            started.set_exception(OSError(str(error)))
        return started

    def _member(self, started: Future[None]) -> None:
        """What a thread does."""
        process = None
        why = ""
        try:
            try:
                process = self._new_process()
            except BaseException as error:  # whatever it is, it is raised where a job was submitted
                self._leave()
                started.set_exception(error)
                return
            started.set_result(None)
            process = self._ready(process)
            while (job := self._jobs.get()) is not None:
                process = self._do(job, process)
                del job
        except BrokenExecutor as error:
            why = str(error)
        finally:
            if process is not None:
                self._gone(process)
        self._leave(why)

    def _leave(self, why: str = "") -> None:
        """This thread does nothing any more; if there is no other, nothing is done."""
        with self._lock:
            self._threads.remove(threading.current_thread())
            if self._threads or not why:
                return
            self._over = self._over or why
        self._empty(partial(_fail, error=BrokenExecutor(why)))

    def _do(self, job: Job, process: WorkerProcess) -> WorkerProcess:
        """Do a job; returns the process that has done it."""
        if not job.set_running_or_notify_cancel():
            self._done()
            return process
        while True:
            try:
                if self._dropped:
                    raise BrokenExecutor("The workers were stopped.")
                if not process.is_idle:  # it was ended while it had nothing to do
                    process = self._ready(self._replaced(process))
                result, error = process.ask(job.arguments)
            except Ended:
                job.deaths += 1
                if job.deaths == TRIES:
                    return self._told(job, process, GivenUp(GIVEN_UP))
            except BrokenExecutor as none_left:
                self._told(job, process, BrokenExecutor(str(none_left)))
                raise
            else:
                if error is not None:
                    return self._told(job, process, error)
                self._done()
                job.set_result(result)
                return process

    def _told(self, job: Job, process: WorkerProcess, error: BaseException) -> WorkerProcess:
        self._done()
        job.set_exception(error)
        return process

    def _done(self) -> None:
        with self._lock:
            self._waiting -= 1

    def _ready(self, process: WorkerProcess) -> WorkerProcess:
        """The process, or the next one, when it has read the work."""
        for is_last in (False, True):
            try:
                process.wait_until_ready()
                return process
            except Ended:
                if is_last or self._dropped:
                    break
                process = self._replaced(process)
            except BaseException as error:  # of reading the work, whatever that is
                raise BrokenExecutor(
                    f"Workers cannot read their work ({type(error).__name__}: {error})."
                ) from error
        raise BrokenExecutor("Workers end as soon as they begin.")

    def _replaced(self, process: WorkerProcess) -> WorkerProcess:
        self._gone(process)
        if self._dropped:
            raise BrokenExecutor("The workers were stopped.")
        try:
            return self._new_process()
        except OSError as error:
            raise BrokenExecutor(
                f"A worker was ended from outside, and there cannot be another ({error})."
            ) from error

    def _new_process(self) -> WorkerProcess:
        process = self._start()
        with self._lock:
            self._processes.add(process)
            dropped = self._dropped
        if dropped:
            process.kill()
        return process

    def _gone(self, process: WorkerProcess) -> None:
        with self._lock:
            self._processes.discard(process)
        process.end()

    def _drop(self) -> None:
        """End the processes, whatever they are at."""
        with self._lock:
            self._over = self._over or "The workers were stopped."
            self._dropped = True
            processes = list(self._processes)
        for process in processes:
            process.kill()

    def _empty(self, end: Callable[[Job], object]) -> None:
        """Do this to all jobs that nobody has begun."""
        try:
            while True:
                if (job := self._jobs.get_nowait()) is not None:
                    self._done()
                    end(job)
        except Empty:
            pass


def _fail(job: Job, error: Exception) -> None:
    if job.set_running_or_notify_cancel():
        job.set_exception(error)


def _shared_file() -> tuple[str, Callable[[], None]]:
    """A new file, and how to be rid of it: one in memory, without a name, where the system has such."""
    if hasattr(os, "memfd_create"):
        memory = os.memfd_create("dsfp_env")
        return f"/proc/{os.getpid()}/fd/{memory}", partial(os.close, memory)
    descriptor, path = tempfile.mkstemp(prefix="dsfp_env-")
    os.close(descriptor)
    return path, partial(os.unlink, path)


def _mentions_main(path: str) -> bool:
    """Whether something that was saved is defined in the script that is run."""
    with zipfile.ZipFile(path) as archive:
        pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        return b"__main__" in archive.read(pickled)
