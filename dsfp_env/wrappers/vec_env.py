"""Parameter sharing: every agent of every environment is one slot of a Stable-Baselines3 ``VecEnv``.

To Stable-Baselines3 the agents look like environments of their own, so one policy acts for all of them and learns
from all of them (Gupta, Egorov and Kochenderfer 2017). K environments with n agents have K * n slots: first the
agents of the first environment, then those of the second. An agent's number is part of what it sees, so that the
one policy can do different things for different agents.

**Count evaluations, not timesteps.** One step of this `VecEnv` is one joint action, so one evaluation, for each
environment; Stable-Baselines3 counts it as K * n timesteps, so ``learn(total_timesteps=N)`` is N / n evaluations,
up to the end of the last rollout. PPO's default ``n_steps=2048`` is 2048 evaluations of every environment before
the first update; 8 or 16 will do.

    evaluator = dsfp_env.Evaluator(dsfp_env.load_task("digits"))
    envs = [dsfp_env.parallel_env(evaluator=evaluator) for _ in range(4)]
    model = PPO("MlpPolicy", ParallelVecEnv(envs), n_steps=8, batch_size=32, seed=0).learn(1600)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Discrete
from pettingzoo import ParallelEnv
from pettingzoo.utils import BaseParallelWrapper
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from dsfp_env.common.errors import InputError
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.wrappers.slot_spaces import action_spaces, centred, restored, stackable, the_space, with_one_hot
from dsfp_env.wrappers.together import check_one_evaluator, evaluate_ahead

Env: TypeAlias = ParallelEnv[str, Any, Any]


class ParallelVecEnv(VecEnv):
    """PettingZoo parallel environments whose agents share one policy; see the top of this file.

    - **Observations** ``[K * n, ...]`` are the agents' own, followed by a one-hot of the agent's number.
    - **Actions** of a Box are in [-1, 1], -1 its low and 1 its high end. (Policies that draw around 0, as
      Stable-Baselines3's do, would play the bound of a Box(10, 90) for ever.) Others are as they are; of agents
      with fewer actions than others, the last stands for those that they lack, which are masked.
    - **Episodes**: all agents of an environment end together, and the next episode starts within the same step.
      Infos are the last ones of the episode, with ``terminal_observation`` and ``TimeLimit.truncated``; those of
      the reset are in ``reset_infos``.
    - **Seeds**: ``seed(s)`` gives s + k to the k-th environment at the next `reset`, and later resets give none.
      Learners with a seed call it.
    - **Masks**: where infos have an ``action_mask``, ``sb3_contrib.MaskablePPO`` respects it. All agents choose at
      once, and masks of a budget are for that (see `dsfp_env.environment.masks`), so it is never exceeded.

    If all environments are `LayerPruningEnv`, and not in wrappers, their joint actions are evaluated at once, as
    `step_together` does.

    Attributes:
        envs: The environments.
        possible_agents: The agents of each; that of slot i is ``possible_agents[i % len(possible_agents)]``.

    Args:
        envs: One environment, or several with the same agents and spaces. Those that are `LayerPruningEnv` have
            one evaluator.
        agent_ids: Whether observations have the one-hot. Without it, agents that see the same do the same.
        workers: As in `Evaluator.evaluate_many`.

    Raises:
        InputError: If the environments are not as described, or their spaces cannot be used.
    """

    def __init__(self, envs: Env | Sequence[Env], agent_ids: bool = True, workers: int | None = None) -> None:
        self.envs = _checked_envs(list(envs) if isinstance(envs, Sequence) else [envs])
        self.possible_agents = list(self.envs[0].possible_agents)
        self._num_agents, self._workers = len(self.possible_agents), workers
        self._pruning_envs = [env for env in self.envs if isinstance(env, LayerPruningEnv)]
        observations = the_space("observation", self.envs)
        self._action_spaces = action_spaces(self.envs)
        self._one_hot = np.eye(self._num_agents, dtype=observations.dtype) if agent_ids else None
        super().__init__(
            len(self.envs) * self._num_agents,
            with_one_hot(observations, self._num_agents) if agent_ids else stackable(observations),
            centred(self._action_spaces),
        )
        self.metadata = getattr(self.envs[0], "metadata", self.metadata)
        self._actions = np.empty(0)  # of the step that was begun
        self._sizes = [int(getattr(space, "n", 0)) for space in self._action_spaces]  # of levels
        own = np.arange(max(self._sizes)) < np.array(self._sizes)[:, None]  # [agents, levels]
        self._masks = np.tile(own, (len(self.envs), 1))

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Give seeds to the environments at the next reset, s + k to the k-th.

        Args:
            seed: s; drawn from NumPy's global generator if None, as everywhere in Stable-Baselines3.

        Returns:
            The seed of every slot's environment.
        """
        consecutive = super().seed(seed)
        self._seeds = [consecutive[self._env_of(slot)] for slot in range(self.num_envs)]
        return self._seeds

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """Give options to the environments at the next reset.

        Args:
            options: One for all, or one for every slot; an environment gets that of its first slot.

        Raises:
            InputError: If there are more or fewer.
        """
        if isinstance(options, list) and len(options) != self.num_envs:
            raise InputError(f"{len(options)} options came for {self.num_envs} slots: expected one for each.")
        super().set_options(options)

    def reset(self) -> np.ndarray:
        """Start an episode in every environment.

        Returns:
            Observations ``[num_envs, ...]``.

        Raises:
            InputError: If an agent is missing from the start of an episode.
        """
        firsts = range(0, self.num_envs, self._num_agents)
        starts = [
            self._start(number, seed=self._seeds[first], options=self._options[first] or None)
            for number, first in enumerate(firsts)
        ]
        self._reset_seeds()
        self._reset_options()
        return np.concatenate(starts)

    def step_async(self, actions: np.ndarray) -> None:
        """Take actions ``[num_envs, ...]``; the work is done in `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step every environment by its joint action, and start the next episode where one is over.

        Returns:
            Observations ``[num_envs, ...]``, rewards ``[num_envs]`` float32, dones ``[num_envs]`` bool, and infos,
            one for each slot.

        Raises:
            InputError: If an action cannot be used, or some agents of an environment end while others go on.
        """
        joint_actions = self.by_agent(self._actions)
        if len(self._pruning_envs) == len(self.envs):
            evaluate_ahead(self._pruning_envs, joint_actions, self._workers)
        steps = [env.step(joint) for env, joint in zip(self.envs, joint_actions, strict=True)]
        parts = [self._part(number, *step) for number, step in enumerate(steps)]
        observations, rewards, dones, infos = zip(*parts, strict=True)
        return (
            np.concatenate(observations),
            np.concatenate(rewards),
            np.concatenate(dones),
            list(chain.from_iterable(infos)),
        )

    def by_agent(self, actions: np.ndarray) -> list[dict[str, Any]]:
        """The joint action of each environment that actions ``[num_envs, ...]`` mean.

        Raises:
            InputError: If there are more or fewer actions.
        """
        if len(actions) != self.num_envs:
            raise InputError(f"{len(actions)} actions came for {self.num_envs} slots: expected one for each.")
        given = np.asarray(actions)
        by_env = given.reshape(len(self.envs), self._num_agents, *given.shape[1:])
        joints = restored(by_env, self._action_spaces)
        return [dict(zip(self.possible_agents, joint, strict=True)) for joint in joints]

    def seen(self, observations: Mapping[str, Any]) -> np.ndarray:
        """Observations ``[n, ...]`` of the agents of an environment."""
        own = np.stack([observations[agent] for agent in self.possible_agents])
        seen = own if self._one_hot is None else np.concatenate([own, self._one_hot], axis=1)
        return seen.astype(self.observation_space.dtype, copy=False)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of every slot's environment; ``action_masks`` is a function that gives the slot's mask."""
        slots = self._get_indices(indices)
        if self._is_action_masks(attr_name):
            return [partial(self._action_mask, slot) for slot in slots]
        return [getattr(self.envs[self._env_of(slot)], attr_name) for slot in slots]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of every slot's environment."""
        for slot in self._get_indices(indices):
            setattr(self.envs[self._env_of(slot)], attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of every slot's environment, once for each environment.

        Returns:
            What it gave, for each slot. ``action_masks``, of which there is one for each slot, gives masks ``[n]``
            bool.
        """
        slots = list(self._get_indices(indices))
        if self._is_action_masks(method_name):
            return [self._action_mask(slot) for slot in slots]
        numbers = [self._env_of(slot) for slot in slots]
        answers = {
            number: getattr(self.envs[number], method_name)(*method_args, **method_kwargs)
            for number in dict.fromkeys(numbers)
        }
        return [answers[number] for number in numbers]

    def env_is_wrapped(self, wrapper_class: type[Any], indices: VecEnvIndices = None) -> list[bool]:
        """Whether every slot's environment is in such a wrapper of PettingZoo's kind."""
        return [_is_wrapped(self.envs[self._env_of(slot)], wrapper_class) for slot in self._get_indices(indices)]

    def get_images(self) -> list[np.ndarray | None]:
        """A picture of every environment, not of every slot; None unless the render mode is ``"rgb_array"``.

        Where an episode has just ended it shows the start of the next, as always in Stable-Baselines3.
        """
        return [env.render() if self.render_mode == "rgb_array" else None for env in self.envs]

    def close(self) -> None:
        """Close every environment."""
        for env in self.envs:
            env.close()

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        for env in self._pruning_envs:  # some have made a copy of the one evaluator
            env.evaluator = self._pruning_envs[0].evaluator

    def _env_of(self, slot: int) -> int:
        return slot // self._num_agents

    def _is_action_masks(self, name: str) -> bool:
        return name == "action_masks" and isinstance(self.action_space, Discrete)

    def _action_mask(self, slot: int) -> np.ndarray:
        return self._masks[slot].copy()

    def _start(self, number: int, **how: Any) -> np.ndarray:
        """Reset an environment; returns what its slots see."""
        observations, infos = self.envs[number].reset(**how)
        if missing := [agent for agent in self.possible_agents if agent not in observations]:
            raise InputError(
                f"The episode of environment {number} starts without {', '.join(missing)}: expected all of its "
                f"possible agents, {', '.join(self.possible_agents)}."
            )
        first = number * self._num_agents
        self.reset_infos[first : first + self._num_agents] = self._in_order(infos)
        self._take_masks(number, infos)
        return self.seen(observations)

    def _part(
        self,
        number: int,
        observations: Mapping[str, Any],
        rewards: Mapping[str, float],
        terminations: Mapping[str, bool],
        truncations: Mapping[str, bool],
        infos: Mapping[str, dict[str, Any]],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """What the slots of an environment get from its step."""
        over = self._is_over(number, terminations, truncations)
        seen, told = self.seen(observations), self._in_order(infos)
        for agent, info in zip(self.possible_agents, told, strict=True):
            info["TimeLimit.truncated"] = bool(truncations[agent] and not terminations[agent])
        if over:
            for info, terminal_observation in zip(told, seen, strict=True):
                info["terminal_observation"] = terminal_observation
            seen = self._start(number)
        else:
            self._take_masks(number, infos)
        earned = np.array([rewards[agent] for agent in self.possible_agents], np.float32)
        return seen, earned, np.full(self._num_agents, over), told

    def _is_over(self, number: int, terminations: Mapping[str, bool], truncations: Mapping[str, bool]) -> bool:
        """Whether the episode is; an agent of which nothing is heard has ended."""
        ended = [a for a in self.possible_agents if terminations.get(a, True) or truncations.get(a, True)]
        if 0 < len(ended) < self._num_agents:
            raise InputError(
                f"In environment {number}, {', '.join(ended)} ended while other agents go on: expected all agents "
                "to end together. Wrap the environment so that they do."
            )
        return bool(ended)

    def _in_order(self, infos: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """Copies of the infos of the agents of an environment."""
        return [deepcopy(infos.get(agent, {})) for agent in self.possible_agents]

    def _take_masks(self, number: int, infos: Mapping[str, dict[str, Any]]) -> None:
        """Remember which actions the agents of an environment may choose next; all, if it does not say."""
        if isinstance(self.action_space, Discrete):
            for slot, agent in enumerate(self.possible_agents, start=number * self._num_agents):
                own = self._sizes[slot % self._num_agents]
                self._masks[slot, :own] = infos.get(agent, {}).get("action_mask", True)


def _checked_envs(envs: list[Env]) -> list[Env]:
    """The environments, if they are as expected of them."""
    if strange := [env for env in envs if not isinstance(env, ParallelEnv)]:
        raise InputError(
            f"The environment {strange[0]!r} is none of PettingZoo's parallel kind: expected one, or several, as "
            "dsfp_env.parallel_env(...) makes them."
        )
    if not envs or len({id(env) for env in envs}) < len(envs):
        raise InputError(
            f"{len(envs)} environments came, {len({id(env) for env in envs})} of them different: expected one or "
            "more, each made anew."
        )
    agents = list(envs[0].possible_agents)
    for number, env in enumerate(envs):
        if list(env.possible_agents) != agents:
            raise InputError(
                f"Environment {number} has the agents {', '.join(env.possible_agents)}, environment 0 has "
                f"{', '.join(agents)}: expected the same agents in all."
            )
    check_one_evaluator(env for env in envs if isinstance(env, LayerPruningEnv))
    return envs


def _is_wrapped(env: Env, wrapper_class: type[Any]) -> bool:
    while isinstance(env, BaseParallelWrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False
