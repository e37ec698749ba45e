"""Whose merit a score is: the rewards of a team that is measured as one.

- ``"shared"``: every agent is credited with the score of the joint action. One evaluation a step.
- ``"difference"``: every agent is credited with the score less what the score would be had this agent chosen a
  fixed ratio (50 %, or the nearest within its bounds), all others as they did (difference rewards, Wolpert and
  Tumer 2001). What the others do then disturbs an agent's reward less, and what is best for the agent is still
  best for the team. A step costs one more evaluation for every agent that chose another ratio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dsfp_env.evaluation.plans import Plan
from dsfp_env.tasks.layer_control import Decider

KINDS = ("shared", "difference")
DEFAULT_RATIO = 50.0  # percent, the middle of the range: what an agent is compared with


def default_plan(agents: Mapping[str, Decider]) -> Plan:
    """What each agent is compared with."""
    return {agent: min(max(DEFAULT_RATIO, one.lowest), one.highest) for agent, one in agents.items()}


def compared_plans(plan: Plan, kind: str, default: Plan) -> list[Plan]:
    """The plans that crediting the agents needs besides the joint action itself.

    Args:
        plan: The joint action.
        kind: One of `KINDS`.
        default: From `default_plan`.
    """
    return [{**plan, agent: default[agent]} for agent in _compared(plan, kind, default)]


def credits(plan: Plan, kind: str, score: float, compared: Sequence[float], default: Plan) -> dict[str, float]:
    """What each agent is credited with.

    Args:
        plan: The joint action.
        kind: One of `KINDS`.
        score: Of the joint action.
        compared: The scores of `compared_plans`.
        default: As there.
    """
    if kind == "shared":
        return dict.fromkeys(plan, score)
    without: Mapping[str, float] = dict(zip(_compared(plan, kind, default), compared, strict=True))
    return {agent: score - without.get(agent, score) for agent in plan}


def _compared(plan: Plan, kind: str, default: Plan) -> list[str]:
    return [agent for agent, ratio in plan.items() if ratio != default[agent]] if kind == "difference" else []
