"""The environment under PettingZoo's conventional names: `parallel_env`, `env` and `raw_env`.

Version history: v0, the first.
"""

from __future__ import annotations

from typing import Any

from pettingzoo import AECEnv
from pettingzoo.utils import parallel_to_aec
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, ClipOutOfBoundsWrapper, OrderEnforcingWrapper

from dsfp_env.common.errors import InputError
from dsfp_env.environment.env import LayerPruningEnv


def parallel_env(*, max_cycles: int | None = None, **kwargs: Any) -> LayerPruningEnv:
    """Make the parallel environment.

    Args:
        max_cycles: PettingZoo's word for ``horizon``; give one of them.
        **kwargs: See `LayerPruningEnv`.
    """
    if max_cycles is not None:
        if "horizon" in kwargs:
            raise InputError("Both max_cycles and horizon were given, and they mean the same: give one.")
        kwargs["horizon"] = max_cycles
    return LayerPruningEnv(**kwargs)


def raw_env(**kwargs: Any) -> AECEnv:
    """Make the environment turn by turn (AEC), with no wrapper: an action outside its space is refused."""
    return parallel_to_aec(parallel_env(**kwargs))


def env(**kwargs: Any) -> AECEnv:
    """Make the environment turn by turn (AEC), in PettingZoo's usual wrappers: ratios are clipped to [10, 90]."""
    raw = raw_env(**kwargs)
    check = AssertOutOfBoundsWrapper if kwargs.get("actions") == "levels" else ClipOutOfBoundsWrapper
    return OrderEnforcingWrapper(check(raw))
