"""How far runs were from the optimum of a table, exactly: normalised regrets, with their intervals.

The regret of a joint action is the score of the optimum less its own; normalised, it is divided by what that is on
average for a joint action drawn at random. 0 is the optimum, 1 is chance. A run is judged by what its seed saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

import dsfp_env
from dsfp_env.common.choices import choose, parse_call
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.budgets import Budget, budget_from
from dsfp_env.evaluation.rewards import needs_time

RESAMPLES, LEVEL = 2000, 0.95  # of the bootstrap
DIGITS = 6  # after the point, in what is written

Run = dict[str, Any]  # as `leaderboard.runs.make_run` gives


class Form(NamedTuple):
    """A reward and its budget."""

    text: str  # as it was asked for
    reward: str
    macs_budget: float | Budget | None  # or a budget of parameters


def parse_form(text: str) -> Form:
    """A reward with its budget, from text such as ``budget(macs_budget=0.1)``.

    Raises:
        InputError: If the text is no such reward, or a table cannot tell what the reward asks for.
    """
    reward, options = parse_call("reward", text)
    for option in options:
        choose(f"option of the reward {reward!r}:", option, {"macs_budget": None, "params_budget": None})
    for option, value in options.items():
        if value is not None and not isinstance(value, (int, float)):
            name = "MACs" if option == "macs_budget" else "parameters"
            raise InputError(
                f"The {name} budget of the reward {text!r} is {value!r}: expected a number, such as 0.1."
            )
    budget: float | Budget | None = options.get("macs_budget")
    if options.get("params_budget") is not None:
        budget = budget_from(**options)
    if needs_time(reward):
        raise InputError(f"The reward {reward!r} needs measured times, and a table has none: expected another.")
    return Form(text, reward, budget)


def judged(
    table: dsfp_env.Table, form: Form, runs: Mapping[tuple[str, str], Sequence[Run]], evaluations: int
) -> dict[str, Any]:
    """What came of one reward, the best learner first.

    Args:
        table: That the runs were made on.
        form: The reward.
        runs: By text of the reward and learner; those of other rewards are not looked at.
        evaluations: That each run could make.
    """
    optima = [table.optimum(form.reward, form.macs_budget, seed)._asdict() for seed in table.seeds]
    learners = [
        judge(table, form, agent, found, evaluations) for (text, agent), found in runs.items() if text == form.text
    ]

    def place(learner: Mapping[str, Any]) -> list[float]:
        means = reversed(learner["best"]["mean"])
        return [np.inf if mean is None else mean for mean in means]

    return {
        "reward": form.text,
        "macs_budget": None if isinstance(form.macs_budget, Budget) else form.macs_budget,
        "optima": [{"seed": seed, **optimum} for seed, optimum in zip(table.seeds, optima, strict=True)],
        "learners": sorted(learners, key=place),
    }


def judge(table: dsfp_env.Table, form: Form, agent: str, runs: Sequence[Run], evaluations: int) -> dict[str, Any]:
    """What came of one learner with one reward.

    Returns:
        Normalised regrets, each as ``mean``, ``low`` and ``high`` over the runs: ``best``, of the best joint
        action so far, after 1, 2, ... evaluations (None where a run has none yet); ``greedy``, of the one played
        in the end; ``test``, of the best one, on the test split. ``found`` is the share of runs that saw the
        optimum.
    """
    measured_seed = dsfp_env.TableEvaluator(table).measured_seed
    in_test = regrets_of(table, form, None, "test")
    curves, greedy, test = [], [], []
    for run in runs:
        regrets = regrets_of(table, form, measured_seed(run["seed"]))
        tried = np.array(run["rows"])
        curves.append(best_so_far(regrets[tried], run["evaluations"], evaluations))
        greedy.append(regrets[run["greedy"]])
        test.append(in_test[tried[regrets[tried].argmin()]])
    bests = np.array(curves)
    return {
        "agent": agent,
        "seeds": len(runs),
        "found": round(float((bests[:, -1] == 0).mean()), DIGITS),
        "greedy": _numbers(*(one[0] for one in bands(np.array(greedy)[:, None]))),
        "test": _numbers(*(one[0] for one in bands(np.array(test)[:, None]))),
        "best": _numbers(*bands(bests)),
    }


def regrets_of(table: dsfp_env.Table, form: Form, seed: int | None, split: str = "validation") -> np.ndarray:
    """The normalised regret of every joint action, ``[rows]``; all are 0 if all are worth the same."""
    return table.landscape(form.reward, form.macs_budget, seed, split).regrets(normalised=True)


def best_so_far(regrets: np.ndarray, numbers: Sequence[int], evaluations: int) -> np.ndarray:
    """The lowest regret after each evaluation.

    Args:
        regrets: Of the joint actions that were tried, in order.
        numbers: Evaluations spent when each was known.
        evaluations: The last number of interest.

    Returns:
        ``[evaluations]``, after 1, 2, ...; NaN where none was known.
    """
    known = np.searchsorted(numbers, np.arange(1, evaluations + 1), side="right")
    return np.concatenate([[np.nan], np.minimum.accumulate(regrets)])[known]


def bands(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over runs, and the ends of their bootstrap intervals, ``[runs, points]`` -> ``[points]`` each.

    `agents.reporting.statistics.interval` gives the same for every point by itself; here all are done at once.
    """
    means, count = values.mean(0), len(values)
    if count < 2:
        return means, means, means
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    weights = np.stack([np.bincount(one, minlength=count) for one in drawn]) / count  # [resamples, runs]
    low, high = np.quantile(weights @ values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    return means, low, high


def _numbers(mean: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    """As JSON has them: rounded, with None for NaN."""

    def plain(values: Any) -> Any:
        if isinstance(values, list):
            return [plain(value) for value in values]
        return None if np.isnan(values) else round(values, DIGITS)

    return {name: plain(one.tolist()) for name, one in (("mean", mean), ("low", low), ("high", high))}


def live_seconds(table: dsfp_env.Table, runs: Iterable[Sequence[Run]]) -> float:
    """The time that the evaluations of all runs would have taken live, one after another, on one core."""
    return sum(table.live_seconds(table.levels_of(run["rows"])) for found in runs for run in found)
