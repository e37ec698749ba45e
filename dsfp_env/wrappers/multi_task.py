"""Several networks as one environment: every episode is played on one of them.

Networks differ in how many layers they have, and an episode has the agents of its own network only, as PettingZoo
allows: ``possible_agents`` are those of all networks, ``agents`` those of the present one. Spaces are the same in
every network, so that one policy can act in all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from pettingzoo import ParallelEnv

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.environment.infos import Infos


class MultiTaskEnv(ParallelEnv[str, np.ndarray, Any]):
    """Parallel environments of several networks; see the top of this file.

    Attributes:
        envs: Name -> environment.
        task: The name of the network that is played on.

    Args:
        envs: Likewise; one or more, whose agents have the same spaces.
        seed: Draws the networks of episodes, until ``reset`` gives another.

    Raises:
        InputError: If there are none, or their spaces differ.
    """

    def __init__(self, envs: Mapping[str, ParallelEnv[str, Any, Any]], seed: int | None = None) -> None:
        if not envs:
            raise InputError("There are no environments: expected one or more, by name.")
        self.envs, self._rng = dict(envs), np.random.default_rng(seed)
        self._tasks, self.task = list(self.envs), next(iter(self.envs))
        self.metadata = {**self.now.metadata, "name": "layer_pruning_multi_task_v0"}
        self.render_mode = getattr(self.now, "render_mode", None)
        self.possible_agents = list(dict.fromkeys(a for env in self.envs.values() for a in env.possible_agents))
        self._of = {a: next(e for e in self.envs.values() if a in e.possible_agents) for a in self.possible_agents}
        for kind in ("observation", "action"):
            self._check_spaces(kind)

    @property
    def now(self) -> Any:
        """The environment of the network that is played on."""
        return self.envs[self.task]

    @property
    def agents(self) -> list[str]:
        """The live agents: layers of the present network only."""
        return list(self.now.agents)

    @property
    def evaluations_per_step(self) -> int:
        """The most that a step of any network asks for."""
        return max(int(getattr(env, "evaluations_per_step", 1)) for env in self.envs.values())

    def observation_space(self, agent: str) -> Space[Any]:
        """What this agent sees lies in this space (the same object each time)."""
        return self._of[agent].observation_space(agent)

    def action_space(self, agent: str) -> Space[Any]:
        """What this agent does lies in this space (the same object each time)."""
        return self._of[agent].action_space(agent)

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Infos]:
        """Start an episode on a network: one that is drawn, unless it is told.

        Args:
            seed: Of which networks are drawn, and of the evaluations from now on.
            options: ``{"task": name}`` says the network; others are for its environment.

        Returns:
            Observations and infos by agent; ``infos[agent]["task"]`` is the name of the network.

        Raises:
            InputError: If there is no such network.
        """
        if options is not None and not isinstance(options, Mapping):
            raise InputError(
                f"The options are {shortened(options)}: expected a dict, such as {{'task': 'digits'}}."
            )
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        told, drawn = dict(options or {}), self._tasks[self._rng.integers(len(self._tasks))]
        task = told.pop("task", drawn)
        choose("network", task, self.envs)
        self.task = task
        if seed is None:
            seed = int(self._rng.integers(2**31))
        observations, infos = self.now.reset(seed=seed, options=told or None)
        return observations, self._told(infos)

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, bool], dict[str, bool], Infos]:
        """Prune the present network by a joint action; see `LayerPruningEnv.step`."""
        *what, infos = self.now.step(actions)
        return *what, self._told(infos)

    def state(self) -> np.ndarray:
        """The state of the present network; its length grows with the number of layers."""
        state: np.ndarray = self.now.state()
        return state

    def render(self) -> Any:
        """The present network, as its environment shows it."""
        return self.now.render()

    def close(self) -> None:
        """Close all environments."""
        for env in self.envs.values():
            env.close()

    def _told(self, infos: Infos) -> Infos:
        return {agent: {**info, "task": self.task} for agent, info in infos.items()}

    def _check_spaces(self, kind: str) -> None:
        """Refuse networks whose agents do not see, or do, the same."""
        first, expected = self.possible_agents[0], getattr(self, f"{kind}_space")(self.possible_agents[0])
        for name, env in self.envs.items():
            for agent in env.possible_agents:
                if (space := getattr(env, f"{kind}_space")(agent)) != expected:
                    raise InputError(
                        f"The {kind} space of {agent} in {name!r} is {space}, that of {first} in "
                        f"{self._tasks[0]!r} is {expected}: expected one for all networks. With actions='box' "
                        "they have one, whatever their levels."
                    )
