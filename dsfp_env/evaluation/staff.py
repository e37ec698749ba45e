"""Who answers the questions to a measurement: a crew that is begun when it is needed, and kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future
from pickle import PicklingError
from typing import Any

from dsfp_env.evaluation.executors import CannotSubmit, Crew, Executor
from dsfp_env.evaluation.measurement import Measurement, Question
from dsfp_env.evaluation.outcome import Outcome


class Staff:
    """Sends a measurement to a crew once, then questions.

    Args:
        executor: Where the crew is.
        count: How many, at most; the executor's own number unless given. It may be changed at any time.
    """

    def __init__(self, executor: Executor, count: int | None = None) -> None:
        self.executor, self.count = executor, count
        self._measurement: Measurement | None = None  # that the crew has
        self._crew: Crew | None = None
        self._lock = threading.RLock()  # of what is above, if several threads ask

    def __getstate__(self) -> dict[str, Any]:
        return {"executor": self.executor, "count": self.count}  # a crew does not pickle

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def submit(self, measurement: Measurement, questions: Sequence[Question]) -> Iterator[Future[Outcome]]:
        """Begin to answer questions; a future for each, in their order.

        Raises:
            CannotSubmit: If they cannot be sent; those whose future was given before are on their way.
            InputError: If the place cannot be used.
        """
        if self._crew is None:
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
        """End what was started, when what it is at is done; what has not begun is cancelled."""
        self._dismiss()
        self.executor.stop()

    def _dismiss(self) -> None:
        with self._lock:
            crew, self._crew = self._crew, None
        if crew is not None:
            crew.stop()

    def _submitted(self, measurement: Measurement, question: Question) -> Future[Outcome]:
        if self._crew is not None and not (
            self._measurement is measurement and self.executor.suits(self._crew, self.count)
        ):
            self._dismiss()
        for _ in range(2):
            if self._crew is None:
                crew = self.executor.begin(measurement.answer, self.count)
                self._measurement, self._crew = measurement, crew
            try:
                return self._crew.submit(question)
            except BrokenExecutor:  # they could do nothing: new ones
                self._crew = None
        raise OSError("they end as soon as they begin")
