"""Many environments in which one controller decides for a layer a step, as a Stable-Baselines3 ``VecEnv``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from dsfp_env.common.errors import InputError
from dsfp_env.environment.infos import TEAM
from dsfp_env.wrappers.layer_by_layer_vector import LayerByLayerVectorEnv


class LayerByLayerVecEnv(VecEnv):
    """A `LayerByLayerVectorEnv` for Stable-Baselines3: its learners decide in turn at the speed of a table.

    ``sb3_contrib.MaskablePPO`` respects the exact masks of a budget. Infos are empty until the last layer of a
    round; there they have what all agents are told of the outcome (`infos.TEAM`), and at the end of an episode
    ``terminal_observation``. The next episode starts within the same step.

    Args:
        num_envs: How many.
        backend: ``"table"`` or ``"surrogate"``.
        order: As for `LayerByLayerEnv`.
        horizon: As for `LayerPruningEnv`.
        **kwargs: See `layer_pruning_v0.parallel_env`.

    Attributes:
        vector_env: The `LayerByLayerVectorEnv`.

    Raises:
        InputError: If an argument is not what was expected.
    """

    def __init__(
        self,
        num_envs: int = 1,
        backend: str = "table",
        order: str | Iterable[str] = "execution",
        horizon: int = 1,
        **kwargs: Any,
    ) -> None:
        if "autoreset_mode" in kwargs:
            raise InputError("autoreset_mode is not asked here: Stable-Baselines3 expects that of the same step.")
        env = LayerByLayerVectorEnv(num_envs, backend, order, horizon, AutoresetMode.SAME_STEP, **kwargs)
        self.vector_env = env
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._actions = np.empty(0)  # of the step that was begun

    def reset(self) -> np.ndarray:
        """Start an episode in every environment; returns observations ``[num_envs, m + 3 * agents + 2]``."""
        observations, _ = self.vector_env.reset(seed=self._seeds)
        self._reset_seeds()
        self._reset_options()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Take actions, ``[num_envs]`` levels or ``[num_envs, 1]``; the work is done in `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Decide for the layer whose turn it is.

        Returns:
            Observations, rewards ``[num_envs]`` float32, dones ``[num_envs]`` bool, and infos.

        Raises:
            InputError: If an action is not in its space.
        """
        observations, rewards, dones, _, told = self.vector_env.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if self.vector_env.is_first:  # a round is over
            last = told.get("final_info", told)
            team = {key: last[key].tolist() for key in TEAM if key in last}
            infos = [dict(zip(team, row, strict=True)) for row in zip(*team.values(), strict=True)]
        if dones.all():
            for info, terminal in zip(infos, told["final_obs"], strict=True):
                info |= {"terminal_observation": terminal, "TimeLimit.truncated": False}
        return observations, rewards.astype(np.float32), dones, infos

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of the `vector_env`, for each; ``action_masks`` is a function that gives one's own mask."""
        places = list(self._get_indices(indices))
        if attr_name == "action_masks" and self.vector_env.levels:
            return [partial(self._mask, place) for place in places]
        return [getattr(self.vector_env, attr_name)] * len(places)

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Raises InputError: there are no environments inside."""
        raise InputError(f"{attr_name} cannot be set: many environments of a table or surrogate are one.")

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """The masks ``[levels]`` bool of ``action_masks``, which is the one method that each has.

        Raises:
            InputError: If another is asked for, or actions are no levels.
        """
        if method_name != "action_masks":
            raise InputError(f"There is no method {method_name} of one environment: expected 'action_masks'.")
        return list(self.vector_env.action_masks()[list(self._get_indices(indices))])

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """They are in no wrappers."""
        return [False for _ in self._get_indices(indices)]

    def close(self) -> None:
        """Close the `vector_env`."""
        self.vector_env.close()

    def _mask(self, place: int) -> np.ndarray:
        mask: np.ndarray = self.vector_env.action_masks()[place]
        return mask
