"""Measurements in this process, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from dsfp_env.evaluation.measurement import Measurement, Question
from dsfp_env.evaluation.outcome import Outcome


class Serial:
    """Does the work at once: each future is done when it is given."""

    def submit(self, measurement: Measurement, questions: Sequence[Question]) -> Iterator[Future[Outcome]]:
        """See `Executor.submit`."""
        for question in questions:
            future: Future[Outcome] = Future()
            try:
                future.set_result(measurement.answer(question))
            except Exception as error:
                future.set_exception(error)
            yield future

    def stop(self) -> None:
        """Nothing was started."""
