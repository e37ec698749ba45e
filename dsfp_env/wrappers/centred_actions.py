"""Ratios in [-1, 1], for libraries that draw actions around 0: a parallel environment stays one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.wrappers.slot_spaces import centred, restored


class CentredActionsEnv(BaseParallelWrapper[str, Any, Any]):
    """A parallel environment whose actions are in [-1, 1]: -1 and 1 are the bounds of each agent's own.

    A policy that is not trained draws around 0, and what is clipped to Box(10, 90) is 10 for ever. Here 0 is 50 %:

        env = CentredActionsEnv(dsfp_env.parallel_env(task="digits"))

    Args:
        env: One whose actions are floats with finite bounds, as with ``actions="box"``.

    Raises:
        InputError: If it is no parallel environment, or its actions are others.
    """

    def __init__(self, env: ParallelEnv[str, Any, Any]) -> None:
        if not isinstance(env, ParallelEnv):
            raise InputError(
                f"The environment is {shortened(env)}: expected one of PettingZoo's parallel kind, as "
                "dsfp_env.parallel_env(...) makes."
            )
        super().__init__(env)
        self._own: dict[str, Any] = {agent: env.action_space(agent) for agent in env.possible_agents}
        for agent, space in self._own.items():
            if not isinstance(space, Box):
                raise InputError(f"The action space of {agent} is {space}: expected a Box, as with actions='box'.")
        self._centred = {agent: centred([space]) for agent, space in self._own.items()}

    def action_space(self, agent: str) -> Space[Any]:
        """``Box(-1, 1)`` of the shape of the agent's own (the same object each time)."""
        return self._centred[agent]

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, ...]:
        """Step by a joint action in [-1, 1]; else as the environment does.

        Raises:
            InputError: If an action is not in [-1, 1], or the environment refuses what it means.
        """
        if isinstance(actions, Mapping):  # if not, the environment says so
            actions = {agent: self._restored(agent, action) for agent, action in actions.items()}
        return self.env.step(actions)

    def _restored(self, agent: str, action: Any) -> Any:
        """The action in the agent's own space; the environment judges agents that are not its own."""
        if agent not in self._own:
            return action
        try:
            value = np.asarray(action)
        except Exception as error:  # whatever its class raises
            raise_if_of_the_machine(error, "reading an action", "the action")
            value = np.array(None)
        own = self._own[agent]
        if value.size != own.low.size or value.dtype.kind not in "iuf" or not (np.abs(value) <= 1).all():
            raise InputError(
                f"The action of {agent} is {shortened(action)}: expected numbers of the shape {own.shape} in "
                "[-1, 1]; clip what a policy draws."
            )
        return restored(value.reshape(1, *own.shape), [own])[0]
