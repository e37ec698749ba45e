"""Equal questions are answered once: from memory, from the disk, by the staff, or here.

It does not matter which: the answer depends on the question alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from functools import partial
from typing import Any

from dsfp_env.common.one_at_a_time import alone
from dsfp_env.evaluation.executors import CannotSubmit
from dsfp_env.evaluation.measurement import Measurement, Question
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.staff import Staff
from dsfp_env.evaluation.stored_outcomes import StoredOutcomes
from dsfp_env.evaluation.workers import REPLACED


class Memo:
    """Finds the answers to questions, several at once if need be.

    Args:
        measurement: Answers a question that nobody has answered.
        stored: What is on disk, if that is to be used.
    """

    def __init__(self, measurement: Measurement, stored: StoredOutcomes | None) -> None:
        self._measurement, self._stored = measurement, stored
        self.known: dict[Question, Outcome] = {}
        self._pending: dict[Question, Future[Outcome]] = {}  # with the staff
        self._replaced = False  # whether a worker was, and nobody has been told yet

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pending": {}}

    def one(self, question: Question) -> Outcome:
        """The answer to one question."""
        if future := self._pending.get(question):
            future.cancel()  # nobody has begun it: then it is done sooner here
        self._look_up([question])
        return self._answer(question)

    def many(self, questions: Sequence[Question], staff: Staff | None) -> Iterator[Outcome]:
        """The answers in order, each when it is asked for.

        Args:
            questions: Some may be equal.
            staff: Begins at once, if there is more than one to answer; without, the work is done here, when an
                answer is asked for.
        """
        self._look_up(questions)
        new = [q for q in dict.fromkeys(questions) if q not in self._pending and q not in self.known]
        if staff is not None and len(new) > 1:
            self._hand_out(new, staff)
        return self._in_order(questions, staff)

    def _look_up(self, questions: Iterable[Question]) -> None:
        unknown = [question for question in questions if question not in self.known]
        if unknown and self._stored is not None:
            self.known |= self._stored.find(unknown)

    def _in_order(self, questions: Sequence[Question], staff: Staff | None) -> Iterator[Outcome]:
        """The answers; the staff is held for as long as somebody may ask for one."""
        try:
            for question in questions:
                answer = self._answer(question)
                if self._replaced:
                    self._replaced = False
                    _warn(REPLACED)
                yield answer
        finally:  # after a failure, nobody waits for the rest
            for question in questions:
                if future := self._pending.get(question):
                    future.cancel()

    def _answer(self, question: Question) -> Outcome:
        future = self._pending.get(question)  # first this: it is taken away when the answer is known
        if question in self.known:
            return self.known[question]
        try:
            outcome = future.result() if future else None
        except CancelledError:
            outcome = None
        except BrokenExecutor as error:
            outcome = None
            self._pending.clear()
            _warn(
                f"{str(error) or 'A worker was ended from outside.'} Was memory short? Fewer workers need less. "
                '(Or does a script that defines its own network lack `if __name__ == "__main__":` around its '
                "work?) No outcome is lost: what is left is evaluated in this process, one plan after another."
            )
        except Exception:
            self._pending.pop(question, None)  # to be asked again, if anyone asks
            raise
        if future is not None and outcome is not None:
            self._heed(future)
            return self._note(question, outcome, getattr(future, "processor", None))
        with alone():
            if question in self.known:  # another thread was sooner
                return self.known[question]
            return self._note(question, self._measurement.answer(question))

    def _heed(self, future: Future[Outcome]) -> None:
        """Whether a worker was ended while it was at this is told once, to who asks next."""
        if getattr(future, "deaths", 0):
            self._replaced, future.deaths = True, 0  # type: ignore[attr-defined]

    def _note(self, question: Question, outcome: Outcome, processor: str | None = None) -> Outcome:
        """Keep an answer, under the name of the processor that computed it, if that is not this one's."""
        if self._stored is not None:
            self._stored.add(question, outcome, processor)
        outcome = self.known.setdefault(question, outcome)
        self._pending.pop(question, None)
        return outcome

    def _hand_out(self, questions: Sequence[Question], staff: Staff) -> None:
        """Give questions to the staff; if it cannot take them, say so, and they are answered here."""
        try:
            for question, future in zip(questions, staff.submit(self._measurement, questions), strict=True):
                self._pending[question] = future
                future.add_done_callback(partial(self._arrived, question))
        except CannotSubmit as error:
            _warn(f"{error} Plans are evaluated in this process, one after another.")

    def _arrived(self, question: Question, future: Future[Outcome]) -> None:
        """Keep what was found elsewhere at once, even if nobody asks for it any more."""
        if future.cancelled():
            self._pending.pop(question, None)
            return
        self._heed(future)
        if future.exception() is None:
            self._note(question, future.result(), getattr(future, "processor", None))


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
