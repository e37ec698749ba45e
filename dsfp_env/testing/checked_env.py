"""An environment of which all that a reset or a step tells is checked, rule by rule (`env_rules`)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from gymnasium.spaces import Space
from pettingzoo import ParallelEnv

from dsfp_env.testing import env_rules as rules
from dsfp_env.testing.checking import (
    CheckError,
    check_left_alone,
    difference,
    global_states,
    in_words,
    misfit,
    named,
)

Env: TypeAlias = "ParallelEnv[Any, Any, Any]"


def agents_of(env: Env) -> list[Any]:
    """The possible agents of an environment."""
    agents = getattr(env, "possible_agents", None)
    if not isinstance(agents, list) or not agents or len(set(agents)) < len(agents):
        raise CheckError(
            f"env.possible_agents is {in_words(agents)}: expected a list of names, each of them once; set it in "
            "__init__."
        )
    return list(agents)


def space_of(env: Env, name: str, agent: Any) -> Space[Any]:
    """The space of an agent, by the name of the method that gives it."""
    space = call(f"{name}({agent!r})", getattr(env, name), agent)
    if not isinstance(space, Space):
        raise CheckError(
            f"{name}({agent!r}) returned {in_words(space)}: expected a space; make one of gymnasium.spaces."
        )
    return space


def call(where: str, method: Callable[..., Any], *args: Any, passing: Any = (), **kwargs: Any) -> Any:
    """Call a method of the environment; it may not raise, nor use global random generators."""
    before = global_states()
    try:
        returned = method(*args, **kwargs)
    except passing:
        raise
    except Exception as error:
        raise CheckError(
            f"{where} raised {named(error)}: expected no exception; see the traceback of it."
        ) from error
    check_left_alone(before, where, "self._rng = np.random.default_rng(seed), made in reset,")
    return returned


class Told(NamedTuple):
    """What an environment tells in a reset or a step; dictionaries by agent."""

    agents: list[Any]  # that go on
    observations: dict[Any, Any]
    rewards: dict[Any, Any]  # of a reset: empty, and so are terminations and truncations
    terminations: dict[Any, bool]
    truncations: dict[Any, bool]
    infos: dict[Any, dict[str, Any]]
    state: Any  # None if there is no state_space


class CheckedEnv:
    """An environment of which all that a reset or a step tells is checked.

    Args:
        env: The environment.
        may_truncate: See `check_env`.
    """

    def __init__(self, env: Env, may_truncate: bool) -> None:
        self.env, self._may_truncate = env, may_truncate
        self._agents = agents_of(env)
        self._observation_spaces = {agent: space_of(env, "observation_space", agent) for agent in self._agents}
        self.action_spaces = {agent: space_of(env, "action_space", agent) for agent in self._agents}
        self._lent: list[tuple[str, Told, Told]] = []  # where, what was told, and a copy of how it was then

    def reset(self, where: str, seed: int | None) -> Told:
        """Start an episode."""
        returned = call(where, self.env.reset, seed=seed, options=None)
        _check_dictionaries(where, returned, "observations, infos")
        agents = self.live(where)
        if not agents or not set(agents) <= set(self._agents):
            raise CheckError(
                f"{where} left env.agents = {in_words(agents)}: expected some of env.possible_agents; set "
                "self.agents = list(self.possible_agents)."
            )
        self._lent = []
        observations, infos = returned
        told = Told(agents, observations, {}, {}, {}, infos, self.state(where))
        return self._check(where, agents, told, most_evaluations=0)

    def step(self, where: str, actions: dict[Any, Any], passing: type[Exception] | tuple[()] = ()) -> Told:
        """Take a joint action; exceptions of the type ``passing`` are passed on."""
        acted, given = self.live(where), copy.deepcopy(actions)
        returned = call(where, self.env.step, given, passing=passing)
        _check_dictionaries(where, returned, "observations, rewards, terminations, truncations, infos")
        if found := difference(actions, given, "actions"):
            raise CheckError(f"{where} changed its argument: {found}: expected no change; copy actions first.")
        told = Told._make([self.live(where), *returned, self.state(where)])
        for name in ("rewards", "terminations", "truncations"):
            rules.check_keys(where, name, getattr(told, name), acted)
        for agent in acted:
            space = self.env.reward_space(agent) if hasattr(self.env, "reward_space") else None
            rules.check_reward(where, agent, told.rewards[agent], space)
            ends = told.terminations[agent], told.truncations[agent]
            rules.check_end(where, agent, *ends, self._may_truncate)
        if getattr(self.env, "credit", None) == "shared":
            rules.check_equal_rewards(where, told.rewards)
        return self._check(where, acted, told, most_evaluations=getattr(self.env, "evaluations_per_step", 1))

    def live(self, where: str) -> list[Any]:
        """The agents whose episode goes on."""
        agents = getattr(self.env, "agents", None)
        if not isinstance(agents, list):
            raise CheckError(
                f"{where}: env.agents is {in_words(agents)}: expected a list; set self.agents in reset."
            )
        return list(agents)

    def state(self, where: str) -> Any:
        """The state, if there is a state_space."""
        space = getattr(self.env, "state_space", None)
        if space is None:
            return None
        what = f"state() after {where}"
        state = call(what, self.env.state)
        if found := misfit(space, state):
            raise CheckError(f"{what} {found} (env.state_space).")
        rules.check_not_all_zero(what, state)
        return copy.deepcopy(state)

    def check_lent(self, where: str) -> None:
        """See whether anything that was told in this episode has changed since."""
        for since, lent, then in self._lent:
            if found := difference(then, lent, ""):
                raise CheckError(
                    f"By {where}, what {since} returned has changed: {found}: expected that it stays, since "
                    "learners keep it; return new arrays and dictionaries each time."
                )

    def _check(self, where: str, acted: list[Any], told: Told, most_evaluations: int) -> Told:
        """Check what resets and steps have in common; returns a copy."""
        first, before = (self._lent[0][1], self._lent[-1][1]) if self._lent else (told, None)
        for name in ("observations", "infos"):
            rules.check_keys(where, name, getattr(told, name), acted)
        for agent in acted:
            self._check_spaces(where, agent)
            space, info = self._observation_spaces[agent], told.infos[agent]
            rules.check_observation(where, agent, told.observations[agent], space)
            if before is not None:
                seen = before.observations[agent], told.observations[agent]
                rules.check_new_memory(where, agent, *seen)
            rules.check_info(where, agent, info, self.action_spaces[agent])
            rules.check_info_keys(where, agent, info, first.infos[agent])
        ended = [agent for agent in told.rewards if told.terminations[agent] or told.truncations[agent]]
        rules.check_agents(where, told.agents, acted, ended)
        rules.check_evaluations(where, told.infos, min(1, most_evaluations), most_evaluations)
        self._lent.append((where, told, copy.deepcopy(told)))
        return self._lent[-1][-1]

    def _check_spaces(self, where: str, agent: Any) -> None:
        known = {"observation_space": self._observation_spaces, "action_space": self.action_spaces}
        for name, spaces in known.items():
            if getattr(self.env, name)(agent) is not spaces[agent]:
                raise CheckError(
                    f"{name}({agent!r}) gave another object after {where} than before: expected the same one each "
                    "time, since it has the random generator of sample(); make spaces in __init__ and keep them."
                )
        if agents_of(self.env) != self._agents:
            raise CheckError(
                f"{where} changed env.possible_agents from {self._agents} to {agents_of(self.env)}: expected that "
                "they stay; let self.agents be a list of its own, list(self.possible_agents)."
            )


def _check_dictionaries(where: str, returned: Any, names: str) -> None:
    kinds = [type(part) for part in returned] if isinstance(returned, tuple) else []
    if kinds != [dict] * len(names.split()):
        raise CheckError(f"{where} returned {in_words(returned)}: expected dictionaries by agent, return {names}.")
