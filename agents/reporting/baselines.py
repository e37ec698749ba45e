"""What a learned joint action is compared with: uniform pruning and random search, at equal MACs or evaluations.

All functions return *plans*: agent -> pruning ratio in percent. Costs follow from the structure, so a plan of
given MACs is found without evaluating anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.plans import HIGHEST, LEVELS, LOWEST, Plan

YARDSTICKS = {"random_search": "--", "uniform": ":"}  # learners that pictures always show, in these lines

Mask = Callable[[str, Mapping[str, int]], np.ndarray]  # (agent, levels chosen) -> mask, as `env.action_mask`


def uniform_plans(evaluator: Evaluator, step: float = 5.0) -> list[Plan]:
    """The same ratio for every layer, from 10 to 90 %."""
    return [
        dict.fromkeys(evaluator.task.agents, float(ratio)) for ratio in np.arange(LOWEST, HIGHEST + 1e-9, step)
    ]


def uniform_plan_of(evaluator: Evaluator, macs: int) -> Plan:
    """The uniform plan whose MACs are nearest (in steps of half a percent; the least pruned, if several are)."""
    return min(uniform_plans(evaluator, 0.5), key=lambda plan: abs(evaluator.costs(plan).macs - macs))


def random_plans(evaluator: Evaluator, count: int, actions: str, rng: np.random.Generator) -> list[Plan]:
    """Plans drawn uniformly, from the levels or from the range, as the learner's kind of actions is."""
    agents = evaluator.task.agents
    shape = (count, len(agents))
    ratios = rng.choice(LEVELS, shape) if actions == "levels" else rng.uniform(LOWEST, HIGHEST, shape)
    return [dict(zip(agents, map(float, row), strict=True)) for row in ratios]


def masked_random_plans(agents: Iterable[str], count: int, mask: Mask, rng: np.random.Generator) -> list[Plan]:
    """Plans of levels that are drawn in turn, in random order, each of those that the mask then allows."""
    agents = list(agents)
    return [_masked_plan(agents, mask, rng) for _ in range(count)]


def _masked_plan(agents: list[str], mask: Mask, rng: np.random.Generator) -> Plan:
    levels: dict[str, int] = {}
    for i in rng.permutation(len(agents)):
        levels[agents[i]] = int(rng.choice(np.flatnonzero(mask(agents[i], levels))))
    return {agent: float(LEVELS[levels[agent]]) for agent in agents}


def random_plans_of(evaluator: Evaluator, count: int, macs: int, rng: np.random.Generator) -> list[Plan]:
    """Random plans with at most these MACs, and as near to them as one common shift of all ratios can bring.

    A plan is drawn uniformly from the range; then the same number is added to all its ratios, clipped to the
    range, such that its MACs just fit.
    """
    return [_shifted(evaluator, plan, macs) for plan in random_plans(evaluator, count, "box", rng)]


def _shifted(evaluator: Evaluator, plan: Plan, macs: int) -> Plan:
    too_little, enough = LOWEST - HIGHEST, HIGHEST - LOWEST
    for _ in range(10):  # halves the interval to less than a fifth of a percent
        middle = (too_little + enough) / 2
        if evaluator.costs(_add(plan, middle)).macs <= macs:
            enough = middle
        else:
            too_little = middle
    return _add(plan, enough)


def _add(plan: Plan, shift: float) -> Plan:
    return {agent: min(max(ratio + shift, LOWEST), HIGHEST) for agent, ratio in plan.items()}
