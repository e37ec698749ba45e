"""The one space of all agents, as a policy that they share sees it: numbers in an array, ratios in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from pettingzoo import ParallelEnv

from dsfp_env.common.errors import InputError


def the_space(kind: str, envs: Sequence[ParallelEnv[str, Any, Any]]) -> Space[Any]:
    """The one space of all agents of all environments."""
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


def stackable(space: Space[Any]) -> Space[Any]:
    """The space of observations, if they can be put into an array."""
    if not isinstance(space, (Box, Discrete, MultiDiscrete, MultiBinary)):
        raise InputError(
            f"The observation space is {space}: expected a Box, Discrete, MultiDiscrete or MultiBinary. Wrap the "
            "environment with such observations."
        )
    return space


def with_one_hot(space: Space[Any], num_agents: int) -> Box:
    """The space of observations that are followed by a one-hot."""
    if not isinstance(space, Box) or len(space.shape) != 1:
        raise InputError(
            f"The observation space is {space}: expected a Box(..., (m,)), to which the agent's number can be "
            "appended. Use agent_ids=False, or flatten observations."
        )
    low = np.concatenate([space.low, np.zeros(num_agents)]).astype(space.dtype)
    high = np.concatenate([space.high, np.ones(num_agents)]).astype(space.dtype)
    return Box(low, high, dtype=space.dtype.type)


def centred(space: Space[Any]) -> Space[Any]:
    """The space of actions as a learner sees it: around 0, or counted from 0."""
    if isinstance(space, Discrete):
        return Discrete(int(space.n))
    if isinstance(space, (MultiDiscrete, MultiBinary)):
        return space
    if not isinstance(space, Box) or not space.is_bounded() or space.dtype.kind != "f":
        raise InputError(
            f"The action space is {space}: expected a Box of floats with finite bounds, a Discrete, MultiDiscrete "
            "or MultiBinary."
        )
    return Box(-1.0, 1.0, space.shape, np.float32)


def restored(actions: np.ndarray, space: Space[Any]) -> np.ndarray:
    """A learner's actions as actions of the agents' own space; what rounding puts beyond a Box is its bound."""
    if isinstance(space, Discrete):
        return actions + space.start
    if not isinstance(space, Box):
        return actions
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    values = low + (actions.astype(np.float64) + 1) / 2 * (high - low)
    return np.clip(values.astype(space.dtype), space.low, space.high)
