"""What a learned joint action is compared with: uniform pruning and random search, at equal cost or evaluations.

All functions return *plans*: agent -> pruning ratio in percent. Costs follow from the structure, so a plan of
given cost (MACs, parameters, or time as predicted) is found without evaluating anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from dsfp_env.environment.actions import choices_of
from dsfp_env.evaluation.at_budget import brought_to
from dsfp_env.evaluation.budgets import MACS, cost_of
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.plans import HIGHEST, LOWEST, Plan, within

YARDSTICKS = {"random_search": "--", "uniform": ":"}  # learners that pictures always show, in these lines

Mask = Callable[[str, Mapping[str, int]], np.ndarray]  # (agent, levels chosen) -> mask, as `env.action_mask`


def uniform_plans(evaluator: Evaluator, step: float = 5.0) -> list[Plan]:
    """The same ratio for every layer, from 10 to 90 %; where a layer is bounded, the nearest within its bounds."""
    agents = evaluator.task.control.agents
    ratios = [dict.fromkeys(agents, float(ratio)) for ratio in np.arange(LOWEST, HIGHEST + 1e-9, step)]
    return list({tuple(plan.values()): plan for plan in (within(agents, ratio) for ratio in ratios)}.values())


def uniform_plan_of(evaluator: Evaluator, cost: float, of: str = MACS) -> Plan:
    """The uniform plan whose cost is nearest (in steps of half a percent; the least pruned, if several are).

    Args:
        evaluator: Tells what plans cost.
        cost: That is wanted.
        of: The kind of cost, one of `budgets.KINDS`.
    """
    found = cost_of(evaluator, of)
    return min(uniform_plans(evaluator, 0.5), key=lambda plan: abs(found(plan) - cost))


def random_plans(evaluator: Evaluator, count: int, actions: str, rng: np.random.Generator) -> list[Plan]:
    """Plans drawn uniformly, from the levels or from the range, as the learner's kind of actions is."""
    agents = evaluator.task.control.agents
    if actions == "levels":
        levels = list(levels_of(evaluator).values())
        drawn = rng.integers([len(of_one) for of_one in levels], size=(count, len(agents)))
        ratios = np.stack([of_one[drawn[:, place]] for place, of_one in enumerate(levels)], 1)
    else:
        lowest, highest = np.array([(decides.lowest, decides.highest) for decides in agents.values()]).T
        ratios = rng.uniform(lowest, highest, (count, len(agents)))
    return [dict(zip(agents, map(float, row), strict=True)) for row in ratios]


def levels_of(evaluator: Evaluator) -> dict[str, np.ndarray]:
    """Agent -> the ratios of its levels, in percent."""
    choices = choices_of(evaluator.task.control.agents, "levels", evaluator.levels)
    return {agent: choice.levels for agent, choice in choices.items()}


def masked_random_plans(
    levels: Mapping[str, np.ndarray], count: int, mask: Mask, rng: np.random.Generator
) -> list[Plan]:
    """Plans of levels that are drawn in turn, in random order, each of those that the mask then allows."""
    return [_masked_plan(levels, mask, rng) for _ in range(count)]


def _masked_plan(levels: Mapping[str, np.ndarray], mask: Mask, rng: np.random.Generator) -> Plan:
    agents, drawn = list(levels), dict[str, int]()
    for i in rng.permutation(len(agents)):
        drawn[agents[i]] = int(rng.choice(np.flatnonzero(mask(agents[i], drawn))))
    return {agent: float(of_one[drawn[agent]]) for agent, of_one in levels.items()}


def random_plans_of(
    evaluator: Evaluator, count: int, cost: float, rng: np.random.Generator, of: str = MACS
) -> list[Plan]:
    """Random plans of at most this cost, and as near to it as one common shift of all ratios can bring.

    A plan is drawn uniformly from the range; then the same number is added to all its ratios, clipped to the
    range, such that its cost just fits.
    """
    found = cost_of(evaluator, of)
    agents, drawn = evaluator.task.control.agents, random_plans(evaluator, count, "box", rng)
    return [brought_to(agents, plan, found, cost) for plan in drawn]
