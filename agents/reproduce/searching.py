"""The searches of a study: every joint action that is tried is a line of a file, from which it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import agents
import dsfp_env
from agents.contests import held_contest
from agents.reporting.baselines import random_plans_of
from agents.reporting.finals import Worth, choose_best, finalists_of
from agents.reproduce import records
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import append_line
from dsfp_env.common.json_files import lines_of, read_line
from dsfp_env.common.progress import Progress, shown
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import Plan

Tuned = Callable[[int, Plan], float]


class Search:
    """One search: what it tries is kept, and what was tried before need not be measured again.

    Args:
        log: The file of what was tried.
        evaluator: Of the search alone: it is told what is known.
        budget: Share of the original network's multiply-adds that may be left.
        evaluations: How many there will be.
        seed: Of the search.
        tuned: The validation accuracy of a finalist, which has a number, after a few epochs of fine-tuning;
            without it, finalists are evaluated again.
        first: Plans within the budget that are tried first, and are finalists whatever comes of them.
    """

    def __init__(
        self,
        log: Path,
        evaluator: Evaluator,
        budget: float,
        evaluations: int,
        seed: int,
        tuned: Tuned | None = None,
        first: Sequence[Plan] = (),
    ) -> None:
        self._log, self._evaluator, self._budget, self._seed = log, evaluator, budget, seed
        self._evaluations, self._tuned, self._first = evaluations, tuned, first
        self._tried: list[dict[str, Any]] = []
        self._before = lines_tried(log)
        for line in self._before:  # the search is repeatable: it will ask for the same again
            evaluator.remember(line["ratios"], seed, line["accuracy"])
        self._progress = Progress(log.stem, evaluations)

    def learn(self, agent: str, fill: bool) -> dict[str, Any]:
        """Let an agent learn ratios within the budget, or with all joint actions brought to it."""
        env_of = partial(
            dsfp_env.parallel_env,
            evaluator=self._evaluator,
            reward="budget",
            macs_budget=self._budget,
            fill_budget=fill,
        )

        def note(evaluation: agents.Evaluation) -> None:
            self._note(evaluation.ratios, next(iter(evaluation.infos.values())), evaluation.score)

        contest = held_contest(agent, env_of, self._evaluations, self._seed, note, self._first)
        return {**self._found(contest.env.score), "filled": fill}

    def draw(self) -> dict[str, Any]:
        """Try plans drawn at random and brought to the budget by one common shift; what came of it."""
        rng = np.random.default_rng([self._seed, 2])
        drawn = random_plans_of(
            self._evaluator, self._evaluations - len(self._first), self._budget * self._whole, rng
        )
        for plan in [*self._first, *drawn]:
            outcome = self._evaluator.evaluate(plan, self._seed)
            self._note(plan, {"accuracy": outcome.accuracy, "macs": outcome.macs}, outcome.accuracy)
        return self._found(lambda outcome: outcome.accuracy)

    @property
    def _whole(self) -> int:
        """Multiply-adds of the original network."""
        return self._evaluator.task.graph.costs().macs

    def _note(self, ratios: Plan, found: Mapping[str, Any], reward: float) -> None:
        number = len(self._tried)
        line = {"ratios": ratios, "accuracy": found["accuracy"], "macs": found["macs"], "reward": reward}
        self._tried.append(line)
        if number >= len(self._before):
            append_line(self._log, json.dumps(line))
        elif line != self._before[number]:
            raise InputError(
                f"Line {number + 1} of {self._log} is not what this search comes to: it was changed, or other "
                "code made it. Remove the file, and the search is made anew."
            )
        self._progress.advance(reward)

    def _found(self, worth: Worth) -> dict[str, Any]:
        """The best of what is within the budget, as several seeds say, or a few epochs."""
        self._progress.close()
        whole = self._whole  # a share times this may round to less than the plan that the share is of
        within = [line for line in self._tried if line["macs"] / whole <= self._budget] or self._tried
        counts = {"macs_budget": self._budget, "within_budget": len(within), "tried": len(self._tried)}
        ratios, rewards = [line["ratios"] for line in within], [line["reward"] for line in within]
        keep, first = self._evaluator.keep, self._first
        if self._tuned is not None:
            plans = finalists_of(ratios, rewards, keep, first)
            accuracies = [self._tuned(number, plan) for number, plan in enumerate(plans, start=1)]
            told = [{"ratios": plan, "accuracy": one} for plan, one in zip(plans, accuracies, strict=True)]
            return {"ratios": plans[int(np.argmax(accuracies))], **counts, "finalists": told}

        def start_many(plans: Sequence[Plan], seed: int) -> Iterator[Outcome]:
            return shown(
                f"{self._log.stem}, the best again", self._evaluator.start_many(plans, seed, 1), len(plans)
            )

        return {"ratios": choose_best(ratios, rewards, worth, start_many, self._seed, keep, first), **counts}


def lines_tried(file: Path) -> list[dict[str, Any]]:
    """What was tried, if the file is there; a line that was cut short is dropped from it.

    Raises:
        InputError: If a line is not one that a search wrote.
    """
    otherwise = "remove the file, and the search is made anew"
    lines = enumerate(lines_of(file, otherwise), start=1)
    return [read_line(line, number, file, records.Tried, otherwise) for number, line in lines]
