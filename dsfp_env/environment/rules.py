"""The rules of the game: what agents do and see, what it is worth, how long it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium.spaces import Box

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.environment.actions import action_space
from dsfp_env.environment.credit import KINDS
from dsfp_env.environment.observations import context_space, observation_space
from dsfp_env.evaluation.budgets import Budget
from dsfp_env.evaluation.rewards import RewardFunction, reward_function

RENDER_MODES = ["human", "ansi", "rgb_array"]
SEEN: dict[str, Callable[[], Box]] = {"layers": observation_space, "context": context_space}


@dataclass(frozen=True)
class Rules:
    """Arguments of an environment that say nothing about measuring; see `LayerPruningEnv`.

    Raises:
        InputError: If one is not what was expected.
    """

    actions: str
    reward: str | RewardFunction
    budget: Budget | None
    horizon: int
    render_mode: str | None
    observation: str
    context: float
    credit: str

    def __post_init__(self) -> None:
        if self.render_mode is not None:
            choose("render mode", self.render_mode, dict.fromkeys(RENDER_MODES))
        if not isinstance(self.horizon, (int, np.integer)) or self.horizon < 1:
            raise InputError(f"The horizon is {shortened(self.horizon)}: expected a number of steps, 1 or more.")
        object.__setattr__(self, "horizon", int(self.horizon))  # a NumPy number would make NumPy booleans of ends
        check_context(self.context)
        choose("credit", self.credit, dict.fromkeys(KINDS))
        choose("kind of observation", self.observation, SEEN)
        action_space(self.actions)
        _ = self.worth

    @cached_property
    def worth(self) -> RewardFunction:
        """What an outcome is worth: (outcome, original) -> score."""
        return reward_function(self.reward, self.budget)


def check_context(context: Any) -> float:
    """A pruning intensity in percent, as a float.

    Raises:
        InputError: If it is not a number in [10, 90].
    """
    if not isinstance(context, (int, float, np.integer, np.floating)) or not 10 <= context <= 90:
        raise InputError(
            f"The context is {shortened(context)}: expected a pruning intensity in percent, in [10, 90]."
        )
    return float(context)
