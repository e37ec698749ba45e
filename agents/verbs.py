"""Whether objects of the user's own have the verbs of a learner: if not, a sentence before anything is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.signatures import misfit

ONE = ("act(self, observation, info, *, deterministic=False)", "update(self, transition)")
ALL = ("act(self, observations, infos, *, deterministic=False)", "update(self, transition)")


def check_learner(agent: str, learner: Any) -> None:
    """Refuse what cannot learn for one layer.

    Raises:
        InputError: If it is a class, or a method is missing or takes other arguments.
    """
    if isinstance(learner, type) or learner is None:
        what = "None" if learner is None else f"the class {learner.__name__}"
        raise InputError(f"make_agent gave {what} for {agent}: expected an object with {' and '.join(ONE)}.")
    _check_verbs(f"The learner of {agent}", learner, ONE)


def check_team(team: Any, learns: bool) -> None:
    """Refuse what cannot act for all agents, such as the class of a learner in its place.

    Args:
        team: What came.
        learns: Whether it must be able to learn; one with a loop of its own, ``learn``, is.

    Raises:
        InputError: If it is none.
    """
    if isinstance(team, type) or not hasattr(team, "act"):
        if hasattr(team, "possible_agents"):
            raise InputError("The team is an environment: expected the environment first, then the team.")
        what = f"the class {team.__name__}" if isinstance(team, type) else shortened(team)
        raise InputError(
            f"The team is {what}: expected learners of all agents, such as agents.Independent(agents.QLearning, "
            "env, seed=0)."
        )
    _check_verbs("The team", team, ALL if learns and not hasattr(team, "learn") else ALL[:1])


def check_env(env: Any) -> None:
    """Refuse what is no environment, such as the name of a task.

    Raises:
        InputError: If it has no agents.
    """
    if not hasattr(env, "possible_agents"):
        raise InputError(
            f"The environment is {shortened(env)}: expected one, such as dsfp_env.parallel_env(task='digits')."
        )


def joint_actions_of(team: Any, seen: Sequence[tuple[Any, Any]]) -> list[dict[str, Any]]:
    """A joint action for each pair of observations and infos, all before the team learns from any of them."""
    if len(seen) < 2 or not hasattr(team, "act_many"):
        return [team.act(observations, infos) for observations, infos in seen]
    chosen = list(team.act_many(*map(list, zip(*seen, strict=True))))
    if len(chosen) != len(seen):
        raise InputError(
            f"act_many of {type(team).__name__} chose {len(chosen)} joint action(s) where {len(seen)} were asked "
            "for: expected one for each of the observations."
        )
    return chosen


def reported(agent: str, report: Any) -> Mapping[str, float]:
    """What a learner's ``update`` returned: numbers by name, or nothing.

    Raises:
        InputError: If it is something else.
    """
    if report is None or isinstance(report, Mapping):
        return report or {}
    raise InputError(
        f"The learner of {agent} returned {shortened(report)} from update: expected nothing, or numbers by name, "
        "as in {'td_error': 0.5}."
    )


def _check_verbs(who: str, learner: Any, expected: tuple[str, ...]) -> None:
    who = f"{who} is a {type(learner).__name__}"
    given: dict[str, tuple[Any, ...]] = {"act": (None, {}), "update": (None,)}
    for verb in expected:
        name = verb.partition("(")[0]
        method = getattr(learner, name, None)
        if not callable(method):
            raise InputError(f"{who}, which has no method {name}: expected {verb}.")
        options = {"deterministic": True} if name == "act" else {}
        if found := misfit(method, *given[name], **options):
            raise InputError(f"{who}, whose {name}{found}: expected {verb}.")
