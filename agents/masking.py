"""Which levels an agent may choose, where a budget of MACs masks some; see `dsfp_env.environment.masks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv


def allowed(info: Mapping[str, Any], num_actions: int) -> np.ndarray:
    """The actions ``[k]`` that an agent's info allows it; all, if there is no mask."""
    mask = info.get("action_mask")
    return np.arange(num_actions) if mask is None else np.flatnonzero(mask)


def infos_in_turn(
    env: ParallelEnv[str, Any, Any], infos: Mapping[str, dict[str, Any]], agent: str, chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """The info of an agent whose turn it is, with the mask that earlier choices leave it.

    Args:
        env: The environment.
        infos: Its infos; without masks in them nothing is changed.
        agent: Whose turn it is.
        chosen: Agent -> action, of those who have chosen.
    """
    info = infos[agent]
    if "action_mask" not in info or not hasattr(env, "action_mask"):
        return info
    return {**info, "action_mask": env.action_mask(agent, chosen)}


def under_masks(
    env: ParallelEnv[str, Any, Any], infos: Mapping[str, dict[str, Any]], wished: Mapping[str, Any]
) -> dict[str, Any]:
    """The joint action that is played where masks forbid the wished one.

    All levels are raised together, by as little as is enough, so that no layer pays for the others; then each in
    turn returns towards what was wished, as far as the masks allow. Equal wishes give equal actions.

    Args:
        env: The environment.
        infos: Its infos; without masks in them nothing is changed.
        wished: Agent -> action.
    """
    if not any("action_mask" in infos[agent] for agent in wished):
        return dict(wished)
    size = {agent: int(env.action_space(agent).n) for agent in wished}

    def levels_of(agent: str) -> np.ndarray:
        return allowed(infos_in_turn(env, infos, agent, played), size[agent])

    for shift in range(max(size.values())):
        played = {agent: min(level + shift, size[agent] - 1) for agent, level in wished.items()}
        if all(level in levels_of(agent) for agent, level in played.items()):
            break
    for agent, level in wished.items():
        levels = levels_of(agent)
        played[agent] = int(levels[np.abs(levels - level).argmin()])
    return played
