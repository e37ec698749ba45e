"""Measurements in worker processes of this machine."""

from __future__ import annotations

import threading
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
        self._lock = threading.RLock()  # of what is above, if several threads ask

    def __getstate__(self) -> dict[str, Any]:
        return {"count": self.count}  # processes do not pickle

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def submit(self, measurement: Measurement, questions: Sequence[Question]) -> Iterator[Future[Outcome]]:
        """See `Executor.submit`."""
        if self._workers is None:
            measurement.prepare()
        for question in questions:
            try:
                with self._lock:
                    future = self._submitted(measurement, question)
            except (OSError, PicklingError, AttributeError, TypeError, AssertionError) as error:
                raise CannotSubmit(
                    f"Workers could not be started ({error}). A network can be sent to workers if its class is "
                    "defined at the top of a module, and so can a loss or a metric that is a function there."
                ) from error
            yield future

    def stop(self) -> None:
        """See `Executor.stop`."""
        with self._lock:
            workers, self._workers = self._workers, None
        if workers is not None:
            workers.stop()

    def _submitted(self, measurement: Measurement, question: Question) -> Future[Outcome]:
        if self._workers is not None and not (self._measurement is measurement and self._workers.suit(self.count)):
            self.stop()
        for _ in range(2):
            if self._workers is None:
                self._measurement, self._workers = measurement, Workers(measurement.answer, self.count)
            try:
                return self._workers.submit(question)
            except BrokenExecutor:  # they could do nothing: new ones
                self._workers = None
        raise OSError("they end as soon as they begin")
