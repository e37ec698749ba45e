"""Two objectives instead of one reward: accuracy and saving, as a vector.

A scalar reward fixes how much accuracy a saving is worth before anything is known. Learners of multi-objective
reinforcement learning take the vector and find the whole front (see `dsfp_env.pareto`). The conventions are
MOMAland's for the parallel environment and MO-Gymnasium's for one controller: rewards are arrays ``[2]`` of
float32, and ``reward_space`` says so.

    reward = change in (accuracy, 1 - relative MACs), counted from (0, 0)

so the undiscounted return of an episode is the accuracy and the saving of its last joint action. The scalar score
is still in the infos.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo.utils.wrappers import BaseParallelWrapper

from dsfp_env.common.errors import InputError
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.environment.infos import Infos
from dsfp_env.wrappers.joint_action import JointActionEnv, given_or_made

OBJECTIVES = ("accuracy", "saving")


class VectorRewardEnv(BaseParallelWrapper[str, np.ndarray, Any]):
    """`LayerPruningEnv` whose rewards are vectors, the same for all agents.

    Args:
        env: One that is there already.
        **kwargs: To make one, if there is none; see `layer_pruning_v0.parallel_env`.

    Raises:
        InputError: If an argument is not what was expected, or each agent gets a credit of its own.
    """

    def __init__(self, env: LayerPruningEnv | None = None, **kwargs: Any) -> None:
        super().__init__(given_or_made(env, kwargs))
        if self.env.credit != "shared":
            raise InputError(
                f"The credit is {self.env.credit!r}, but that divides one score among the agents, and here are "
                "two objectives: expected credit='shared'."
            )
        self._reward_spaces = {agent: _reward_space() for agent in self.env.possible_agents}
        self._worth = np.zeros(len(OBJECTIVES))

    def reward_space(self, agent: str) -> Box:
        """The rewards of this agent lie in this space, ``Box(-1, 1, (2,))`` (the same object each time)."""
        return self._reward_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Infos]:
        """Start an episode; see `LayerPruningEnv.reset`."""
        self._worth = np.zeros(len(OBJECTIVES))
        return self.env.reset(seed=seed, options=options)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, bool], dict[str, bool], Infos]:
        """Prune by a joint action; see `LayerPruningEnv.step`. Rewards are ``[2]`` float32 by agent."""
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        if not infos:
            return observations, rewards, terminations, truncations, infos
        before, self._worth = self._worth, objectives(next(iter(infos.values())))
        vectors = {agent: (self._worth - before).astype(np.float32) for agent in rewards}
        return observations, vectors, terminations, truncations, infos


class VectorRewardJointActionEnv(JointActionEnv):
    """`JointActionEnv` whose reward is a vector; for learners that know MO-Gymnasium's ``reward_space``.

    Several at once are MO-Gymnasium's `MOSyncVectorEnv` of functions that make one.

    Args:
        env: A `LayerPruningEnv` that is there already.
        **kwargs: To make one, if there is none; see `layer_pruning_v0.parallel_env`.

    Raises:
        InputError: As `VectorRewardEnv` does.
    """

    def __init__(self, env: LayerPruningEnv | None = None, **kwargs: Any) -> None:
        super().__init__(VectorRewardEnv(env, **kwargs))
        self.reward_space = _reward_space()


def objectives(info: Mapping[str, Any]) -> np.ndarray:
    """Accuracy and saving ``[2]`` of the network that an agent's info, or the team's, tells of."""
    return np.array([info["accuracy"], 1 - info["relative_macs"]])


def _reward_space() -> Box:
    return Box(-1.0, 1.0, (len(OBJECTIVES),), np.float32)
