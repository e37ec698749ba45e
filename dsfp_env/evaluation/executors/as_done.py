"""Many jobs of one piece of work, wherever that is done: what came of each, as soon as it is there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeVar

from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.workers import NOTHING_LOST, REPLACED, GivenUp

Key = TypeVar("Key")
Asked = TypeVar("Asked")
Result = TypeVar("Result")


def as_done(
    work: Callable[[Asked], Result],
    jobs: Mapping[Key, Asked],
    executor: Executor,
    on_other_processor: Callable[[str], object] = lambda name: None,
) -> Generator[tuple[Key, Result], None, None]:
    """Do jobs, and say what came of each, in the order in which they are done.

    No more of them are under way than keep everybody busy. Who stops asking, by an exception or by Ctrl-C, stops
    the work at once. A job that is given up does not keep the rest from being done; it is told of at the end.

    Args:
        work: Of one job; pickles.
        jobs: What is to be done, by whatever tells one from another.
        executor: Where.
        on_other_processor: Is told the name of one of another kind than this process's, before what it has done.

    Raises:
        InputError: If the place cannot be used, or workers are ended from outside again and again.
    """
    if not jobs:
        return
    with _can_start():
        crew, whole = executor.begin(work), False
    given_up: list[GivenUp] = []
    try:
        for key, future in _done(crew.submit, lambda: crew.ahead, jobs):
            try:
                result = future.result()
            except GivenUp as error:
                given_up.append(error)
                continue
            if getattr(future, "deaths", 0):
                warnings.warn(REPLACED, stacklevel=2)
            if processor := getattr(future, "processor", None):
                on_other_processor(processor)
            yield key, result
        if given_up:
            raise given_up[0]
        whole = True
    except (BrokenExecutor, GivenUp) as error:
        left = f" {len(given_up)} of {len(jobs)} jobs are left." if given_up else ""
        raise InputError(f"{error}{left} {NOTHING_LOST}") from error
    finally:
        crew.stop(at_once=not whole)
        executor.stop()


@contextmanager
def _can_start() -> Iterator[None]:
    """What starts workers: too few descriptors, processes or bytes of memory are said in a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(f"Workers cannot be started ({error}). {NOTHING_LOST}") from error


def _done(
    submit: Callable[[Asked], Future[Any]], ahead: Callable[[], int], jobs: Mapping[Key, Asked]
) -> Iterator[tuple[Key, Future[Any]]]:
    """Jobs as they are done, a few of them under way at any time."""
    under_way: dict[Future[Any], Key] = {}
    done, left = SimpleQueue[Future[Any]](), iter(jobs.items())
    while True:
        while len(under_way) < ahead() and (one := next(left, None)) is not None:
            with _can_start():
                future = submit(one[1])
            under_way[future] = one[0]
            future.add_done_callback(done.put)
        if not under_way:
            return
        future = done.get()
        yield under_way.pop(future), future
