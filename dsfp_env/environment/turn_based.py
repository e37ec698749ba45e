"""The environment turn by turn, in PettingZoo's words an AEC environment: agents choose one after another.

A **round** is a turn of every agent, in the order of execution or another. Whoever has the turn sees what those
before it chose and what that leaves of the budget, and has the exact mask; `turns` says how. The last choice of a
round makes the joint action: the parallel environment takes its step, and only then are there rewards and new
infos. With a horizon of more than 1 the next round follows. Equal joint actions have the outcomes that they have
in the parallel environment, to the last bit.

``infos[agent]`` are the parallel environment's, of the last outcome. With levels they always have an
``action_mask``: in the agent's turn the levels that the choices before it leave, until then those at the beginning
of the round. Masks are told, not enforced.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Space
from pettingzoo import AECEnv, ParallelEnv

from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.environment.infos import Infos
from dsfp_env.environment.turns import Turns


class TurnBasedEnv(AECEnv[str, np.ndarray, Any]):
    """Agents that choose one after another; see the top of this file. `dsfp_env.raw_env` makes it.

    Args:
        parallel_env: A `LayerPruningEnv`, wrapped or not.
        order: In which agents choose: ``"execution"``, ``"reverse"``, or all agents, each once.

    Attributes:
        parallel_env: The same.
        order: The agents in the order of their turns.
        features: Names of the entries of an observation; see `turns`.

    Raises:
        InputError: If an argument is not what was expected.
    """

    metadata = LayerPruningEnv.metadata

    def __init__(self, parallel_env: ParallelEnv[str, Any, Any], order: str | Iterable[str] = "execution") -> None:
        super().__init__()
        self.parallel_env: Any = parallel_env
        self._turns = Turns(parallel_env, order)
        self.order, self.features = self._turns.order, self._turns.features
        self.render_mode = self.parallel_env.render_mode
        self.possible_agents = list(parallel_env.possible_agents)
        self.agents: list[str] = []
        self._observation_spaces = dict.fromkeys(self.possible_agents, self._turns.space)
        self.state_space = self._turns.state_space(self.parallel_env.state_space)
        self._was_reset = False

    def observation_space(self, agent: str) -> Box:
        """What this agent sees lies in this space, ``Box(0, 1, (m + 3 * agents + 2,))``; see `turns`."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        """As in the parallel environment."""
        return self.parallel_env.action_space(agent)

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start an episode; see `LayerPruningEnv.reset`."""
        observations, infos = self.parallel_env.reset(seed=seed, options=options)
        self.agents, self._was_reset = list(self.order), True
        self.rewards: dict[str, float] = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards: dict[str, float] = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._begin(observations, infos)

    def step(self, action: Any) -> None:
        """The agent whose turn it is chooses; after the end of an episode the only choice is None.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset, and after the end of an episode.
            InputError: If the action is not in its space; nothing has changed then.
        """
        if not self.agents:
            when = "after the end of an episode" if self._was_reset else "before reset"
            raise ResetNeeded(f"step was called {when}: call env.reset(seed=...) first.")
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
        elif self._turns.is_last:
            told = self.parallel_env.step(self._turns.with_last(action))
            self._cumulative_rewards[agent] = 0.0
            observations, *by_agent, infos = told
            self.rewards, self.terminations, self.truncations = map(dict, by_agent)
            self._accumulate_rewards()
            self._begin(observations, infos)
        else:
            self._turns.choose(action)
            self._cumulative_rewards[agent] = 0.0
            self.rewards = dict.fromkeys(self.agents, 0.0)
            self._give_turn()

    def observe(self, agent: str) -> np.ndarray:
        """What an agent sees now, in its turn or not: ``[m + 3 * agents + 2]`` float32 in [0, 1]."""
        return self._turns.seen(agent)

    def state(self) -> np.ndarray:
        """The parallel environment's, followed by what was chosen, whose turn it is, and what that can cost."""
        return self._turns.state(self.parallel_env.state())

    def render(self) -> Any:
        """As the parallel environment does, of the last outcome."""
        return self.parallel_env.render()

    def close(self) -> None:
        """Close the parallel environment."""
        self.parallel_env.close()

    def _begin(self, observations: dict[str, np.ndarray], infos: Infos) -> None:
        """A round, or, if that is over, what is left of the episode: dead agents that step, in the same order."""
        self.infos = {agent: dict(info) for agent, info in infos.items()}
        self._turns.begin(observations, infos, over=not self.parallel_env.agents)
        if self._turns.levels:
            for agent in self.agents:
                self.infos[agent]["action_mask"] = self._turns.mask(agent)
        self.agent_selection = self.agents[0]

    def _give_turn(self) -> None:
        assert self._turns.agent is not None
        self.agent_selection = self._turns.agent
        if self._turns.levels:
            mask = self._turns.mask(self._turns.agent)
            self.infos[self._turns.agent] = {**self.infos[self._turns.agent], "action_mask": mask}
