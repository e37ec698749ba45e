"""Which of several criteria a run searches with: all are tried on the same joint actions, out of the one budget.

A fifth of the evaluations is split evenly: every criterion decides which filters go in the same random joint
actions, with the same fine-tuning seed, so that nothing but the criterion differs. The one with the highest mean
reward gets the rest of the evaluations. (Were each searched with in full, one run would be several, and the best
of them partly luck; were the criterion an action, each agent would have a stranger beside it that changes what all
its levels mean.) Random search, the yardstick, gets the criterion that was chosen and the whole number of
evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

import dsfp_env
from agents.reporting.baselines import levels_of, masked_random_plans, random_plans
from agents.reporting.budget_options import measuring
from agents.reporting.journal import Journal
from dsfp_env.common.progress import Progress
from dsfp_env.common.saying import remark

SHARE = 5  # one in so many evaluations is spent on the choice
FEWEST = 2  # joint actions for each criterion, at least

MakeEnv = Callable[[str], dsfp_env.LayerPruningEnv]  # of a criterion


class Choice(NamedTuple):
    """What came of comparing criteria."""

    best: str
    mean_rewards: dict[str, float]  # by criterion
    plans: int  # that each was tried on

    @property
    def spent(self) -> int:
        """Evaluations."""
        return self.plans * len(self.mean_rewards)

    def told(self, evaluations: int) -> dict[str, Any]:
        """What a result says of it, for so many evaluations in all."""
        compared = {"mean_reward": self.mean_rewards, "joint_actions": self.plans, "evaluations": self.spent}
        return {"evaluations": evaluations, "criteria": compared}


def trials_of(evaluations: int, criteria: int) -> int:
    """How many joint actions each of so many criteria is tried on."""
    return evaluations // SHARE // criteria if criteria else 0


def choose_criterion(
    criteria: Sequence[str], make_env: MakeEnv, actions: str, evaluations: int, seed: int, journal: Journal
) -> Choice:
    """Compare criteria.

    Args:
        criteria: Two or more.
        make_env: The environment of the run with a criterion; all have one task.
        actions: The kind of actions that the agents take.
        evaluations: Of the whole run.
        seed: Of the run.
        journal: Notes every outcome, so that what was stopped goes on.
    """
    count = trials_of(evaluations, len(criteria))
    envs = {name: make_env(name) for name in criteria}
    first = envs[criteria[0]]
    evaluator, rng = measuring(first), np.random.default_rng([seed, 4])
    if first.budget is not None and actions == "levels" and first.at_budget is None:
        plans = masked_random_plans(levels_of(evaluator), count, first.action_mask, rng)
    else:
        plans = random_plans(evaluator, count, actions, rng)
    if first.at_budget is not None:
        plans = [first.at_budget.filled(plan) for plan in plans]
    progress, means = Progress("criteria", count * len(criteria)), {}
    for name, env in envs.items():
        worths = []
        for plan in plans:
            worths.append(_worth(env, name, plan, seed, journal))
            progress.advance(worths[-1])
        means[name] = float(np.mean(worths))
    progress.close()
    best = max(criteria, key=means.__getitem__)
    remark(f"{best} is the criterion of this search, of {', '.join(f'{n} ({m:.4f})' for n, m in means.items())}")
    return Choice(best, means, count)


def _worth(env: dsfp_env.LayerPruningEnv, name: str, plan: dict[str, float], seed: int, journal: Journal) -> float:
    evaluator = measuring(env)
    if evaluator.timed:
        return env.score(evaluator.evaluate(plan, seed))
    accuracy = journal.once(["criterion", name, plan, seed], lambda: evaluator.evaluate(plan, seed).accuracy)
    return env.score(evaluator.outcome(evaluator.keep(plan), accuracy))
