"""The outcomes of one measurement on disk: questions in place of keys."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dsfp_env.evaluation.measurement import Measurement, Question
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.outcome_store import OutcomeStore
from dsfp_env.tasks.fingerprints import evaluation_key
from dsfp_env.tasks.task import Task


class StoredOutcomes:
    """Finds outcomes in the store, and keeps new ones there; of a task without a fingerprint there are none.

    Args:
        task: Gives its fingerprint, when that is needed.
        measurement: Of the task.
    """

    def __init__(self, task: Task, measurement: Measurement) -> None:
        self._task, self._measurement, self._store = task, measurement, OutcomeStore()

    def find(self, questions: Iterable[Question]) -> dict[Question, Outcome]:
        """The outcomes that are known."""
        if self._task.fingerprint is None:
            return {}
        by_key = {self.key(question): question for question in questions}
        found = {by_key[key]: accuracy for key, accuracy in self._store.find(by_key).items()}
        kept, outcome = self._measurement.kept, self._measurement.outcome
        return {question: outcome(kept(question), accuracy) for question, accuracy in found.items()}

    def add(self, question: Question, outcome: Outcome, processor: str | None = None) -> None:
        """Keep an outcome; for the processor as key see `key`."""
        if self._task.fingerprint is not None:
            self._store.add(self.key(question, processor), outcome.accuracy)

    def key(self, question: Question, processor: str | None = None) -> str:
        """Under which an outcome is kept; see `fingerprints`.

        Args:
            question: The question.
            processor: What has answered it, as `device_name` says; the device of the task unless given.
        """
        fidelity = replace(self._measurement.fidelity, threads=question.threads)
        fingerprint, device = self._task.fingerprint, self._task.device
        return evaluation_key(fingerprint, question.kept, fidelity, question.seed, device, processor)
