"""Independent learners: one for each agent, none of which knows of the others."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition, MakeAgent
from agents.masking import infos_in_turn
from agents.verbs import check_env, check_learner, reported
from dsfp_env.common.errors import InputError, shortened
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
        _check_maker(make_agent)
        check_env(env)
        *seeds, order_seed = np.random.SeedSequence(seed).spawn(len(env.possible_agents) + 1)
        self._env, self._order_rng = env, np.random.default_rng(order_seed)
        with torch_left_alone():
            self.learners = {
                agent: make_agent(
                    agent, env.observation_space(agent), env.action_space(agent), np.random.default_rng(child)
                )
                for agent, child in zip(env.possible_agents, seeds, strict=True)
            }
        for agent, learner in self.learners.items():
            check_learner(agent, learner)

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """Let every learner act on its own observation."""
        agents = list(observations) if deterministic else self._order(observations, infos)
        chosen: dict[str, Any] = {}
        for agent in agents:
            info = infos_in_turn(self._env, infos, agent, chosen)
            chosen[agent] = self.learners[agent].act(observations[agent], info, deterministic=deterministic)
        return {agent: chosen[agent] for agent in observations}

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Let every learner act on its own observations, all of them in its turn; one order is drawn for all."""
        chosen: list[dict[str, Any]] = [{} for _ in observations]
        for agent in self._order(observations[0], infos[0]):
            own = [
                infos_in_turn(self._env, all_infos, agent, others)
                for all_infos, others in zip(infos, chosen, strict=True)
            ]
            actions = _act_many(self.learners[agent], [seen[agent] for seen in observations], own)
            for joint, action in zip(chosen, actions, strict=True):
                joint[agent] = action
        return [{agent: joint[agent] for agent in observations[0]} for joint in chosen]

    @property
    def alternates(self) -> bool:
        """Whether a learner must learn from each action before the next."""
        return any(getattr(learner, "alternates", False) for learner in self.learners.values())

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Let every learner learn from its own part; what they report comes back as ``agent/name``."""
        reports = {agent: self.learners[agent].update(transition.of(agent)) for agent in transition.actions}
        return {f"{agent}/{k}": v for agent, report in reports.items() for k, v in reported(agent, report).items()}

    def _order(self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]]) -> list[str]:
        """Who chooses first; only where there are masks it matters."""
        agents = list(observations)
        if any("action_mask" in infos[agent] for agent in agents):
            return [agents[i] for i in self._order_rng.permutation(len(agents))]
        return agents


def _act_many(learner: Any, observations: Sequence[Any], infos: Sequence[dict[str, Any]]) -> list[Any]:
    """An action for each observation, before the learner learns from any of them."""
    if not hasattr(learner, "act_many"):
        return [learner.act(seen, info) for seen, info in zip(observations, infos, strict=True)]
    actions = list(learner.act_many(observations, infos))
    if len(actions) != len(observations):
        raise InputError(
            f"act_many of {type(learner).__name__} chose {len(actions)} action(s) where {len(observations)} were "
            "asked for: expected one for each of the observations."
        )
    return actions


def _check_maker(make_agent: Any) -> None:
    """Refuse what makes no learner of one layer, as far as its signature tells."""
    called = "(agent, observation_space, action_space, rng)"
    if not callable(make_agent):
        raise InputError(
            f"The maker of learners is {shortened(make_agent)}: expected a class or function that is called as "
            f"make_agent{called}, such as agents.QLearning."
        )
    try:
        inspect.signature(make_agent, follow_wrapped=False).bind(*range(4))
    except ValueError:  # it tells nothing
        return
    except TypeError as error:
        name = getattr(make_agent, "__name__", str(make_agent))
        raise InputError(
            f"{name} cannot be called as {name}{called} ({error}): expected a learner of one layer. One of the "
            f"whole team needs no Independent: {name}(env, seed)."
        ) from error
