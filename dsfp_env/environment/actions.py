"""Actions: what an agent chooses, and the pruning ratio that it means; see `plans`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.evaluation.plans import HIGHEST, LEVELS, LOWEST, check_agents, checked_ratio


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
    check_agents(actions, agents)
    of_one = partial(_decode_level, levels=levels) if kind == "levels" else _decode_box
    return {agent: of_one(agent, actions[agent]) for agent in agents}


def ratios_of_centred(actions: Any) -> np.ndarray:
    """Ratios in percent, float32, of actions in [-1, 1], where -1 is 10 % and 1 is 90 %; of the same shape."""
    ratios = LOWEST + (np.asarray(actions, np.float64) + 1) / 2 * (HIGHEST - LOWEST)
    return ratios.astype(np.float32)


def _decode_box(agent: str, action: Any) -> float:
    value = _as_array(action)
    if value is None or value.size != 1 or value.dtype.kind not in "iuf":
        raise InputError(
            f"The action of {agent} is {shortened(action)}: expected one number, a pruning ratio in percent as in "
            "Box(10, 90, (1,))."
        )
    return checked_ratio(agent, value.item())


def _decode_level(agent: str, action: Any, levels: np.ndarray) -> float:
    value = _as_array(action)
    if value is None or value.size != 1 or value.dtype.kind not in "iu" or not 0 <= value.item() < len(levels):
        raise InputError(
            f"The action of {agent} is {shortened(action)}: expected a level, an integer from 0 "
            f"({levels[0]:.0f} %) to "
            f"{len(levels) - 1} ({levels[-1]:.0f} %)."
        )
    return float(levels[value.item()])


def _as_array(action: Any) -> np.ndarray | None:
    """What came as an array, or None if it cannot be one."""
    try:
        return np.asarray(action)
    except Exception as error:  # whatever its class raises
        raise_if_of_the_machine(error, "reading an action", "the action")
        return None
