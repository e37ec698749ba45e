"""Whether a parallel environment keeps the rules that learners rely on: episodes are played, and played again.

The rules are PettingZoo's and Gymnasium's, and some that other libraries rely on without saying so. PettingZoo's
own tests let many mistakes pass. Here every reset and every step is looked at (`checked_env`), and episodes are
played again: by a second environment with the same seed, by a copy, and after actions that had to be refused.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Discrete, Space
from pettingzoo import AECEnv, ParallelEnv

from dsfp_env.common.errors import InputError
from dsfp_env.testing import env_rules as rules
from dsfp_env.testing.checked_env import CheckedEnv, Env, Told, agents_of, call
from dsfp_env.testing.checking import CheckError, difference, in_words, named, other_global_randomness

LONGEST_EPISODE = 1000  # steps
BAD_NAMES = {
    "max_cycles": "PettingZoo's parallel_api_test overwrites it, and episodes then have another length",
    "compute_reward": "Stable-Baselines3 takes what has it for a goal-conditioned environment",
}
FROM_SEED = (
    "a second environment with the same seed and actions: expected the same; use no clock, no global random "
    "generator, and none that reset(seed=...) does not make anew."
)
ALIKE = (
    "a pickled copy: expected the same; inherit from gymnasium.utils.EzPickle, and give all arguments of __init__ "
    "to EzPickle.__init__."
)
UNCHANGED = (
    "the same episode after a refused action: expected the same; check all actions before anything is changed."
)


class _Call(NamedTuple):
    """A reset with its seed, or a step with its actions, and what it told."""

    where: str
    seed: int | None
    actions: dict[Any, Any]  # none: a reset
    told: Told


def check_env(
    make_env: Callable[[], Env] | Env, *, episodes: int = 3, seed: int = 0, may_truncate: bool = False
) -> None:
    """Play some random episodes, and raise an error at the first rule that is broken.

    The rules concern names (of agents and attributes), spaces, the types and values of all that ``reset``,
    ``step`` and ``state`` return, who is in it, the end of episodes, action masks, counts of evaluations, shared
    rewards, and pickling; and that an action outside its space is clipped, or refused by a ValueError that names
    the agent, that nothing but the seed matters, and that global random generators are left alone.

    **Cost.** With episodes of h steps: ``(2 * episodes + 2) * h`` steps, and four more where actions are clipped.
    An environment that remembers, as `LayerPruningEnv` does, evaluates h less. What it finds in the outcome store
    is not evaluated at all: only with ``store=False`` is it seen whether evaluations depend on the seed alone.

    Args:
        make_env: Makes an environment; called twice. An environment itself will do: then that is reset with the
            same seed where a second one is needed, and what comes before its first reset is not looked at.
        episodes: Of each of the two environments.
        seed: Of their first reset, and of the random actions.
        may_truncate: Whether a time limit from outside may truncate episodes. Otherwise they should terminate,
            since the task is over.

    Raises:
        CheckError: If a rule is broken.
        InputError: If ``episodes`` is not 1 or more.
    """
    if episodes < 1:
        raise InputError(f"episodes is {episodes}: expected 1 or more.")
    with ExitStack() as stack:
        first, second = _make_two(make_env, stack)
        _check_names(first)
        checked = CheckedEnv(first, may_truncate)
        if first is not second:
            _check_reset_needed(first, "step before the first reset", _sampled(checked.action_spaces))
        calls = _play(checked, episodes, seed)
        with other_global_randomness():
            _replay(CheckedEnv(second, may_truncate), calls, FROM_SEED)
        length = next(number for number, call in enumerate(calls, 1) if not call.told.agents)
        _check_actions_outside(checked, calls[:length])
        _replay(CheckedEnv(_copied(first, stack), may_truncate), calls[:length], ALIKE)


def _make_two(make_env: Any, stack: ExitStack) -> tuple[Env, Env]:
    """Two environments, which are closed with the stack; or twice the same, if it is there already."""
    if isinstance(make_env, (ParallelEnv, AECEnv, gymnasium.Env)) or not callable(make_env):
        _check_kind(make_env, "make_env")
        return make_env, make_env
    envs = []
    for _ in range(2):
        try:
            envs.append(make_env())
        except Exception as error:
            raise CheckError(
                f"make_env() raised {named(error)}: expected an environment; pass a function "
                "without arguments that makes one."
            ) from error
        _check_kind(envs[-1], "make_env()")
        stack.callback(envs[-1].close)
    return envs[0], envs[1]


def _check_kind(env: Any, what: str) -> None:
    if isinstance(env, ParallelEnv):
        return
    advice = "inherit from pettingzoo.ParallelEnv"
    if isinstance(env, AECEnv):
        advice = (
            "this one is turn-based (AEC): check the parallel environment that it is made of, or "
            "pettingzoo.utils.aec_to_parallel(env)"
        )
    elif isinstance(env, (gymnasium.Env, gymnasium.vector.VectorEnv)):
        advice = (
            "this one is Gymnasium's, with one controller: use gymnasium.utils.env_checker.check_env, or check "
            "the parallel environment that it is made of (env.unwrapped.parallel_env of a JointActionEnv)"
        )
    elif isinstance(env, str):
        advice = f"if this is an id, pass lambda: pettingzoo.make('parallel', {env!r})"
    raise CheckError(
        f"{what} is {in_words(env)}: expected a pettingzoo.ParallelEnv, or a function that makes one; {advice}."
    )


def _check_names(env: Env) -> None:
    for name, reason in BAD_NAMES.items():
        if any(hasattr(one, name) for one in (env, env.unwrapped)):
            raise CheckError(
                f"The environment has an attribute {name}: expected another name, as {reason}; rename it."
            )
    for agent in agents_of(env):
        if not isinstance(agent, str) or not re.fullmatch(r".+_\d+", agent):
            raise CheckError(
                f"An agent is named {agent!r}: expected a word and a number, as in conv_0, since TorchRL and "
                "AgileRL group agents by the word; rename it."
            )


def _sampled(spaces: dict[Any, Space[Any]]) -> dict[Any, Any]:
    """An action for every agent; the environment's spaces draw nothing."""
    return {agent: copy.deepcopy(space).sample() for agent, space in spaces.items()}


def _play(checked: CheckedEnv, episodes: int, seed: int) -> list[_Call]:
    """Random episodes, of which only the first reset gets a seed: every reset and step in order."""
    calls: list[_Call] = []
    spaces = copy.deepcopy(checked.action_spaces)
    for index, space in enumerate(spaces.values()):
        space.seed(seed + index)
    for episode in range(1, episodes + 1):
        where = f"reset of episode {episode}"
        first_seed = seed if episode == 1 else None
        told = checked.reset(where, first_seed)
        calls.append(_Call(where, first_seed, {}, told))
        for step in range(1, LONGEST_EPISODE + 1):
            where, infos = f"step {step} of episode {episode}", told.infos
            actions = {agent: _choose(spaces[agent], infos[agent], lowest=step == 1) for agent in told.agents}
            told = checked.step(where, actions)
            calls.append(_Call(where, None, actions, told))
            rules.check_budget(where, infos, told.infos, rules.budget_of(checked.env))
            if not told.agents:
                break
        else:
            raise CheckError(
                f"Episode {episode} has not ended after {LONGEST_EPISODE} steps: expected an end; terminate all "
                "agents when the horizon is reached."
            )
        checked.check_lent(where)
        _check_after_the_end(checked.env, actions)
    return calls


def _replay(checked: CheckedEnv, calls: list[_Call], why: str) -> None:
    """See whether an environment tells again what was told."""
    for where, seed, actions, told in calls:
        again = f"{where}, again,"
        found = difference(told, checked.step(again, actions) if actions else checked.reset(again, seed), "")
        if found:
            raise CheckError(f"{where}: {found} in {why}")


def _choose(space: Space[Any], info: dict[str, Any], lowest: bool) -> Any:
    """A random action that the mask allows, if there is one; the lowest if asked, since it costs most."""
    mask = info.get("action_mask")
    if lowest and mask is not None and isinstance(space, Discrete):
        return space.start + np.flatnonzero(mask)[0]
    return space.sample() if mask is None else space.sample(mask)


def _check_after_the_end(env: Env, actions: dict[Any, Any]) -> None:
    where = "step({}) after the end of an episode"
    returned = call(where, env.step, {})
    if returned != ({}, {}, {}, {}, {}):
        raise CheckError(
            f"{where} returned {in_words(returned)}: expected five empty dictionaries; begin step with "
            "'if not self.agents: return {}, {}, {}, {}, {}'."
        )
    _check_reset_needed(env, "step with actions after the end of an episode", actions)


def _check_reset_needed(env: Env, where: str, actions: dict[Any, Any]) -> None:
    came = "returned"
    try:
        env.step(actions)
    except ResetNeeded:
        return
    except Exception as error:
        came = f"raised {named(error)}"
    raise CheckError(
        f"{where} {came}: expected gymnasium.error.ResetNeeded; raise it, with a sentence that says to call reset."
    )


def _check_actions_outside(checked: CheckedEnv, episode: list[_Call]) -> None:
    """An action outside its space is taken for the nearest inside, or refused and nothing has changed."""
    reset, *steps = episode
    actions = steps[0].actions
    agent = list(actions)[-1]  # the last, so that those before it may have been taken by mistake
    checked.reset(reset.where, reset.seed)
    for outside, nearest in _outside(checked.action_spaces[agent]):
        what = f"step with the action {in_words(outside)} of {agent}, outside {checked.action_spaces[agent]},"
        taken = _refused_or_taken(checked, what, {**actions, agent: outside}, agent)
        if taken is None:
            continue
        checked.reset(reset.where, reset.seed)
        clipped = None if nearest is None else checked.step("step, clipped,", {**actions, agent: nearest})
        if difference(clipped, taken, ""):
            done = "not refused" if nearest is None else f"neither clipped to {in_words(nearest)} nor refused"
            raise CheckError(
                f"{what} was {done}: expected a ValueError that names {agent}; check all actions before anything "
                "is changed."
            )
        checked.reset(reset.where, reset.seed)
    _replay(checked, steps, UNCHANGED)


def _refused_or_taken(checked: CheckedEnv, what: str, actions: dict[Any, Any], agent: Any) -> Told | None:
    """None if a step refuses actions, as it should; else what it told."""
    before = {"env.agents": checked.live(what), "env.state()": checked.state(what)}
    try:
        return checked.step(what, actions, passing=Exception)
    except CheckError:
        raise
    except Exception as error:
        if not isinstance(error, ValueError) or agent not in str(error):
            raise CheckError(
                f"{what} raised {named(error)}: expected that it is clipped, or a ValueError whose message names "
                f"{agent}; check all actions before anything is changed."
            ) from error
    after = {"env.agents": checked.live(what), "env.state()": checked.state(what)}
    for name in before:
        if found := difference(before[name], after[name], name):
            raise CheckError(f"{what} was refused, but {found}: expected no change; check all actions first.")
    return None


def _outside(space: Space[Any]) -> Iterator[tuple[Any, Any]]:
    """Some actions outside a space, and the nearest one inside to each; None if none is nearest."""
    if isinstance(space, Discrete):
        first, last = int(space.start), int(space.start + space.n - 1)
        yield last + 1, last
        yield first - 1, first
    elif isinstance(space, Box) and space.dtype.kind == "f":
        for bound, step in ((space.high, 1), (space.low, -1)):
            if np.isfinite(bound).all():
                yield bound + space.dtype.type(step), bound.copy()
        yield np.full(space.shape, np.nan, space.dtype), None


def _copied(env: Env, stack: ExitStack) -> Env:
    try:
        copied: Env = pickle.loads(pickle.dumps(env))
    except Exception as error:
        raise CheckError(
            f"Pickling the environment raised {named(error)}: expected one that can be copied "
            "into another process; inherit from gymnasium.utils.EzPickle, and let no argument be a lambda."
        ) from error
    stack.callback(copied.close)
    return copied
