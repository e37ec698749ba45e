"""What came of learners on held-out networks: the normalised regret of the best that each saw.

A run is judged by the joint action that had the highest reward in it. On the validation split its regret is 0 for
the optimum of all joint actions, and 1 is what one drawn at random has on average (`agents.leaderboard.regret`);
the regret of the same joint action on the test split tells what of it is luck.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.leaderboard.boards import Board, Run
from agents.leaderboard.forms import Form
from agents.leaderboard.regret import DIGITS
from agents.reporting.statistics import interval, mean
from agents.transfer.settings import CARRIED

SPLITS = ("validation", "test")
Found = Mapping[str, Mapping[str, Run]]  # of one seed, by network and budget


def judged(form: Form, runs: Mapping[str, Sequence[Found]], held_out: Mapping[str, Board]) -> dict[str, Any]:
    """What came of one reward.

    Args:
        form: The reward.
        runs: By learner, an entry for each seed.
        held_out: The networks.

    Returns:
        ``learners``: of each, by budget, the mean regret over networks and seeds on both splits, as ``mean``,
        ``low`` and ``high``, and ``networks``, the mean on each network; ``differences``: carried policies less
        each search, in pairs, after the most evaluations of each.
    """
    regrets = {
        name: {int(k): _regrets(form, of_one, held_out, k) for k in next(iter(of_one[0].values()))}
        for name, of_one in runs.items()
    }
    learners = {
        name: {str(k): _told(values, list(held_out)) for k, values in by_budget.items()}
        for name, by_budget in regrets.items()
    }
    return {"reward": form.text, "learners": learners, "differences": _differences(regrets)}


def _regrets(form: Form, runs: Sequence[Found], held_out: Mapping[str, Board], budget: str) -> np.ndarray:
    """Of the best seen, ``[splits, seeds, networks]``."""
    found = [[board.regrets(form, one[name][budget]) for name, board in held_out.items()] for one in runs]
    return np.array([[[of_run.best[-1], of_run.test] for of_run in of_seed] for of_seed in found]).transpose(
        2, 0, 1
    )


def _told(values: np.ndarray, networks: Sequence[str]) -> dict[str, Any]:
    """Of regrets ``[splits, seeds, networks]``, what `judged` tells."""
    each = np.round(values[0].mean(0), DIGITS).tolist()
    of_split = {split: _interval(one) for split, one in zip(SPLITS, values, strict=True)}
    return {**of_split, "networks": dict(zip(networks, each, strict=True))}


def _differences(regrets: Mapping[str, Mapping[int, np.ndarray]]) -> list[dict[str, Any]]:
    """Every carried policy less every other learner, each after its most evaluations."""
    last = {name: max(by_budget.items()) for name, by_budget in regrets.items()}
    return [
        {"carried": name, "after": k, "search": other, "search_after": j, **_interval(mine[0] - theirs[0])}
        for name, (k, mine) in last.items()
        for other, (j, theirs) in last.items()
        if name in CARRIED and other not in CARRIED
    ]


def _interval(values: np.ndarray) -> dict[str, float]:
    """Of ``[seeds, networks]``: the mean, and its bootstrap interval over seeds; networks are as they are."""
    if len(values) < 2:
        return dict.fromkeys(("mean", "low", "high"), round(float(values.mean()), DIGITS))
    found = interval(values, statistic=mean, rng=np.random.default_rng(0))
    return {name: round(one, DIGITS) for name, one in zip(("mean", "low", "high"), found, strict=True)}
