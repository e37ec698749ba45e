"""Several networks as one Stable-Baselines3 ``VecEnv``: every layer of every network is a slot.

A `ParallelVecEnv` is of environments with the same agents; networks of different depth have different ones. Here
the slots of several stand side by side: one policy acts for the layers of all, and learns from all in every step.

    networks = [ParallelVecEnv(env, agent_ids=False) for env in envs]
    model = PPO("MlpPolicy", SideBySideVecEnv(networks), n_steps=8, batch_size=64).learn(4000)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from dsfp_env.common.errors import InputError


class SideBySideVecEnv(VecEnv):
    """The slots of several ``VecEnv`` in a row: first those of the first, then those of the second.

    Args:
        parts: One or more, with the same spaces.

    Raises:
        InputError: If there are none, or their spaces differ.
    """

    def __init__(self, parts: Sequence[VecEnv]) -> None:
        if not parts:
            raise InputError("There is no VecEnv: expected one or more.")
        self.parts = list(parts)
        self._ends = np.cumsum([part.num_envs for part in self.parts])
        first = self.parts[0]
        for number, part in enumerate(self.parts):
            spaces = part.observation_space, part.action_space
            if spaces != (first.observation_space, first.action_space):
                raise InputError(
                    f"The spaces of part {number} are {spaces[0]} and {spaces[1]}, those of part 0 are "
                    f"{first.observation_space} and {first.action_space}: expected the same. One-hots of agents "
                    "differ in length: expected ParallelVecEnv(env, agent_ids=False)."
                )
        super().__init__(int(self._ends[-1]), first.observation_space, first.action_space)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Give seeds to the parts at the next reset, each slot the one after that of the slot before."""
        self._seeds = list(super().seed(seed))
        for part, seeds in zip(self.parts, np.split(np.array(self._seeds), self._ends[:-1]), strict=True):
            part.seed(int(seeds[0]))
        return self._seeds

    def reset(self) -> np.ndarray:
        """Start an episode everywhere; returns observations ``[num_envs, ...]``."""
        seen = np.concatenate([part.reset() for part in self.parts])
        self.reset_infos = [info for part in self.parts for info in part.reset_infos]
        return seen

    def step_async(self, actions: np.ndarray) -> None:
        """Take actions ``[num_envs, ...]``; the work is done in `step_wait`."""
        for part, own in zip(self.parts, np.split(actions, self._ends[:-1]), strict=True):
            part.step_async(own)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations ``[num_envs, ...]``, rewards and dones ``[num_envs]``, and infos of all slots."""
        observations, rewards, dones, infos = zip(*(part.step_wait() for part in self.parts), strict=True)
        self.reset_infos = [info for part in self.parts for info in part.reset_infos]
        return (
            np.concatenate(observations),
            np.concatenate(rewards),
            np.concatenate(dones),
            [info for one in infos for info in one],
        )

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of every slot's environment."""
        return self._asked(indices, lambda part, slots: part.get_attr(attr_name, slots))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of every slot's environment."""
        for part, slots in self._by_part(indices):
            part.set_attr(attr_name, value, slots)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of every slot's environment."""
        return self._asked(
            indices,
            lambda part, slots: part.env_method(method_name, *method_args, indices=slots, **method_kwargs),
        )

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether every slot's environment is in such a wrapper."""
        return self._asked(indices, lambda part, slots: part.env_is_wrapped(wrapper_class, slots))

    def get_images(self) -> Sequence[np.ndarray | None]:
        """A picture of every environment of every part."""
        return [image for part in self.parts for image in part.get_images()]

    def close(self) -> None:
        """Close every part."""
        for part in self.parts:
            part.close()

    def _asked(self, indices: VecEnvIndices, ask: Callable[[VecEnv, list[int]], Sequence[Any]]) -> list[Any]:
        """What parts answer for slots, in the order of the slots."""
        return [answer for part, slots in self._by_part(indices) for answer in ask(part, slots)]

    def _by_part(self, indices: VecEnvIndices) -> Iterator[tuple[VecEnv, list[int]]]:
        """Each slot that is meant: its part, and its number there."""
        for slot in self._get_indices(indices):
            number = int(np.searchsorted(self._ends, slot, side="right"))
            yield self.parts[number], [int(slot - (self._ends[number - 1] if number else 0))]
