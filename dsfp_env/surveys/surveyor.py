"""An evaluator that measures the test split, too, and notes what it has measured: for surveys."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import listed
from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity


class Surveyor(Evaluator):
    """Measures in this process, one after another, and notes a row for each measurement.

    What learners see of it is the validation split, as of any evaluator.

    Args:
        task: The task.
        criterion: Which filters go first.
        fidelity: The work of one evaluation.

    Attributes:
        rows: As `surveys.files.Row`, in the order in which they were measured.
    """

    def __init__(self, task: Task, criterion: str, fidelity: Fidelity) -> None:
        super().__init__(task, criterion, fidelity, store=False, executor="serial")
        self.rows: list[dict[str, Any]] = []
        self.source = "unknown"  # of the next
        self._images = [len(split.labels) for split in (task.validation, task.test)]

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """As `Evaluator.evaluate`; noted, unless it was known."""
        if self._question(ratios, seed) not in self._memo.known:
            self.rows.append(self.row(ratios, seed, self.source))
        return super().evaluate(ratios, seed)

    def row(self, ratios: Mapping[str, float], seed: int, source: str) -> dict[str, Any]:
        """Measure a joint action, whether it is known or not; the row of it.

        Args:
            ratios: Percent by agent.
            seed: Of the fine-tuning.
            source: How it came into the survey.
        """
        start = time.perf_counter()
        accuracies = np.array(self.measure_splits(ratios, seed))
        self.remember(ratios, seed, float(accuracies[0]))
        return {
            "ratios": [float(ratios[agent]) for agent in self.task.agents],
            "seed": int(seed),
            "right": np.rint(accuracies * self._images).astype(int).tolist(),
            "seconds": round(time.perf_counter() - start, 3),
            "source": source,
        }

    def forget(self) -> None:
        """Begin anew: nothing is known, nothing noted."""
        self._memo.known.clear()
        self.rows.clear()

    def start_many(
        self, plans: Iterable[Mapping[str, float]], seed: int | Sequence[int] = 0, workers: int | None = None
    ) -> Iterator[Outcome]:
        """As `Evaluator.start_many`, without workers."""
        plans, seeds = listed(plans, seed)
        return (self.evaluate(plan, one) for plan, one in zip(plans, seeds, strict=True))
