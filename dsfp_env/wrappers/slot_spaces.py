"""The one space of all agents, as a policy that they share sees it: numbers in an array, ratios in [-1, 1].

Agents whose ratios or levels are bounded differently have one space all the same: -1 and 1 are each agent's own
bounds, and an agent of fewer levels plays its highest where it is told a higher one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from pettingzoo import ParallelEnv

from dsfp_env.common.errors import InputError


def the_space(kind: str, envs: Sequence[ParallelEnv[str, Any, Any]]) -> Space[Any]:
    """The one space of all agents of all environments.

    Args:
        kind: What it is of, ``"observation"`` or ``"action"``.
        envs: One or more.

    Raises:
        InputError: If there are several.
    """
    spaces = {
        f"{agent} of environment {number}": getattr(env, f"{kind}_space")(agent)
        for number, env in enumerate(envs)
        for agent in env.possible_agents
    }
    (first, space), *others = spaces.items()
    for other, its_space in others:
        if its_space != space:
            raise InputError(
                f"The {kind} space of {first} is {space}, that of {other} is {its_space}: expected one for all, "
                "as they share a policy. Wrap the environments so that they have one, or give every agent a "
                "learner of its own."
            )
    return space


def action_spaces(envs: Sequence[ParallelEnv[str, Any, Any]]) -> list[Space[Any]]:
    """The action spaces of the agents of each environment; alike, but for the bounds or the number of actions.

    Raises:
        InputError: If they differ otherwise, or between environments.
    """
    agents = envs[0].possible_agents
    spaces = [envs[0].action_space(agent) for agent in agents]
    for number, env in enumerate(envs):
        for agent, own in zip(agents, spaces, strict=True):
            its_space = env.action_space(agent)
            if its_space != own or not _alike(its_space, spaces[0]):
                other, space = (agents[0], spaces[0]) if its_space == own else (agent, own)
                raise InputError(
                    f"The action space of {other} of environment 0 is {space}, that of {agent} of environment "
                    f"{number} is {its_space}: expected one for all, as they share a policy. Wrap the "
                    "environments so that they have one, or give every agent a learner of its own."
                )
    return spaces


def _alike(one: Space[Any], other: Space[Any]) -> bool:
    if isinstance(one, Box) and isinstance(other, Box):
        return one.shape == other.shape and one.dtype == other.dtype
    return one == other or (isinstance(one, Discrete) and isinstance(other, Discrete))


def stackable(space: Space[Any]) -> Space[Any]:
    """The space of observations, if they can be put into an array.

    Raises:
        InputError: If they cannot.
    """
    if not isinstance(space, (Box, Discrete, MultiDiscrete, MultiBinary)):
        raise InputError(
            f"The observation space is {space}: expected a Box, Discrete, MultiDiscrete or MultiBinary. Wrap the "
            "environment with such observations."
        )
    return space


def with_one_hot(space: Space[Any], num_agents: int) -> Box:
    """The space of observations that are followed by a one-hot of so many entries.

    Raises:
        InputError: If they are no vectors.
    """
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise InputError(
            f"The observation space is {space}: expected a Box(..., (m,)), to which the agent's number can be "
            "appended. Use agent_ids=False, or flatten observations."
        )
    low = np.concatenate([space.low, np.zeros(num_agents)]).astype(space.dtype)
    high = np.concatenate([space.high, np.ones(num_agents)]).astype(space.dtype)
    return Box(low, high, dtype=space.dtype.type)


def centred(spaces: Sequence[Space[Any]]) -> Space[Any]:
    """The one space of actions as a learner sees it: around 0, or counted from 0.

    Args:
        spaces: From `action_spaces`.

    Raises:
        InputError: If they are of a kind that learners cannot be given.
    """
    space = spaces[0]
    if isinstance(space, Discrete):
        return Discrete(max(int(one.n) for one in spaces))  # type: ignore[attr-defined]
    if isinstance(space, (MultiDiscrete, MultiBinary)):
        return space
    for one in spaces:
        if not isinstance(one, Box) or not one.is_bounded() or one.dtype.kind != "f":
            raise InputError(
                f"The action space is {one}: expected a Box of floats with finite bounds, a Discrete, "
                "MultiDiscrete or MultiBinary."
            )
    return Box(-1.0, 1.0, space.shape, np.float32)


def restored(actions: np.ndarray, spaces: Sequence[Any]) -> np.ndarray:
    """A learner's actions as actions of the agents' own spaces; what rounding puts beyond a Box is its bound.

    Args:
        actions: ``[..., agents, *action]``
        spaces: From `action_spaces`.
    """
    if isinstance(spaces[0], Discrete):
        highest = np.array([int(space.n) - 1 for space in spaces])
        own = np.where(actions <= highest.max(), np.minimum(actions, highest), actions)  # others are refused later
        return own + np.array([int(space.start) for space in spaces])
    if not isinstance(spaces[0], Box):
        return actions
    low, high = (
        np.stack([getattr(space, end) for space in spaces]) for end in ("low", "high")
    )  # [agents, *action]
    values = low.astype(np.float64) + (actions.astype(np.float64) + 1) / 2 * (high.astype(np.float64) - low)
    return np.clip(values.astype(low.dtype), low, high)
