"""Whether a learner keeps the protocol of `agents.base`: it is run on environments, again and again from one seed.

The first run is as in training. In the second the global random generators are in other states, and in the third
deterministic actions are asked for in between: in all three the learner should explore in the same way. Then it
chooses several joint actions at a time, in two runs that should be alike, and, if it has a method for that, one at
a time by that method, which should be as the first run.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from gymnasium.spaces import Discrete
from pettingzoo import ParallelEnv

from dsfp_env.common.errors import InputError
from dsfp_env.common.signatures import BUDGET, is_for_team, takes_budget
from dsfp_env.environment.lanes import Lane
from dsfp_env.environment.transitions import JointTransition
from dsfp_env.testing.checked_agent import ACT, UPDATE, CheckedEach, CheckedLearner, CheckedTeam, make_team
from dsfp_env.testing.checked_env import Env
from dsfp_env.testing.checking import (
    CheckError,
    difference,
    in_words,
    join,
    misfit,
    named,
    other_global_randomness,
)
from dsfp_env.testing.env_rules import budget_of
from dsfp_env.toy import ToyEnv

TOY_BUDGET = 0.4  # relative MACs: an agent may choose about half of its levels
BATCH = 4  # joint actions at a time
ROUNDING = 1e-9  # of relative MACs
AN_OBJECT = " (an object is taken for a team: pass the class, if this is a learner of one layer)"


class _Run(NamedTuple):
    """What a team did, exploring."""

    actions: list[dict[str, Any]]
    masked: str | None  # a sentence about the first action that a mask forbids


def check_agent(
    agent: Any,
    *,
    actions: str | None = None,
    env: Env | None = None,
    seed: int = 0,
    steps: int = 30,
    masks: bool | None = None,
) -> None:
    """Run a learner, and raise an error at the first breach of the protocol.

    The constructor, ``act`` and ``update`` take the agreed arguments, and do not change them (keeping them is
    fine). Actions lie in their spaces, one for every agent. ``update`` returns None, or numbers by name.
    Deterministic actions can be repeated, and leave no trace in how the learner explores. Equal seeds give equal
    actions, one at a time and four at a time, and global random generators are left alone; but the constructor may
    seed torch, with ``torch.manual_seed(int(rng.integers(2**63)))`` or with the ``seed`` of a team: wherever
    learners are made that leaves no trace. What is drawn from torch later comes from a ``torch.Generator`` of its
    own, or is drawn under ``torch.random.fork_rng()``. Whether it learns anything is not looked at.

    It runs on `ToyEnv`: with episodes of one step, of three, and, if actions are levels, with a budget of MACs,
    where ``info["action_mask"]`` tells which levels may be chosen.

    Args:
        agent: A class (or function) that makes a learner of one layer from ``(agent, observation_space,
            action_space, rng)``; or, if that is what it takes or it has an attribute ``team = True``, one of all
            layers from ``(env, seed)``; a parameter ``evaluations`` gets the number of steps. Or a team that is
            there already, of which copies are run, without a budget. Of a team that has a loop of its own,
            ``learn``, only actions are looked at.
        actions: ``"levels"`` or ``"box"``; unless given, its attribute ``actions``, or else ``"levels"``.
        env: To run on instead of toys: what a team was made for, or an environment with other observations. It
            takes up to ``6 * steps`` steps. One that cannot be copied takes one joint action at a time only.
        seed: Of the learners, and of the environment.
        steps: Of each run; more than a learner's warm-up.
        masks: What follows if it explores a masked level. True: an error. False: nothing. None: a UserWarning,
            since a learner need not respect masks, though whoever does keeps the budget from the first step on.
            Together, a team may choose masked levels if the budget is kept.

    Raises:
        CheckError: At a breach of the protocol.
        InputError: If ``env`` is no parallel environment or came with ``actions``, or ``actions`` are unknown.

    Warns:
        UserWarning: If masks are not respected, as above; if it cannot be pickled, so that it can neither be saved
            nor sent to another process; or if a team cannot be copied, so that equal runs are not compared.
    """
    if env is not None and (actions is not None or not isinstance(env, ParallelEnv)):
        raise InputError(f"env is {in_words(env)} and actions {actions!r}: expected a ParallelEnv, or actions.")
    is_object = not inspect.isclass(agent) and hasattr(agent, "act")
    is_repeatable = not is_object or _warned_unless(copy.deepcopy, agent, "copied, so equal runs are not compared")
    make = _maker(agent, is_object, is_repeatable, steps)
    kind = actions or str(getattr(agent, "actions", "levels"))
    envs = [env] if env is not None else _toys(kind, with_budget=masks is not False and not is_object)
    if is_repeatable:
        _warned_unless(pickle.dumps, make(envs[0], seed), "pickled, so it can neither be saved nor sent elsewhere")
    for one in envs:
        masked = _check_on(one, make, seed, steps, is_repeatable)
        if masked and masks:
            raise CheckError(masked)
        if masked and masks is None:
            warnings.warn(f"{masked} (masks=True makes this an error, masks=False nothing.)", stacklevel=2)


def _maker(agent: Any, is_object: bool, is_copyable: bool, steps: int) -> Callable[[Env, int], CheckedTeam]:
    """(env, seed) -> a team of which every call is checked."""
    if is_object:

        def copied(env: Env, seed: int) -> CheckedLearner:
            team = copy.deepcopy(agent) if is_copyable else agent
            return CheckedLearner(type(agent).__name__, team, "what it was seeded with", AN_OBJECT)

        return copied
    if not callable(agent):
        raise CheckError(
            f"check_agent got {in_words(agent)}: expected a class with {ACT} and {UPDATE}, a function that makes "
            "such objects, or a team; pass the class itself."
        )
    made = partial(agent, **{BUDGET: steps}) if takes_budget(agent) else agent
    return partial(make_team if is_for_team(agent) else CheckedEach, made)


def _warned_unless(works: Callable[[Any], Any], agent: Any, what: str) -> bool:
    """Whether something can be done with a learner; warns if not."""
    try:
        works(agent)
    except Exception as error:
        warnings.warn(
            f"The learner cannot be {what} because of {named(error)}: expected no generators, lambdas or "
            "open files in it; keep what they are made from.",
            stacklevel=3,
        )
        return False
    return True


def _toys(actions: str, with_budget: bool) -> list[Env]:
    toys = [ToyEnv(actions, horizon=1), ToyEnv(actions, horizon=3)]
    return [*toys, ToyEnv(actions, macs_budget=TOY_BUDGET)] if with_budget and actions == "levels" else toys


def _check_on(
    env: Env, make: Callable[[Env, int], CheckedTeam], seed: int, steps: int, is_repeatable: bool
) -> str | None:
    """Three runs on one environment; returns a sentence about the first action that a mask forbids."""
    team = make(env, seed)
    run = _run(team, env, seed, steps)
    with other_global_randomness():
        again = _run(make(env, seed), env, seed, steps)
    asked = _run(make(env, seed), env, seed, steps, ask=True)
    if not is_repeatable or team.has_own_loop:
        return run.masked
    if found := difference(run.actions, again.actions, "actions"):
        raise CheckError(
            f"{team.who}: {found} in a second run from the same seed: expected equal actions; draw all that is "
            f"random from {team.source}, and use no clock."
        )
    if found := difference(run.actions, asked.actions, "actions"):
        raise CheckError(
            f"{team.who}: {found} in a run where deterministic actions were asked for in between: expected no "
            "trace of them; draw and count nothing in act(..., deterministic=True)."
        )
    if not team.alternates and _can_be_copied(env):
        _check_batches(make, env, seed, steps, run.actions)
    return run.masked


def _can_be_copied(env: Env) -> bool:
    try:
        Lane(env).reset()
    except InputError:
        return False
    return True


def _check_batches(
    make: Callable[[Env, int], CheckedTeam], env: Env, seed: int, steps: int, one_by_one: list[dict[str, Any]]
) -> None:
    """Two runs with several joint actions at a time, and, if that is another method, one with one at a time."""
    team = make(env, seed)
    try:
        actions = _run_in_batches(team, env, seed, steps, BATCH)
        with other_global_randomness():
            again = _run_in_batches(make(env, seed), env, seed, steps, BATCH)
        if found := difference(actions, again, "actions"):
            raise CheckError(
                f"{team.who}: {found} in a second run from the same seed: expected equal actions; draw all that "
                f"is random from {team.source}."
            )
    except CheckError as error:
        raise CheckError(
            f"{error} (That was with {BATCH} joint actions at a time, all chosen before it learns from the first; "
            "a learner that cannot do so says alternates = True.)"
        ) from error
    if not team.has_act_many:
        return
    if found := difference(one_by_one, _run_in_batches(make(env, seed), env, seed, steps, 1), "actions"):
        raise CheckError(
            f"{team.who}: {found} with act_many in the place of act: expected that act_many of one does the same."
        )


def _run_in_batches(team: CheckedTeam, env: Env, seed: int, steps: int, batch: int) -> list[dict[str, Any]]:
    """Let a team explore and learn, several joint actions at a time; returns them all."""
    explored: list[dict[str, Any]] = []
    lanes, seen = [Lane(env) for _ in range(batch)], dict[int, tuple[Any, Any]]()
    while count := min(batch, steps - len(explored)):
        for number, lane in enumerate(lanes[:count]):
            if number not in seen or not lane.agents:
                seen[number] = lane.reset(seed=None if seen else seed)
        chosen = team.act_many(*([seen[number][place] for number in range(count)] for place in (0, 1)))
        for number, actions in enumerate(chosen):
            _check_actions(team, lanes[number], actions, f"{team.who}, asked for {count} at a time,")
            explored.append(copy.deepcopy(actions))
            observations, (after, rewards, *ends, infos) = (
                seen[number][0],
                lanes[number].step(copy.deepcopy(actions)),
            )
            team.update(JointTransition._make([observations, actions, rewards, after, *ends, infos]))
            seen[number] = after, infos
    return explored


def _run(team: CheckedTeam, env: Env, seed: int, steps: int, ask: bool = False) -> _Run:
    """Let a team explore and learn; if asked, with two deterministic actions before every step."""
    explored: list[dict[str, Any]] = []
    returned: list[dict[str, Any]] = []
    masked = None
    observations, infos = env.reset(seed=seed)
    for _ in range(steps):
        if not env.agents:
            observations, infos = env.reset()
        if ask:
            _check_deterministic(team, env, observations, infos)
        actions = _act(team, env, observations, infos, deterministic=False)
        returned.append(actions)
        explored.append(copy.deepcopy(actions))
        next_observations, rewards, *ends, next_infos = env.step(copy.deepcopy(actions))
        masked = masked or _breach_of_masks(team, env, actions, infos, next_infos)
        lived = [observations, actions, rewards, next_observations, *ends, next_infos]
        team.update(JointTransition._make(lived))
        observations, infos = next_observations, next_infos
    if found := difference(explored, returned, "actions"):
        raise CheckError(
            f"{team.who}: {found} after it had been returned: expected that actions stay; return a copy of an "
            "array that is changed later."
        )
    return _Run(explored, masked)


def _act(team: CheckedTeam, env: Env, observations: Any, infos: Any, deterministic: bool) -> dict[str, Any]:
    """A joint action, one for every agent, each in its space."""
    actions = team.act(observations, infos, deterministic)
    where = f"{team.who}.act(..., deterministic={deterministic})"
    _check_actions(team, env, actions, where)
    return actions


def _check_actions(team: CheckedTeam, env: Env, actions: Any, where: str) -> None:
    """Refuse what is no joint action with one for every agent, each in its space."""
    keys = list(actions) if isinstance(actions, Mapping) else []
    missing, unknown = [a for a in env.agents if a not in keys], [key for key in keys if key not in env.agents]
    if missing or unknown:
        raise CheckError(
            f"{where} returned {in_words(actions)}, with {join(missing)} missing and {join(unknown)} unknown: "
            f"expected a dictionary with an action for each of {join(env.agents)}{team.hint}; go by the keys of "
            "observations."
        )
    for agent, action in actions.items():
        if found := misfit(env.action_space(agent), action):
            raise CheckError(f"{where}: the action of {agent} {found} (env.action_space({agent!r})).")


def _check_deterministic(team: CheckedTeam, env: Env, observations: Any, infos: Any) -> None:
    first = copy.deepcopy(_act(team, env, observations, infos, deterministic=True))
    second = _act(team, env, observations, infos, deterministic=True)
    if found := difference(first, second, "actions"):
        raise CheckError(
            f"{team.who}.act(..., deterministic=True): {found} for the same observation: expected the same; draw "
            "and count nothing there."
        )


def _breach_of_masks(team: CheckedTeam, env: Env, actions: Any, infos: Any, next_infos: Any) -> str | None:
    """A sentence about an action that a mask forbids; of one learner for all, only beyond the budget."""
    if team.is_one:
        budget = budget_of(env)
        if budget is None or max(info.get(budget[0], 0) for info in next_infos.values()) <= budget[1] + ROUNDING:
            return None
    for agent, action in actions.items():
        space, mask = env.action_space(agent), infos[agent].get("action_mask")
        if mask is not None and isinstance(space, Discrete) and not mask[action - space.start]:
            return (
                f"{team.who} chose the level {action} for {agent}, whose info['action_mask'] is {mask.tolist()}: "
                "expected a level with a 1, since the others may be beyond the budget of MACs; choose as in "
                "rng.choice(np.flatnonzero(info['action_mask']))."
            )
    return None
