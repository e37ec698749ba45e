"""What agents see and earn, so that it means the same in every network: for policies that are carried over.

Most features do already. These do not, and are replaced:

| feature      | in place of                      | is                                       |
|--------------|----------------------------------|------------------------------------------|
| accuracy     | accuracy                         | of the original network's                |
| macs_share   | a share of all layers, so of few | of that of the layer with the most MACs  |
| params_share | likewise                         | of that of the layer with the most       |

Rewards are divided by the original network's accuracy. Infos stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo.utils.wrappers import BaseParallelWrapper

from dsfp_env.common.errors import InputError
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.environment.infos import Infos
from dsfp_env.environment.observations import FEATURES, observation_space
from dsfp_env.tasks.layer_features import bounded

SHARES = [FEATURES.index("macs_share"), FEATURES.index("params_share")]
ACCURACY = FEATURES.index("accuracy")


class ComparableEnv(BaseParallelWrapper[str, np.ndarray, Any]):
    """`LayerPruningEnv` whose features and rewards are those at the top of this file.

    Args:
        env: With ``observation="layers"``.

    Raises:
        InputError: If agents see something else, or the original network is always wrong.
    """

    def __init__(self, env: LayerPruningEnv) -> None:
        super().__init__(env)
        space, original = env.observation_space(env.possible_agents[0]), env.evaluator.original.accuracy
        if space != observation_space():
            raise InputError(f"Agents see {space}: expected an environment with observation='layers'.")
        if original <= 0:
            raise InputError("The original network's accuracy is 0: expected one to compare others with.")
        self._scale = np.ones(len(FEATURES))
        self._scale[ACCURACY] = self._original = original
        self._scale[SHARES] = np.max([one[SHARES] for one in env.evaluator.layer_features.values()], axis=0)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Infos]:
        """Start an episode; see `LayerPruningEnv.reset`."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return self.seen(observations), infos

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Prune by a joint action; see `LayerPruningEnv.step`."""
        observations, rewards, *ends, infos = self.env.step(actions)
        return self.seen(observations), {a: r / self._original for a, r in rewards.items()}, *ends, infos

    def seen(self, observations: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Observations of the environment, ``[13]`` by agent, as agents see them here, in the same shape."""
        return {agent: bounded(seen / self._scale) for agent, seen in observations.items()}
