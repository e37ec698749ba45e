"""Several threads in one process: who must wait for another, and who is refused."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, overload

from dsfp_env.common.errors import InputError

Result = TypeVar("Result")

_computing = threading.RLock()  # of this process


@contextmanager
def alone() -> Iterator[None]:
    """Within this context no other thread of this process is in such a one; it waits. One thread may nest them.

    For whatever sets what is one for all threads: torch's number of threads, generators and precision, and the
    gradients and forward passes of a network that tasks and evaluators share.
    """
    with _computing:
        yield


class computed_once(Generic[Result]):
    """A property that is computed when it is first asked for, `alone`, and kept.

    (`functools.cached_property` has a lock of its own up to Python 3.11: of two threads, one would hold that and
    wait for this, the other the other way round.)
    """

    def __init__(self, compute: Callable[[Any], Result]) -> None:
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> computed_once[Result]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any]) -> Result: ...

    def __get__(self, instance: object, owner: type[Any]) -> computed_once[Result] | Result:
        if instance is None:
            return self
        with alone():
            kept = instance.__dict__
            if self._name not in kept:
                kept[self._name] = self._compute(instance)
        result: Result = kept[self._name]
        return result


class OneThread:
    """A context that refuses a second thread while a first is in it; one thread may nest it. Copies are free.

    Args:
        of: What must not be used by two threads at once, and what to do instead, for the sentence.
    """

    def __init__(self, of: str, instead: str) -> None:
        self._words, self._lock = (of, instead), threading.RLock()

    def __enter__(self) -> None:
        """Enter.

        Raises:
            InputError: If another thread is within.
        """
        if not self._lock.acquire(blocking=False):
            raise InputError("{} is used by another thread at this moment: {}".format(*self._words))

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return OneThread, self._words


def _free() -> None:
    global _computing
    _computing = threading.RLock()


if hasattr(os, "register_at_fork"):  # of a fork, one thread is left, and it may not be the one that was within
    os.register_at_fork(after_in_child=_free)
