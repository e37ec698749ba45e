"""Measurements in worker processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from pickle import PicklingError
from typing import Any

from dsfp_env.evaluation.executors import CannotSubmit
from dsfp_env.evaluation.measurement import Measurement, Question
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.workers import Workers


class Processes:
    """Sends a measurement to its workers once, then questions. They are started when they are needed, and kept.

    Args:
        count: How many workers, at most. If it is changed, there are so many from the next question on.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._measurement: Measurement | None = None  # that the workers have
        self._workers: Workers | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_measurement": None, "_workers": None}  # processes do not pickle

    def submit(self, measurement: Measurement, questions: Sequence[Question]) -> Iterator[Future[Outcome]]:
        """See `Executor.submit`."""
        if self._workers is None:
            measurement.prepare()
        for question in questions:
            try:
                yield self._submitted(measurement, question)
            except (OSError, PicklingError, AttributeError, TypeError, AssertionError) as error:
                raise CannotSubmit(
                    f"Workers could not be started ({error}). A network can be sent to workers if its class is "
                    "defined at the top of a module."
                ) from error

    def stop(self) -> None:
        """See `Executor.stop`."""
        if self._workers is not None:
            self._workers.stop()
            self._workers = None

    def _submitted(self, measurement: Measurement, question: Question) -> Future[Outcome]:
        if self._workers is not None and not (self._measurement is measurement and self._workers.suit(self.count)):
            self.stop()
        for _ in range(2):
            if self._workers is None:
                self._measurement, self._workers = measurement, Workers(measurement.answer, self.count)
            try:
                return self._workers.submit(question)
            except BrokenExecutor:  # they were ended while they had nothing to do: new ones
                self._workers = None
        raise OSError("they end as soon as they begin")
