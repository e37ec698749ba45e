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
