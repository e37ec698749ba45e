"""How far runs were from the optimum: normalised regrets, with their intervals.

The regret of a joint action is the score of the optimum less its own; normalised, it is divided by what that is on
average for a joint action drawn at random. 0 is the optimum, 1 is chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.leaderboard.boards import Board, Run, budget_of
from agents.leaderboard.forms import Form

RESAMPLES, LEVEL = 2000, 0.95  # of the bootstrap
DIGITS = 6  # after the point, in what is written


def judged(
    board: Board, form: Form, runs: Mapping[tuple[str, str], Sequence[Run]], evaluations: int
) -> dict[str, Any]:
    """What came of one reward, the best learner first.

    Args:
        board: That the runs were made on.
        form: The reward.
        runs: By text of the reward and learner; those of other rewards are not looked at.
        evaluations: That each run could make.
    """
    learners = [
        judge(board, form, agent, found, evaluations) for (text, agent), found in runs.items() if text == form.text
    ]

    def place(learner: Mapping[str, Any]) -> list[float]:
        means = reversed(learner["best"]["mean"])
        return [np.inf if mean is None else mean for mean in means]

    return {
        "reward": form.text,
        "macs_budget": budget_of(form),
        "optima": board.optima(form),
        "learners": sorted(learners, key=place),
    }


def judge(board: Board, form: Form, agent: str, runs: Sequence[Run], evaluations: int) -> dict[str, Any]:
    """What came of one learner with one reward.

    Returns:
        Normalised regrets, each as ``mean``, ``low`` and ``high`` over the runs: ``best``, of the best joint
        action so far, after 1, 2, ... evaluations (None where a run has none yet); ``greedy``, of the one played
        in the end; ``test``, of the best one, on the test split. ``found`` is the share of runs that saw the
        optimum, or one as good as the best known.
    """
    found = [board.regrets(form, run) for run in runs]
    curves = zip(found, runs, strict=True)
    bests = np.array([after_each(one.best, run["evaluations"], evaluations) for one, run in curves])
    greedy, test = (np.array([[getattr(one, name)] for one in found]) for name in ("greedy", "test"))
    return {
        "agent": agent,
        "seeds": len(runs),
        "found": round(float((bests[:, -1] <= 0).mean()), DIGITS),
        "greedy": _numbers(*(one[0] for one in bands(greedy))),
        "test": _numbers(*(one[0] for one in bands(test))),
        "best": _numbers(*bands(bests)),
    }


def after_each(values: np.ndarray, numbers: Sequence[int], evaluations: int) -> np.ndarray:
    """What is known after each evaluation.

    Args:
        values: After each joint action that was tried, such as the regret of the best so far.
        numbers: Evaluations spent when each was known.
        evaluations: The last number of interest.

    Returns:
        ``[evaluations]``, after 1, 2, ...; NaN where none was known.
    """
    known = np.searchsorted(numbers, np.arange(1, evaluations + 1), side="right")
    return np.concatenate([[np.nan], values])[known]


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
