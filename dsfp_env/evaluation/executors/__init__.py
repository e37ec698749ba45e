"""Where measurements are made: one interface for this process, for worker processes, and for others to come."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol

from dsfp_env.evaluation.measurement import Measurement, Question
from dsfp_env.evaluation.outcome import Outcome


class CannotSubmit(Exception):
    """Questions cannot be sent to where they would be answered; the message says why."""


class Executor(Protocol):
    """Answers questions. What comes back depends on the question alone, so it does not matter who does."""

    def submit(self, measurement: Measurement, questions: Sequence[Question]) -> Iterable[Future[Outcome]]:
        """Begin to answer questions; a future for each, in their order.

        A future raises `concurrent.futures.BrokenExecutor` if whoever was to answer is gone.

        Raises:
            CannotSubmit: If they cannot be sent; those whose future was given before are on their way.
        """

    def stop(self) -> None:
        """End what was started, when what it is at is done; what has not begun is cancelled."""
