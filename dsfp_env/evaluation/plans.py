"""Plans: a pruning ratio for every agent, in percent of its layer's filters, in [10, 90] (DSFP section III-B).

Of modules a pruning ratio is a fraction. The conversion is here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.tasks.layer_control import Decider, LayerControl
from dsfp_env.tasks.ratios import HIGHEST as HIGHEST
from dsfp_env.tasks.ratios import LEVELS as LEVELS
from dsfp_env.tasks.ratios import LOWEST as LOWEST
from dsfp_env.tasks.ratios import checked_ratio as checked_ratio

Plan = dict[str, float]  # agent -> ratio in percent


def check_plan(ratios: Mapping[str, float], agents: Mapping[str, Decider]) -> list[float]:
    """Ratios in percent, in the order of the agents.

    Raises:
        InputError: If an agent is missing or unknown, or a ratio is not a number within its bounds.
    """
    check_agents(ratios, agents)
    return [checked_ratio(agent, ratios[agent], one.lowest, one.highest) for agent, one in agents.items()]


def by_layer(ratios: Mapping[str, float], control: LayerControl) -> dict[str, float]:
    """Ratios in percent by agent as ratios in percent by module path; of a layer that is left alone, 0.

    Raises:
        InputError: If an agent is missing or unknown, or a ratio is not a number within its bounds.
    """
    checked = zip(control.agents.values(), check_plan(ratios, control.agents), strict=True)
    return {path: ratio for decides, ratio in checked for path in decides.paths} | control.fixed


def as_fractions(ratios: Mapping[str, float], control: LayerControl) -> dict[str, float]:
    """Ratios in percent by agent as pruning ratios, fractions, by module path; raises as `by_layer`."""
    return {path: ratio / 100 for path, ratio in by_layer(ratios, control).items()}


def within(agents: Mapping[str, Decider], plan: Mapping[str, float], shift: float = 0.0) -> Plan:
    """A plan with this added to all ratios, each brought back within its bounds."""
    return {agent: min(max(plan[agent] + shift, one.lowest), one.highest) for agent, one in agents.items()}


def check_agents(given: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Refuse what is not given for each of the agents.

    Raises:
        InputError: If one is missing or unknown.
    """
    if isinstance(given, dict) and isinstance(expected, dict) and given.keys() == expected.keys():
        return
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
