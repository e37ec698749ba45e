"""Independent learners: one for each agent, none of which knows of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition, MakeAgent
from agents.masking import infos_in_turn
from dsfp_env.common.torch_left_alone import torch_left_alone


class Independent:
    """A `MultiAgent` made of one `Agent` per agent of the environment.

    Where a budget masks levels, the learners choose in turn, in an order drawn for every step, and each has the
    mask that the choices before its own leave; so learners that respect it stay within the budget.

    Args:
        make_agent: Called as ``make_agent(agent, observation_space, action_space, rng)`` for every agent; a
            class with such a constructor will do. It may seed torch there, which leaves no trace.
        env: Gives the agents and their spaces.
        seed: Of the learners' random generators, one each.
    """

    def __init__(self, make_agent: MakeAgent, env: ParallelEnv[str, Any, Any], seed: int | None = None) -> None:
        *seeds, order_seed = np.random.SeedSequence(seed).spawn(len(env.possible_agents) + 1)
        self._env, self._order_rng = env, np.random.default_rng(order_seed)
        with torch_left_alone():
            self.learners = {
                agent: make_agent(
                    agent, env.observation_space(agent), env.action_space(agent), np.random.default_rng(child)
                )
                for agent, child in zip(env.possible_agents, seeds, strict=True)
            }

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """Let every learner act on its own observation."""
        agents = list(observations)
        if not deterministic and any("action_mask" in infos[agent] for agent in agents):
            agents = [agents[i] for i in self._order_rng.permutation(len(agents))]
        chosen: dict[str, Any] = {}
        for agent in agents:
            info = infos_in_turn(self._env, infos, agent, chosen)
            chosen[agent] = self.learners[agent].act(observations[agent], info, deterministic=deterministic)
        return {agent: chosen[agent] for agent in observations}

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Let every learner learn from its own part; what they report comes back as ``agent/name``."""
        reports = {agent: self.learners[agent].update(transition.of(agent)) for agent in transition.actions}
        return {f"{agent}/{k}": v for agent, report in reports.items() for k, v in (report or {}).items()}
