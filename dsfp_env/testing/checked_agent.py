"""A learner of which every call is checked: of one layer, of all layers, or one for each layer."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any, Protocol

import numpy as np
import torch

from dsfp_env.common.signatures import misfit
from dsfp_env.common.torch_left_alone import torch_left_alone
from dsfp_env.environment.transitions import JointTransition
from dsfp_env.testing.checked_env import Env
from dsfp_env.testing.checking import CheckError, check_left_alone, difference, global_states, in_words, named

ACT = "act(self, observation, info, *, deterministic=False)"
UPDATE = "update(self, transition)"
ACT_MANY = "act_many(self, observations, infos)"


class CheckedTeam(Protocol):
    """What acts for all agents: `CheckedLearner` of all layers, or `CheckedEach`."""

    who: str  # its name in messages
    source: str  # where its randomness should come from
    hint: str  # for messages about failures
    is_one: bool  # whether it is one learner of all layers
    has_own_loop: bool  # whether it has a method learn, so that update is not called
    has_act_many: bool  # whether it has a method for several actions at once
    alternates: bool  # whether it must learn from each action before the next

    def act(self, observation: Any, info: Any, deterministic: bool) -> Any:
        """A joint action."""

    def act_many(self, observations: list[Any], infos: list[Any]) -> list[Any]:
        """Several, before it learns from any of them."""

    def update(self, transition: Any) -> None:
        """Let it learn."""


class CheckedLearner:
    """A learner of one layer, or of all layers, of which every call is checked.

    Args:
        who: Its name in messages.
        learner: The learner.
        source: Where its randomness should come from, in words.
        hint: For messages about failures.

    Raises:
        CheckError: If ``act`` or ``update`` is missing, or takes other arguments.
    """

    is_one = True

    def __init__(self, who: str, learner: Any, source: str, hint: str = "") -> None:
        self.who, self.learner, self.source, self.hint = who, learner, source, hint
        self.has_own_loop = hasattr(learner, "learn")
        self.has_act_many = hasattr(learner, "act_many")
        self.alternates = bool(getattr(learner, "alternates", False))
        _check_method(who, learner, "act", ACT, (None, {}), hint)
        _check_method(who, learner, "act", ACT, (None, {}), hint, deterministic=True)
        if not self.has_own_loop:
            _check_method(who, learner, "update", UPDATE, (None,), hint)
        if self.has_act_many:
            _check_method(who, learner, "act_many", ACT_MANY, ([], []), hint)

    def act(self, observation: Any, info: Any, deterministic: bool) -> Any:
        """An action, or a joint action."""
        return self._call("act", {"observation": observation, "info": info}, deterministic=deterministic)

    def act_many(self, observations: list[Any], infos: list[Any]) -> list[Any]:
        """An action, or a joint action, for each of the observations."""
        if not self.has_act_many:
            return [self.act(seen, info, False) for seen, info in zip(observations, infos, strict=True)]
        actions = self._call("act_many", {"observations": observations, "infos": infos})
        if not isinstance(actions, Sequence) or len(actions) != len(observations):
            raise CheckError(
                f"{self.who}.act_many returned {in_words(actions)}: expected a list of {len(observations)}, one "
                f"for each of the observations{self.hint}."
            )
        return list(actions)

    def update(self, transition: Any) -> None:
        """Let it learn, unless it has a loop of its own."""
        if self.has_own_loop:
            return
        report = self._call("update", {"transition": transition})
        is_named = isinstance(report, Mapping) and all(isinstance(name, str) for name in report)
        if report is not None and not (is_named and all(isinstance(value, Real) for value in report.values())):
            raise CheckError(
                f"{self.who}.update returned {in_words(report)}: expected None, or numbers by name, as in "
                "{'td_error': 0.5}; convert them with float(...)."
            )

    def _call(self, name: str, given: dict[str, Any], **kwargs: Any) -> Any:
        """Call a method, which may not raise, change what it is given, or use global random generators."""
        where, method, then = f"{self.who}.{name}", getattr(self.learner, name), copy.deepcopy(given)
        before = global_states()
        try:
            returned = method(*given.values(), **kwargs)
        except Exception as error:
            raise CheckError(
                f"{where} raised {named(error)}: expected no exception{self.hint}; see the traceback of it."
            ) from error
        if not self.has_own_loop:  # otherwise made by another library, whose randomness is its own affair
            check_left_alone(before, where, self.source)
        for argument in given:
            if found := difference(then[argument], given[argument], argument):
                raise CheckError(f"{where} changed its argument: {found}: expected no change; copy it first.")
        return returned


class CheckedEach:
    """A checked learner of one layer for every agent.

    Args:
        make_agent: ``(agent, observation_space, action_space, rng)`` -> a learner.
        env: Gives the agents and their spaces.
        seed: Of the generators, one each.

    Raises:
        CheckError: If a learner cannot be made, or as `CheckedLearner` does.
    """

    is_one, has_own_loop, hint, source = False, False, "", "the rng that __init__ was given"

    def __init__(self, make_agent: Callable[..., Any], env: Env, seed: int) -> None:
        self.who = name_of(make_agent)
        seeds = np.random.SeedSequence(seed).spawn(len(env.possible_agents))
        self.learners = {}
        for agent, child in zip(env.possible_agents, seeds, strict=True):
            given = {
                "agent": agent,
                "observation_space": env.observation_space(agent),
                "action_space": env.action_space(agent),
                "rng": np.random.default_rng(child),
            }
            learner = _made(make_agent, given, self.source)
            self.learners[agent] = CheckedLearner(f"{self.who} of {agent}", learner, self.source)
        self.has_act_many = any(learner.has_act_many for learner in self.learners.values())
        self.alternates = any(learner.alternates for learner in self.learners.values())

    def act(self, observation: Any, info: Any, deterministic: bool) -> dict[str, Any]:
        """A joint action, each on its own observation and info."""
        return {
            agent: self.learners[agent].act(seen, info[agent], deterministic)
            for agent, seen in observation.items()
        }

    def act_many(self, observations: list[Any], infos: list[Any]) -> list[Any]:
        """Joint actions, each learner's all in its turn."""
        by_agent = {
            agent: self.learners[agent].act_many(
                [seen[agent] for seen in observations], [one[agent] for one in infos]
            )
            for agent in observations[0]
        }
        return [{agent: actions[i] for agent, actions in by_agent.items()} for i in range(len(observations))]

    def update(self, transition: JointTransition) -> None:
        """Let each learn from its own part."""
        for agent in transition.actions:
            self.learners[agent].update(transition.of(agent))


def make_team(make: Callable[..., Any], env: Env, seed: int) -> CheckedLearner:
    """A learner of all layers, made by ``make(env, seed)``.

    Raises:
        CheckError: If it cannot be made, or as `CheckedLearner` does.
    """
    source = "np.random.default_rng(seed), made in __init__"
    return CheckedLearner(name_of(make), _made(make, {"env": env, "seed": seed}, source), source)


def name_of(make: Callable[..., Any]) -> str:
    """The name of a class, a function, or one whose arguments are partly given."""
    return getattr(getattr(make, "func", make), "__name__", type(make).__name__)


def _made(make: Callable[..., Any], given: dict[str, Any], source: str) -> Any:
    """Make a learner; its constructor has the same duties as its methods."""
    name, expected = name_of(make), f"expected a constructor that takes ({', '.join(given)})"
    if found := misfit(make, *given.values()):
        raise CheckError(
            f"{name}{found}: {expected}; give options defaults, and mark a learner of all layers, made from (env, "
            "seed), by a class attribute team = True."
        )
    with torch_left_alone():  # as where learners are made to be trained
        mark = (torch.initial_seed() + 1) % 2**63
        torch.default_generator.manual_seed(mark)
        before = global_states()
        learner = _called(make, given, expected)
        if torch.initial_seed() != mark:  # it was seeded anew, so what was drawn since is the learner's own
            before["torch"] = global_states()["torch"]
        if not hasattr(learner, "learn"):  # otherwise made by another library, as above
            check_left_alone(before, f"The constructor of {name}", source)
    return learner


def _called(make: Callable[..., Any], given: dict[str, Any], expected: str) -> Any:
    name = name_of(make)
    try:
        return make(*given.values())
    except Exception as error:
        raise CheckError(
            f"{name} could not be made, {named(error)}: {expected} without an exception; if it takes other "
            "actions, say so by a class attribute actions = 'levels' or 'box'."
        ) from error


def _check_method(
    who: str, learner: Any, name: str, expected: str, given: tuple[Any, ...], hint: str, **kwargs: Any
) -> None:
    method = getattr(learner, name, None)
    if not callable(method):
        raise CheckError(f"{who} has no method {name}: expected {expected}{hint}; add it.")
    if found := misfit(method, *given, **kwargs):
        raise CheckError(f"{who}.{name}{found}: expected {expected}{hint}; change its arguments.")
