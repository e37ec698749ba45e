"""Plans: a pruning ratio for every agent, in percent of its layer's filters, in [10, 90] (DSFP section III-B).

Of modules a pruning ratio is a fraction. The conversion is here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.ranges import is_finite

Plan = dict[str, float]  # agent -> ratio in percent

LOWEST, HIGHEST = 10.0, 90.0  # percent

LEVELS = np.arange(LOWEST, HIGHEST + 1, 10)  # percent, the ratios of actions="levels"


def check_plan(ratios: Mapping[str, float], agents: Iterable[str]) -> list[float]:
    """Ratios in percent, in the order of the agents.

    Raises:
        InputError: If an agent is missing or unknown, or a ratio is not a number in [10, 90].
    """
    agents = list(agents)
    check_agents(ratios, agents)
    return [checked_ratio(agent, ratios[agent]) for agent in agents]


def as_fractions(ratios: Mapping[str, float], agents: Mapping[str, str]) -> dict[str, float]:
    """Ratios in percent by agent as pruning ratios, fractions, by module path.

    Args:
        ratios: Agent -> percent in [10, 90].
        agents: Agent -> module path.

    Raises:
        InputError: If an agent is missing or unknown, or a ratio is not a number in [10, 90].
    """
    checked = check_plan(ratios, agents)
    return {path: ratio / 100 for path, ratio in zip(agents.values(), checked, strict=True)}


def check_agents(given: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Refuse what is not given for each of the agents.

    Raises:
        InputError: If one is missing or unknown.
    """
    expected = list(expected)
    if not isinstance(given, Mapping):
        raise InputError(
            f"The joint action is {shortened(given)}: expected a dict with one action for each of the agents "
            f"{', '.join(expected)}."
        )
    missing = [agent for agent in expected if agent not in given]
    unknown = [agent for agent in given if agent not in expected]
    if missing or unknown:
        faults = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{shortened(unknown)} unknown"] * bool(
            unknown
        )
        raise InputError(
            f"The joint action does not fit ({'; '.join(faults)}): expected one action for each of the agents "
            f"{', '.join(expected)}."
        )


def checked_ratio(agent: str, ratio: Any) -> float:
    """A ratio in percent as a float.

    Raises:
        InputError: If it is not a number in [10, 90].
    """
    fits = isinstance(ratio, (int, float, np.integer, np.floating)) and is_finite(ratio)
    number = float(ratio) if fits else math.nan
    if not LOWEST <= number <= HIGHEST:
        advice = "fraction? Multiply by 100" if 0 < number < 1 else "clip it"
        raise InputError(
            f"The pruning ratio of {agent} is {shortened(ratio)}: expected a percentage in [10, 90] ({advice})."
        )
    return number


def listed(plans: Iterable[Mapping[str, float]], seed: int | Sequence[int]) -> tuple[list[Any], list[Any]]:
    """Several plans, and a seed for each; what each is, is another question.

    Args:
        plans: Several.
        seed: One for all, or one for each.

    Raises:
        InputError: If one plan came alone, or there are not as many seeds as plans.
    """
    if isinstance(plans, Mapping):
        raise InputError("One plan came alone: expected several, as in [plan, ...]; `evaluate` takes one.")
    try:
        plans = list(plans)
    except TypeError as error:  # also of an array without dimensions, which says that it can be gone over
        raise InputError(f"The plans are {shortened(plans)}: expected several, as in [plan, ...].") from error
    given: Any = [seed] * len(plans) if isinstance(seed, Integral) else seed
    try:
        seeds = None if isinstance(given, (str, bytes, Mapping)) else list(given)
    except TypeError:
        seeds = None
    if seeds is None:
        raise InputError(f"The seeds are {shortened(given)}: expected one integer, or one for each plan.")
    if len(seeds) != len(plans) or not all(isinstance(one, Integral) for one in seeds):
        raise InputError(
            f"The seeds {shortened(seeds)} came for {len(plans)} plans: expected one integer, or one for each "
            "plan."
        )
    return plans, seeds
