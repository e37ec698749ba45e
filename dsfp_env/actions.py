"""Actions: what an agent chooses, and the pruning ratio that it means.

A ratio in the interface is a percentage of a layer's filters in [10, 90], as in DSFP section III-B; inside the
package a ``pruning_ratio`` is a fraction. The conversion is here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError

LOWEST, HIGHEST = 10.0, 90.0  # percent
LEVELS = np.arange(LOWEST, HIGHEST + 1, 10)  # percent, the ratios of actions="levels"


def action_space(kind: str, levels: np.ndarray = LEVELS) -> Space[Any]:
    """The action space of one agent: ``"box"`` is Box(10, 90, (1,)), ``"levels"`` is Discrete(9).

    Args:
        kind: ``"box"`` or ``"levels"``.
        levels: The ratios of levels, in percent.

    Raises:
        InputError: If the kind is unknown.
    """
    make = {
        "box": lambda: Box(LOWEST, HIGHEST, (1,), np.float32),
        "levels": lambda: Discrete(len(levels)),
    }
    return choose("kind of actions", kind, make)()


def decode(
    actions: Mapping[str, Any], agents: Iterable[str], kind: str, levels: np.ndarray = LEVELS
) -> dict[str, float]:
    """A joint action as pruning ratios in percent, by agent.

    Args:
        actions: Agent -> action.
        agents: Who must act.
        kind: ``"box"`` or ``"levels"``.
        levels: The ratios of levels, in percent.

    Raises:
        InputError: If an agent is missing or unknown, or an action is not in the action space.
    """
    agents = list(agents)
    _check_agents(actions, agents)
    of_one = partial(_decode_level, levels=levels) if kind == "levels" else _decode_box
    return {agent: of_one(agent, actions[agent]) for agent in agents}


def check_plan(ratios: Mapping[str, float], agents: Iterable[str]) -> list[float]:
    """Ratios in percent, in the order of the agents.

    Raises:
        InputError: If an agent is missing or unknown, or a ratio is not a number in [10, 90].
    """
    agents = list(agents)
    _check_agents(ratios, agents)
    return [_checked_ratio(agent, ratios[agent]) for agent in agents]


def ratios_of_centred(actions: Any) -> np.ndarray:
    """Ratios in percent, float32, of actions in [-1, 1], where -1 is 10 % and 1 is 90 %; of the same shape."""
    ratios = LOWEST + (np.asarray(actions, np.float64) + 1) / 2 * (HIGHEST - LOWEST)
    return ratios.astype(np.float32)


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


def _check_agents(given: Mapping[str, Any], expected: Iterable[str]) -> None:
    expected = list(expected)
    missing = [agent for agent in expected if agent not in given]
    unknown = [agent for agent in given if agent not in expected]
    if missing or unknown:
        faults = [f"{', '.join(missing)} missing"] * bool(missing) + [f"{unknown} unknown"] * bool(unknown)
        raise InputError(
            f"The joint action does not fit ({'; '.join(faults)}): expected one action for each of the agents "
            f"{', '.join(expected)}."
        )


def _decode_box(agent: str, action: Any) -> float:
    value = np.asarray(action)
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise InputError(
            f"The action of {agent} is {action!r}: expected one number, a pruning ratio in percent as in "
            "Box(10, 90, (1,))."
        )
    return _checked_ratio(agent, value.item())


def _checked_ratio(agent: str, ratio: Any) -> float:
    number = float(ratio) if isinstance(ratio, (int, float, np.integer, np.floating)) else math.nan
    if not LOWEST <= number <= HIGHEST:
        advice = "fraction? Multiply by 100" if 0 < number < 1 else "clip it"
        raise InputError(
            f"The pruning ratio of {agent} is {ratio!r}: expected a percentage in [10, 90] ({advice})."
        )
    return number


def _decode_level(agent: str, action: Any, levels: np.ndarray) -> float:
    value = np.asarray(action)
    if value.size != 1 or value.dtype.kind not in "iu" or not 0 <= value.item() < len(levels):
        raise InputError(
            f"The action of {agent} is {action!r}: expected a level, an integer from 0 ({levels[0]:.0f} %) to "
            f"{len(levels) - 1} ({levels[-1]:.0f} %)."
        )
    return float(levels[value.item()])
