"""Actions: what an agent chooses, and the pruning ratio that it means; see `plans`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.evaluation.plans import HIGHEST, LEVELS, LOWEST, check_agents, checked_ratio
from dsfp_env.tasks.layer_control import Decider


class Choice(NamedTuple):
    """What one agent can choose from."""

    lowest: float = LOWEST  # percent
    highest: float = HIGHEST
    levels: np.ndarray = LEVELS  # percent, rising: the ratios that actions="levels" means


def choices_of(agents: Mapping[str, Decider], kind: str, levels: np.ndarray = LEVELS) -> dict[str, Choice]:
    """What each agent can choose from: of the levels, those within its bounds.

    Args:
        agents: Agent -> what it decides.
        kind: ``"box"`` or ``"levels"``.
        levels: In percent, rising.

    Raises:
        InputError: If actions are levels, and there is none for some agent.
    """
    choices = {}
    for agent, decides in agents.items():
        within = levels[(levels >= decides.lowest) & (levels <= decides.highest)]
        if kind == "levels" and not len(within):
            raise InputError(
                f"{agent} is bounded by {decides.lowest:g} and {decides.highest:g} %, and none of the levels "
                f"{', '.join(f'{level:g}' for level in levels)} lies between: expected wider bounds, or "
                "actions='box'."
            )
        choices[agent] = Choice(decides.lowest, decides.highest, within)
    return choices


def action_space(kind: str, choice: Choice = Choice()) -> Space[Any]:  # noqa: B008 - a constant
    """The action space of one agent: ``"box"`` is Box(10, 90, (1,)), ``"levels"`` is Discrete(9), unless bounded.

    Args:
        kind: ``"box"`` or ``"levels"``.
        choice: What there is to choose from.

    Raises:
        InputError: If the kind is unknown.
    """
    make = {
        "box": lambda: Box(choice.lowest, choice.highest, (1,), np.float32),
        "levels": lambda: Discrete(len(choice.levels)),
    }
    return choose("kind of actions", kind, make)()


def decode(actions: Mapping[str, Any], choices: Mapping[str, Choice], kind: str) -> dict[str, float]:
    """A joint action as pruning ratios in percent, by agent.

    Args:
        actions: Agent -> action.
        choices: Agent, of those who must act -> what it can choose from.
        kind: ``"box"`` or ``"levels"``.

    Raises:
        InputError: If an agent is missing or unknown, or an action is not in the action space.
    """
    check_agents(actions, choices)
    of_one = _decode_level if kind == "levels" else _decode_box
    return {agent: of_one(agent, actions[agent], choice) for agent, choice in choices.items()}


def encode(ratios: Mapping[str, float], choices: Mapping[str, Choice], kind: str) -> dict[str, Any]:
    """The joint action that means these ratios in percent, by agent, or the nearest to them that there are.

    Args:
        ratios: Agent -> percent.
        choices: Agent -> what it can choose from.
        kind: ``"box"`` or ``"levels"``.

    Raises:
        InputError: If an agent is missing or unknown, or a ratio is not a number in [0, 100].
    """
    check_agents(ratios, choices)
    found = {agent: checked_ratio(agent, ratios[agent], 0.0, 100.0) for agent in choices}
    if kind == "levels":
        return {agent: int(np.abs(choice.levels - found[agent]).argmin()) for agent, choice in choices.items()}
    return {
        agent: np.array([np.clip(found[agent], choice.lowest, choice.highest)], np.float32)
        for agent, choice in choices.items()
    }


def ratios_of_centred(actions: Any, lowest: Any = LOWEST, highest: Any = HIGHEST) -> np.ndarray:
    """Ratios in percent, float32, of actions in [-1, 1], where -1 is the lowest and 1 the highest.

    Args:
        actions: Of any shape.
        lowest: Percent; a number, or an array that broadcasts.
        highest: Likewise.

    Returns:
        An array of the shape of the actions.
    """
    ratios = lowest + (np.asarray(actions, np.float64) + 1) / 2 * (np.asarray(highest) - lowest)
    return ratios.astype(np.float32)


def _decode_box(agent: str, action: Any, choice: Choice) -> float:
    value = _as_array(action)
    if value is None or value.size != 1 or value.dtype.kind not in "iuf":
        raise InputError(
            f"The action of {agent} is {shortened(action)}: expected one number, a pruning ratio in percent as in "
            f"Box({choice.lowest:g}, {choice.highest:g}, (1,))."
        )
    return checked_ratio(agent, value.item(), choice.lowest, choice.highest)


def _decode_level(agent: str, action: Any, choice: Choice) -> float:
    levels = choice.levels
    if type(action) in (int, np.int64) and 0 <= action < len(levels):  # as nearly all are
        return float(levels[action])
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
