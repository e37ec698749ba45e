"""The end of a run: what was learned, beside the baselines, all chosen and measured in the same way.

A search sees one fine-tuning seed and the validation split, and the highest reward of many is partly luck. So the
highest-rewarded plans of every search are evaluated again with fresh seeds, and the best on average is taken; then
that one is measured with seeds that are fresh again, and the means are reported. This is the only place where the
test split is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from agents.reporting.baselines import (
    Mask,
    levels_of,
    masked_random_plans,
    random_plans,
    random_plans_of,
    uniform_plan_of,
    uniform_plans,
)
from dsfp_env.channels.graph import Keep
from dsfp_env.common.progress import shown
from dsfp_env.evaluation.budgets import MACS, WORDS, cost_of
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import Plan

FINALISTS = 10
CHOOSING_SEEDS = 2  # fine-tunings of each finalist
MEASURING_SEEDS = 3  # fine-tunings of each reported network

Worth = Callable[[Outcome], float]
StartMany = Callable[[Sequence[Plan], int], Iterator[Outcome]]  # `Evaluator.start_many`: (plans, seed) -> outcomes
KeepOf = Callable[[Plan], Keep]  # `Evaluator.keep`


class Baselines:
    """Uniform pruning and random search, in the background while the agents learn.

    Args:
        evaluator: The one that the agents' environment uses.
        start_many: Its own, with as many workers as are wanted.
        evaluations: How many random search may make, each time.
        actions: The kind of actions that the agents take.
        score: What an outcome is worth.
        seed: Of the run: random search and the agents see the same fine-tuning seed.
        mask: What levels may be chosen, if a budget masks some: ``env.action_mask``.
        of: The kind of cost that is made equal, one of `budgets.KINDS`: that of the budget.
        filled: Brings plans to the budget, as it does the agents': ``env.at_budget.filled``.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        start_many: StartMany,
        evaluations: int,
        actions: str,
        score: Worth,
        seed: int,
        mask: Mask | None = None,
        of: str = MACS,
        filled: Callable[[Plan], Plan] | None = None,
    ) -> None:
        self._evaluator, self._start_many, self._evaluations = evaluator, start_many, evaluations
        self._score, self._seed, self._of, self._filled = score, seed, of, filled
        rng = np.random.default_rng([seed, 1])
        self._random = (
            random_plans(evaluator, evaluations, actions, rng)
            if mask is None
            else masked_random_plans(levels_of(evaluator), evaluations, mask, rng)
        )
        if filled is not None:
            self._random = [filled(plan) for plan in self._random]
        self._uniform = uniform_plans(evaluator)
        self._pending = start_many(self._random, seed), start_many(self._uniform, seed)
        self.random_outcomes: list[Outcome] = []  # in order, when finished
        self.uniform_outcomes: list[Outcome] = []  # the sweep from 10 to 90 %, when finished

    def finish(self, best: Plan, greedy: Plan) -> dict[str, Plan]:
        """Plans to compare the best and the greedy joint action with.

        * ``uniform``: the same ratio everywhere, at the MACs of the best; if there is a budget of parameters or
          time, at equal parameters or time, here and below
        * ``uniform_at_greedy``: likewise, at the MACs of the greedy one
        * ``uniform_best_reward``: the uniform plan with the highest reward; the one at the budget, where plans are
          brought to it
        * ``random_search``: the highest reward among as many evaluations as the agents had
        * ``random_search_equal_macs`` (or ``..._params``, ``..._latency``): the highest accuracy among as many
          evaluations at the MACs of the best
        """
        evaluator, of, cost = self._evaluator, self._of, cost_of(self._evaluator, self._of)
        rng = np.random.default_rng([self._seed, 2])
        equal = random_plans_of(evaluator, self._evaluations, cost(best), rng, of)
        pending_equal = self._start_many(equal, self._seed)
        pending_random, pending_uniform = self._pending
        self.random_outcomes = list(shown("random search", pending_random, len(self._random)))
        self.uniform_outcomes = list(pending_uniform)
        equal_outcomes = list(shown(f"random search at equal {WORDS[of]}", pending_equal, len(equal)))
        return {
            "uniform": uniform_plan_of(evaluator, cost(best), of),
            "uniform_at_greedy": uniform_plan_of(evaluator, cost(greedy), of),
            "uniform_best_reward": self._best_uniform(),
            "random_search": self._choose(self._random, self.random_outcomes, self._score),
            f"random_search_equal_{of}": self._choose(equal, equal_outcomes, lambda outcome: outcome.accuracy),
        }

    def _best_uniform(self) -> Plan:
        """The uniform plan with the highest reward; where plans are brought to a budget, the one there."""
        if self._filled is not None:
            return self._filled(self._uniform[0])
        return self._choose(self._uniform, self.uniform_outcomes, self._score)

    def _choose(self, plans: Sequence[Plan], outcomes: Iterable[Outcome], worth: Worth) -> Plan:
        found = [worth(outcome) for outcome in outcomes]
        return choose_best(plans, found, worth, self._start_many, self._seed, self._evaluator.keep)


def choose_best(
    plans: Sequence[Plan],
    found: Sequence[float],
    worth: Worth,
    start_many: StartMany,
    seed: int,
    keep: KeepOf,
    always: Sequence[Plan] = (),
) -> Plan:
    """The best plan of a search: of its finalists, the one worth most on average with fresh seeds.

    Args:
        plans: What was tried.
        found: What each was worth to the search.
        worth: What an outcome is worth.
        start_many: Evaluates the finalists.
        seed: Of the run.
        keep: The filters that a plan leaves, by scores that are one for all plans.
        always: Plans that are finalists too, whatever was found of them.
    """
    finalists = finalists_of(plans, found, keep, always)
    again = [start_many(finalists, fresh) for fresh in _fresh_seeds(seed)[:CHOOSING_SEEDS]]
    worths = np.array([[worth(outcome) for outcome in outcomes] for outcomes in again])  # [seeds, finalists]
    return finalists[int(np.argmax(worths.mean(0)))]


def finalists_of(
    plans: Sequence[Plan], found: Sequence[float], keep: KeepOf, always: Sequence[Plan] = ()
) -> list[Plan]:
    """The plans that were worth most to a search, the best first; arguments as for `choose_best`.

    No network is there twice: layers that are coupled lose the mean of what is said of each, and an action is a
    float32, so plans that differ may leave the same filters.
    """
    ranked = (plans[index] for index in np.argsort(-np.array(found), kind="stable"))
    best = islice(_each_network_once(ranked, keep), FINALISTS)
    return list(_each_network_once([*best, *always], keep))


def _each_network_once(plans: Iterable[Plan], keep: KeepOf) -> Iterator[Plan]:
    """Of plans that leave as many filters in every layer, and so the same, the first."""
    met = set[tuple[int, ...]]()
    for plan in plans:
        left = tuple(len(filters) for filters in keep(plan).values())
        if left not in met:
            met.add(left)
            yield plan


def measuring_seeds(seed: int) -> list[int]:
    """Fine-tuning seeds of the reported networks."""
    return _fresh_seeds(seed)[CHOOSING_SEEDS:]


def measure(
    evaluator: Evaluator, plan: Plan, score: Worth, seeds: Iterable[int], idle: bool = True
) -> dict[str, Any]:
    """An entry of `result.json`: means over networks fine-tuned with these seeds.

    Where times are predicted and the machine is idle, the network is timed, too.
    """
    values = [evaluator.measure_values(plan, seed) for seed in seeds]
    validation, test = _scaled(evaluator, values)
    keep = evaluator.keep(plan)
    entry = _entry(plan, evaluator.outcome(keep, validation), test, score)
    return {**entry, **in_own_units(evaluator, values), **_times(evaluator, keep, idle)}


def measure_original(evaluator: Evaluator, score: Worth) -> dict[str, Any]:
    """The entry of the unpruned network, as it is."""
    values = [evaluator.measure_values()]
    _, test = _scaled(evaluator, values)
    entry = _entry(dict.fromkeys(evaluator.task.agents, 0.0), evaluator.original, test, score)
    return {**entry, **in_own_units(evaluator, values), **_times(evaluator, {})}


def metric_of(evaluator: Evaluator) -> dict[str, Any]:
    """What a result says of its metric: name, worst and best value; nothing, if it is accuracy."""
    metric = evaluator.task.metric
    if metric.is_accuracy:
        return {}
    return {"metric": {"name": metric.name, "worst": metric.worst, "best": metric.best}}


def _scaled(evaluator: Evaluator, values: Sequence[tuple[float, float]]) -> list[float]:
    """Validation and test, scaled to [0, 1], averaged over networks."""
    scaled = evaluator.task.metric.scaled
    return np.mean([[scaled(value) for value in of_splits] for of_splits in values], axis=0).tolist()


def in_own_units(evaluator: Evaluator, values: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The same in the metric's own units, if it is not accuracy."""
    if evaluator.task.metric.is_accuracy:
        return {}
    validation, test = np.mean(values, axis=0).tolist()
    return {"validation_metric": validation, "test_metric": test}


def _fresh_seeds(seed: int) -> list[int]:
    """Fine-tuning seeds that no search with this seed uses."""
    return np.random.SeedSequence([seed, 3]).generate_state(CHOOSING_SEEDS + MEASURING_SEEDS).tolist()


def _times(evaluator: Evaluator, keep: Keep, idle: bool = True) -> dict[str, float]:
    """Where times are predicted: what was, and what this network takes in fact, with its noise; in seconds."""
    predicted, task = evaluator.measurement.predicted, evaluator.task
    if predicted is None:
        return {}
    times = {"predicted_latency": predicted.seconds(task.graph.alive(keep))}
    if not idle:
        return times
    measured = evaluator.measurement.measure_latency(task.graph.slim(task.network, keep))
    assert measured is not None
    return {
        **times,
        "measured_latency": measured.seconds,
        "latency_spread": measured.spread,
    }


def _entry(plan: Plan, outcome: Outcome, test_accuracy: float, score: Worth) -> dict[str, Any]:
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
