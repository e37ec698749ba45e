"""Jobs of one piece of work, sent to a Ray cluster as tasks: a bounded number at a time, and anew if one is lost.

Plain tasks rather than actors of our own: Ray places them, adds nodes for those that wait, and takes idle nodes
away. A thread sends them and hears of their ends. Jobs that are shorter than the way travel several at a time.
"""

from __future__ import annotations

import os
import pickle
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors.ray_worker import Reply
from dsfp_env.evaluation.worker_process import answer_of
from dsfp_env.evaluation.workers import GIVEN_UP, TRIES, GivenUp, Job

TASK_SECONDS = 0.05  # short jobs travel together until they take about this long,
MOST_JOBS = 64  # or are so many
PATIENCE = 2.0  # seconds after which a thread looks how large the cluster is by now
STOPPED = "The workers were stopped."


class ClusterJob(Job):
    """The result of a job to be, and what is known of the way to it."""

    processor: str | None = None  # what has done it, if that is of another kind than this machine's
    is_alone = False  # whether it travels alone: what it was in before was lost


class RayCrew:
    """Tasks of a Ray cluster. When nobody holds this any more, what was given is done, and that is the end.

    Args:
        send: Starts a task with some jobs, the arguments of each pickled; returns Ray's reference to its `Reply`.
        cancel: Drops a task, given its reference.
        room: How many tasks the cluster can run at once, now.
        count: How many are at work at once, at most.
    """

    def __init__(
        self,
        send: Callable[[list[bytes]], Any],
        cancel: Callable[[Any], object],
        room: Callable[[], int],
        count: int | None,
    ) -> None:
        self._process, self.count = os.getpid(), count
        self._sender = _Sender(send, cancel, room, count)
        weakref.finalize(self, self._sender.inbox.put, _Dismissed()).atexit = False

    @property
    def ahead(self) -> int:
        """See `Crew.ahead`."""
        return self._sender.ahead

    @property
    def over(self) -> str:
        """Why nothing is done any more; empty, while something is."""
        return str(self._sender.over or "") or ("It was forked." if self._process != os.getpid() else "")

    def submit(self, *arguments: Any) -> ClusterJob:
        """See `Crew.submit`.

        Raises:
            InputError: If a node may not do such work.
        """
        if isinstance(self._sender.over, InputError):
            raise self._sender.over
        if self.over:
            raise BrokenExecutor(self.over)
        job = ClusterJob(pickle.dumps(arguments))
        self._sender.inbox.put(job)
        return job

    def stop(self, at_once: bool = False) -> None:
        """See `Crew.stop`."""
        if self._process == os.getpid():
            self._sender.inbox.put(_Stopped(at_once))
            self._sender.thread.join()


class _Dismissed(NamedTuple):
    """Nobody gives jobs any more."""


class _Stopped(NamedTuple):
    """What has not begun is cancelled."""

    at_once: bool


class _Done(NamedTuple):
    """A task is at its end."""

    reference: Any
    future: Any


class _Sender:
    """The thread of a crew, and what it has."""

    def __init__(
        self,
        send: Callable[[list[bytes]], Any],
        cancel: Callable[[Any], object],
        room: Callable[[], int],
        count: int | None,
    ) -> None:
        self.inbox = SimpleQueue[Any]()
        self.over: Exception | None = None
        self.ahead = 4
        self._send, self._cancel, self._room, self._count = send, cancel, room, count
        self._waiting, self._under_way = deque[ClusterJob](), dict[Any, list[ClusterJob]]()
        self._bound, self._looked = 1, float("-inf")
        self._seconds: float | None = None  # that a job takes, of late
        self._is_last = False
        self.thread = threading.Thread(target=self._run, daemon=True, name="dsfp_env: Ray")
        self.thread.start()

    def _run(self) -> None:
        try:
            while not (self._is_last and not self._waiting and not self._under_way):
                self._look()
                self._fill()
                self._hear()
        except Exception as error:  # of Ray, when the cluster is gone
            self._end(BrokenExecutor(f"The Ray cluster cannot be used any more ({_words(error)})."))
        self.over = self.over or BrokenExecutor(STOPPED)
        self._drop_waiting()

    def _look(self) -> None:
        """See how large the cluster is."""
        if time.monotonic() - self._looked >= PATIENCE:
            slots = max(1, self._room())
            # Some tasks wait at the cluster: so no worker does, and a cluster that can grow sees that it should.
            self._bound = self._count if self._count and self._count <= slots else 2 * slots + 2
            self._bound = min(self._bound, self._count or self._bound)
            self._looked = time.monotonic()
        self.ahead = 2 * self._bound * self._jobs_in_a_task()

    def _jobs_in_a_task(self) -> int:
        if self._seconds is None:
            return 1
        return max(1, min(MOST_JOBS, int(TASK_SECONDS / max(self._seconds, 1e-6))))

    def _fill(self) -> None:
        """Send tasks, as many as there is room for."""
        while self._waiting and len(self._under_way) < self._bound:
            share = -(-len(self._waiting) // self._bound)
            jobs = self._next(min(self._jobs_in_a_task(), share))
            if jobs:
                reference = self._send([job.arguments for job in jobs])
                self._under_way[reference] = jobs
                reference.future().add_done_callback(partial(self._at_end, reference))

    def _at_end(self, reference: Any, future: Any) -> None:
        """Told by a thread of Ray's."""
        self.inbox.put(_Done(reference, future))

    def _next(self, most: int) -> list[ClusterJob]:
        jobs: list[ClusterJob] = []
        while self._waiting and len(jobs) < most:
            if jobs and self._waiting[0].is_alone:
                break
            job = self._waiting.popleft()
            if job.running() or job.set_running_or_notify_cancel():
                jobs.append(job)
            if job.is_alone:
                break
        return jobs

    def _hear(self) -> None:
        """Wait for something, and heed it and all that has come beside it."""
        with suppress(Empty):
            self._heed(self.inbox.get(timeout=PATIENCE))
            while True:
                self._heed(self.inbox.get_nowait())

    def _heed(self, news: Any) -> None:
        if isinstance(news, ClusterJob):
            self._waiting.append(news)
        elif isinstance(news, _Done):
            jobs = self._under_way.pop(news.reference, [])
            if (error := news.future.exception()) is not None:
                self._lost(jobs, error)
            else:
                self._told(jobs, news.future.result())
        else:
            self._is_last = True
            if isinstance(news, _Stopped):
                self.over = self.over or BrokenExecutor(STOPPED)
                self._drop_waiting()
                if news.at_once:
                    self._drop_under_way(BrokenExecutor(STOPPED))

    def _told(self, jobs: Sequence[ClusterJob], reply: Reply) -> None:
        if reply.refused:
            self._end(InputError(reply.refused), jobs)
        elif reply.unreadable:
            self._end(BrokenExecutor(f"Workers cannot read their work ({reply.unreadable})."), jobs)
        else:
            seconds = reply.seconds / len(jobs)
            self._seconds = seconds if self._seconds is None else (self._seconds + seconds) / 2
            for job, message in zip(jobs, reply.messages, strict=True):
                result, error = answer_of(message)
                job.processor = reply.processor
                if error is None:
                    job.set_result(result)
                else:
                    job.set_exception(error)

    def _lost(self, jobs: Sequence[ClusterJob], error: BaseException) -> None:
        """A task did not come to its end: its jobs are begun anew, each alone, if that was an accident."""
        if not _is_accident(error):
            self._end(BrokenExecutor(f"The Ray cluster cannot do such work ({_words(error)})."), jobs)
            return
        for job in reversed(jobs):
            job.deaths += 1
            job.is_alone = True
            if job.deaths >= TRIES:
                job.set_exception(GivenUp(GIVEN_UP))
            else:
                self._waiting.appendleft(job)

    def _end(self, why: Exception, jobs: Sequence[ClusterJob] = ()) -> None:
        """Nothing is done any more."""
        self.over, self._is_last = why, True
        for job in jobs:
            job.set_exception(why)
        self._drop_under_way(why)
        while self._waiting:
            job = self._waiting.popleft()
            if job.running() or job.set_running_or_notify_cancel():
                job.set_exception(why)

    def _drop_under_way(self, why: Exception) -> None:
        for reference, jobs in self._under_way.items():
            with suppress(Exception):  # of a cluster that is gone
                self._cancel(reference)
            for job in jobs:
                job.set_exception(why)
        self._under_way.clear()

    def _drop_waiting(self) -> None:
        """What has not begun is cancelled, with what was given too late."""
        with suppress(Empty):
            while True:
                if isinstance(late := self.inbox.get_nowait(), ClusterJob):
                    self._waiting.append(late)
        for job in self._waiting:
            if not job.cancel():  # it was begun, and lost
                job.set_exception(BrokenExecutor(STOPPED))
        self._waiting.clear()


def _is_accident(error: BaseException) -> bool:
    """Whether a process or a node ended, which is no fault of the cluster's."""
    from ray import exceptions

    names = (
        "WorkerCrashedError",
        "NodeDiedError",
        "LocalRayletDiedError",
        "OutOfMemoryError",
        "ObjectLostError",
        "RpcError",
        "TaskCancelledError",
    )
    return isinstance(error, tuple(getattr(exceptions, name) for name in names if hasattr(exceptions, name)))


def _words(error: BaseException) -> str:
    """The last line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip().rstrip(".")
