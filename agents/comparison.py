"""The end of a run: what was learned, beside the baselines, all measured in the same way.

The search has seen one fine-tuning seed and the validation split, and has picked the luckiest of many. So every
network of the comparison is fine-tuned anew with seeds that no search has seen, and the means over these seeds are
reported. This is the only place where the test split is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from agents.baselines import Plan, random_plans, random_plans_of, uniform_plan_of, uniform_plans
from agents.progress import shown
from dsfp_env.accuracy import measure_accuracy
from dsfp_env.evaluator import Evaluator
from dsfp_env.rewards import Outcome
from dsfp_env.workers import EvaluationPool

FRESH_SEEDS = 3

Score = Callable[[Outcome], float]


class Baselines:
    """Uniform pruning and random search, in the background while the agents learn.

    Args:
        evaluator: The one that the agents' environment uses.
        pool: Its workers.
        evaluations: How many random search may make, each time.
        actions: The kind of actions that the agents take.
        score: What an outcome is worth.
        seed: Of the run: random search and the agents see the same fine-tuning seed.
    """

    def __init__(
        self, evaluator: Evaluator, pool: EvaluationPool, evaluations: int, actions: str, score: Score, seed: int
    ) -> None:
        self._evaluator, self._pool, self._evaluations = evaluator, pool, evaluations
        self._score, self._seed = score, seed
        self._random = random_plans(evaluator, evaluations, actions, np.random.default_rng([seed, 1]))
        self._uniform = uniform_plans(evaluator)
        self._random_outcomes: Iterable[Outcome] = pool.evaluate_many(self._random, seed)
        self._uniform_outcomes: Iterable[Outcome] = pool.evaluate_many(self._uniform, seed)

    def finish(self, best: Plan, greedy: Plan) -> dict[str, Plan]:
        """Plans to compare the best and the greedy joint action with.

        * ``uniform``: the same ratio everywhere, at the MACs of the best
        * ``uniform_at_greedy``: likewise, at the MACs of the greedy one
        * ``uniform_best_reward``: the uniform plan with the highest reward
        * ``random_search``: the highest reward among as many evaluations as the agents had
        * ``random_search_equal_macs``: the highest accuracy among as many evaluations at the MACs of the best
        """
        evaluator = self._evaluator
        macs = evaluator.costs(best).macs
        equal = random_plans_of(evaluator, self._evaluations, macs, np.random.default_rng([self._seed, 2]))
        pending = self._pool.evaluate_many(equal, self._seed)
        self._random_outcomes = list(shown("random search", self._random_outcomes, len(self._random)))
        self._uniform_outcomes = list(self._uniform_outcomes)
        equal_outcomes = list(shown("random search at equal MACs", pending, len(equal)))
        return {
            "uniform": uniform_plan_of(evaluator, macs),
            "uniform_at_greedy": uniform_plan_of(evaluator, evaluator.costs(greedy).macs),
            "uniform_best_reward": _best(self._uniform, self._uniform_outcomes, self._score),
            "random_search": _best(self._random, self._random_outcomes, self._score),
            "random_search_equal_macs": _best(equal, equal_outcomes, lambda outcome: outcome.accuracy),
        }

    @property
    def random_scores(self) -> list[float]:
        """The rewards of random search in order, when finished."""
        return [self._score(outcome) for outcome in self._random_outcomes]

    @property
    def uniform_outcomes(self) -> list[Outcome]:
        """The outcomes of the uniform sweep, when finished."""
        return list(self._uniform_outcomes)


def measure(evaluator: Evaluator, plan: Plan, score: Score, seeds: Iterable[int]) -> dict[str, Any]:
    """An entry of `result.json`: means over networks fine-tuned with these seeds."""
    task = evaluator.task
    networks = [evaluator.build(plan, seed) for seed in seeds]
    validation = float(np.mean([measure_accuracy(network, task.validation) for network in networks]))
    test = float(np.mean([measure_accuracy(network, task.test) for network in networks]))
    return _entry(plan, evaluator.outcome(evaluator.keep(plan), validation), test, score)


def measure_original(evaluator: Evaluator, score: Score) -> dict[str, Any]:
    """The entry of the unpruned network, as it is."""
    task = evaluator.task
    test = measure_accuracy(task.network, task.test)
    return _entry(dict.fromkeys(task.agents, 0.0), evaluator.original, test, score)


def fresh_seeds(seed: int) -> list[int]:
    """Fine-tuning seeds that the search with this seed does not use."""
    return [int(fresh) for fresh in np.random.SeedSequence([seed, 3]).generate_state(FRESH_SEEDS)]


def _best(plans: list[Plan], outcomes: Iterable[Outcome], worth: Score) -> Plan:
    return plans[int(np.argmax([worth(outcome) for outcome in outcomes]))]


def _entry(plan: Plan, outcome: Outcome, test_accuracy: float, score: Score) -> dict[str, Any]:
    return {
        "ratios": plan,
        "validation_accuracy": outcome.accuracy,
        "test_accuracy": test_accuracy,
        "macs": outcome.macs,
        "relative_macs": outcome.relative_macs,
        "params": outcome.params,
        "filters": outcome.filters,
        "filters_kept": outcome.filters_kept,
        "reward": score(outcome),
    }
