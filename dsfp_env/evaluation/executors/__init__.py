"""Where work is done: one interface for this process, for worker processes, and for a cluster."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class CannotSubmit(Exception):
    """Questions cannot be sent to where they would be answered; the message says why."""


class Crew(Protocol):
    """Who does one piece of work, with one job after another."""

    @property
    def ahead(self) -> int:
        """So many jobs, 1 or more, keep them busy: who has very many gives no more before some are done."""

    def submit(self, *arguments: Any) -> Future[Any]:
        """Start ``work(*arguments)``.

        Returns:
            Its result to be, or what it has raised. `GivenUp` is raised there if whoever was at it was ended from
            outside again and again, `concurrent.futures.BrokenExecutor` if nobody is left. What ``deaths`` it has,
            if any, says how often it was begun anew; what ``processor``, if any, that one of another kind than
            this process's has done it, and which.

        Raises:
            BrokenExecutor: If that has been so already.
            OSError: If nobody can be found to do it.
        """

    def stop(self, at_once: bool = False) -> None:
        """End them; what has not begun is cancelled.

        Args:
            at_once: Whether what they are at is dropped, rather than waited for.
        """


class Executor(Protocol):
    """A place where work is done. A result depends on the work and its arguments alone, so any place will do."""

    count: int | None
    """How many are at one piece of work, at most, unless another number is said; None: as many as have room."""

    def check(self, device: torch.device) -> None:
        """Refuse a device that work on it could not use there.

        Raises:
            InputError: If so.
        """

    def begin(self, work: Callable[..., Any], count: int | None = None) -> Crew:
        """Find a crew for a piece of work, which travels to each of them, or to where they are, once.

        Args:
            work: A function, or a method of an object, that pickles.
            count: How many, at most; the executor's own number unless given.

        Raises:
            InputError: If the place cannot be reached, or used.
            OSError: If the work cannot be written.
            Exception: Whatever pickling raises, if the work cannot be sent.
        """

    def suits(self, crew: Crew, count: int | None = None) -> bool:
        """Whether this crew is the one that would be found now, for its work."""

    def stop(self) -> None:
        """End what was started for it; what is at work is dropped."""
