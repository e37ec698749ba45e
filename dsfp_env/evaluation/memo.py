"""Equal questions are answered once: from memory, from the disk, by a worker, or by doing the work here.

It does not matter which: the answer depends on the question alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pickle import PicklingError
from typing import Any, Generic, TypeVar

from dsfp_env.evaluation.workers import Workers

Question = TypeVar("Question", bound=Hashable)
Answer = TypeVar("Answer")


class Answers(Generic[Question, Answer]):
    """Finds answers, several at once if need be.

    Args:
        work: Answers a question.
        recall: Of some questions, those answers that are on disk.
        keep: Keeps an answer on disk.
        for_workers: Makes what workers do in place of ``work``: the same, as a function that pickles.
    """

    def __init__(
        self,
        work: Callable[[Question], Answer],
        recall: Callable[[Sequence[Question]], dict[Question, Answer]],
        keep: Callable[[Question, Answer], None],
        for_workers: Callable[[], Callable[[Question], Answer]],
    ) -> None:
        self._work, self._recall, self._keep, self._for_workers = work, recall, keep, for_workers
        self.known: dict[Question, Answer] = {}
        self._pending: dict[Question, Future[Answer]] = {}  # with the workers
        self._workers: Workers | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_pending": {}, "_workers": None}  # processes do not pickle

    def one(self, question: Question) -> Answer:
        """The answer to one question."""
        if future := self._pending.get(question):
            future.cancel()  # no worker has begun it: then it is done sooner here
        self._look_up([question])
        return self._answer(question)

    def many(self, questions: Sequence[Question], workers: int) -> Iterator[Answer]:
        """The answers in order, each when it is asked for; workers, if there are several, begin at once."""
        self._look_up(questions)
        new = [q for q in dict.fromkeys(questions) if q not in self._pending and q not in self.known]
        if workers > 1 and len(new) > 1:
            self._hand_out(new, workers)
        return self._in_order(questions)

    def stop(self) -> None:
        """End the workers, if there are any; they are started anew when they are needed."""
        if self._workers is not None:
            self._workers.stop()
            self._workers = None

    def _look_up(self, questions: Iterable[Question]) -> None:
        if unknown := [question for question in questions if question not in self.known]:
            self.known |= self._recall(unknown)

    def _in_order(self, questions: Sequence[Question]) -> Iterator[Answer]:
        try:
            for question in questions:
                yield self._answer(question)
        finally:  # after a failure, nobody waits for the rest
            for question in questions:
                if future := self._pending.get(question):
                    future.cancel()

    def _answer(self, question: Question) -> Answer:
        future = self._pending.get(question)  # first this: it is taken away when the answer is known
        if question in self.known:
            return self.known[question]
        try:
            answer = future.result() if future else None
        except CancelledError:
            answer = None
        except BrokenProcessPool:
            answer = self._workers = None
            self._pending.clear()
            _warn(
                "A worker was ended from outside. Was memory short? Fewer workers need less. (Or does a script "
                'that defines its own network lack `if __name__ == "__main__":` around its work?) No outcome is '
                "lost: what is left is evaluated in this process, one plan after another."
            )
        except Exception:
            self._pending.pop(question, None)  # to be asked again, if anyone asks
            raise
        return self._note(question, self._work(question) if answer is None else answer)

    def _note(self, question: Question, answer: Answer) -> Answer:
        self._keep(question, answer)
        answer = self.known.setdefault(question, answer)
        self._pending.pop(question, None)
        return answer

    def _hand_out(self, questions: Iterable[Question], count: int) -> None:
        """Give questions to workers; if there cannot be any, say so, and they are answered here."""
        try:
            for question in questions:
                future = self._submitted(question, count)
                self._pending[question] = future
                future.add_done_callback(partial(self._arrived, question))
        except (OSError, PicklingError, AttributeError, TypeError, AssertionError) as error:
            _warn(
                f"Workers could not be started ({error}): plans are evaluated in this process, one after another. "
                "A network can be sent to workers if its class is defined at the top of a module."
            )

    def _submitted(self, question: Question, count: int) -> Future[Answer]:
        if self._workers is not None and not self._workers.suit(count):
            self.stop()
        for _ in range(2):
            if self._workers is None:
                self._workers = Workers(self._for_workers(), count)
            try:
                return self._workers.submit(question)
            except BrokenProcessPool:  # ended while they had nothing to do: new ones
                self._workers = None
        raise OSError("they end as soon as they begin")

    def _arrived(self, question: Question, future: Future[Answer]) -> None:
        """Keep what a worker found at once, even if nobody asks for it any more."""
        if future.cancelled():
            self._pending.pop(question, None)
        elif future.exception() is None:
            self._note(question, future.result())


def _warn(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=2)
