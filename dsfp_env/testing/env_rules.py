"""The rules for what a reset or a step of a parallel environment tells, each a function that raises a sentence.

`where` is the call that told it, as in "step 2 of episode 1".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Space

from dsfp_env.testing.checking import CheckError, in_words, join, misfit, type_of

ROUNDING = 1e-9  # of relative MACs

Infos = Mapping[Any, Mapping[str, Any]]


def check_keys(where: str, name: str, told: Iterable[Any], acted: list[Any]) -> None:
    """A dictionary has the agents that acted, and no other key."""
    keys = list(told)
    missing, unknown = [a for a in acted if a not in keys], [key for key in keys if key not in acted]
    if missing or unknown:
        raise CheckError(
            f"{where}: in {name}, {join(missing)} missing and {join(unknown)} unknown: expected the agents that "
            f"were live before, {join(acted)}, and no other key; tell every agent what concerns the team."
        )


def check_observation(where: str, agent: Any, observation: Any, space: Space[Any]) -> None:
    """An observation lies in its space, and is not all zeros."""
    what = f"{where}: the observation of {agent}"
    if found := misfit(space, observation):
        raise CheckError(f"{what} {found} (env.observation_space({agent!r})).")
    check_not_all_zero(what, observation)


def check_new_memory(where: str, agent: Any, before: Any, observation: Any) -> None:
    """An observation is an array of its own."""
    arrays = isinstance(observation, np.ndarray) and isinstance(before, np.ndarray)
    if arrays and np.shares_memory(observation, before):
        raise CheckError(
            f"{where}: the observation of {agent} shares memory with the one before: expected a new array each "
            "time, since learners keep them; return a copy."
        )


def check_not_all_zero(what: str, value: Any) -> None:
    """An observation or a state has some number that is not 0."""
    if isinstance(value, np.ndarray) and not value.any():
        raise CheckError(
            f"{what} is all zeros, as if it were forgotten, and PettingZoo's tests warn of it: expected some "
            "number that is not; add one, such as the agent's place."
        )


def check_reward(where: str, agent: Any, reward: Any, space: Space[Any] | None) -> None:
    """A reward is a finite Python number; or an element of its `reward_space`, if there is one, as in MOMAland."""
    what = f"{where}: the reward of {agent}"
    if space is not None:
        if found := misfit(space, reward):
            raise CheckError(f"{what} {found} (env.reward_space({agent!r})).")
    elif type(reward) not in (float, int):
        raise CheckError(
            f"{what} is {in_words(reward)}, of type {type_of(reward)}: expected a Python float, which other "
            "libraries ask for; convert it with float(...)."
        )
    elif not math.isfinite(reward):
        raise CheckError(
            f"{what} is {reward}: expected a finite number; find the division or logarithm that made it."
        )


def check_end(where: str, agent: Any, terminated: Any, truncated: Any, may_truncate: bool) -> None:
    """Whether an agent's episode has ended is told by Python's True and False, and it ends by termination."""
    for name, flag in (("terminations", terminated), ("truncations", truncated)):
        if type(flag) is not bool:
            raise CheckError(
                f"{where}: {name}[{agent!r}] is {in_words(flag)}, of type {type_of(flag)}: expected "
                "Python's True or False; convert it with bool(...)."
            )
    if truncated and not may_truncate:
        raise CheckError(
            f"{where} truncated {agent} (terminated: {terminated}): expected termination, as at the end of an "
            "episode the task is over; return terminations before truncations, or pass may_truncate=True if a "
            "time limit from outside ends episodes."
        )


def check_agents(where: str, left: list[Any], acted: list[Any], ended: list[Any]) -> None:
    """Those whose episode has ended are no longer in `env.agents`."""
    going_on = [agent for agent in acted if agent not in ended]
    if left != going_on:
        raise CheckError(
            f"{where} left env.agents = {in_words(left)}, and ended {join(ended)}: expected {in_words(going_on)}; "
            "take agents that were terminated or truncated out of self.agents."
        )


def check_info(where: str, agent: Any, info: Any, action_space: Space[Any]) -> None:
    """An info is a dictionary of finite numbers and arrays."""
    if not isinstance(info, dict):
        raise CheckError(
            f"{where}: infos[{agent!r}] is {in_words(info)}: expected a dictionary; an empty one will do."
        )
    for key, value in info.items():
        if not _is_plain(value):
            raise CheckError(
                f"{where}: infos[{agent!r}][{key!r}] is {in_words(value)}, of type {type_of(value)}: "
                "expected a finite Python number, or an array of them; convert it with float(...) or int(...)."
            )
    if "action_mask" in info:
        _check_mask(where, agent, info["action_mask"], action_space)


def check_info_keys(where: str, agent: Any, keys: Iterable[str], of_reset: Iterable[str]) -> None:
    """The infos of steps have the keys of those of the reset."""
    if set(keys) != set(of_reset):
        raise CheckError(
            f"{where}: infos[{agent!r}] has the keys {join(sorted(keys))}, and in reset it had "
            f"{join(sorted(of_reset))}: expected the same ones, since TorchRL carries only those of reset; let "
            "reset tell how things are before the first step."
        )


def check_evaluations(where: str, infos: Infos, fewest: int, most: int) -> None:
    """Infos count evaluations, if they do, within limits, and all agents' say the same."""
    expected = str(most) if fewest == most else f"from {fewest} to {most}"
    counts = {agent: info["evaluations"] for agent, info in infos.items() if "evaluations" in info}
    for agent, count in counts.items():
        if not fewest <= count <= most or count != next(iter(counts.values())):
            raise CheckError(
                f"{where}: infos[{agent!r}]['evaluations'] is {count}: expected {expected}, the same for all "
                "agents, since budgets are counted by it; tell 0 in reset, and in step from 1 to "
                "env.evaluations_per_step."
            )


def budget_of(env: Any) -> tuple[str, float] | None:
    """The key of infos that tells what is used of an environment's budget, and what is allowed."""
    if (macs := getattr(env, "macs_budget", None)) is not None:
        return "relative_macs", macs
    budget = getattr(env, "budget", None)
    return None if budget is None else (f"relative_{budget.of}", env.allowed)


def check_budget(where: str, before: Infos, after: Infos, budget: tuple[str, float] | None) -> None:
    """Actions that every mask allows keep the budget, if there is one."""
    if budget is None or not all("action_mask" in info for info in before.values()):
        return
    key, allowed = budget
    for agent, info in after.items():
        if info.get(key, 0) > allowed + ROUNDING:
            name = "macs_budget" if key == "relative_macs" else "allowed"
            raise CheckError(
                f"{where}: infos[{agent!r}][{key!r}] is {info[key]:.4f}, and env.{name} "
                f"is {allowed}, though every action_mask allowed the action: expected masks under which all joint "
                "actions keep the budget; draw them with dsfp_env.environment.masks.BudgetMasks."
            )


def check_equal_rewards(where: str, rewards: Mapping[Any, Any]) -> None:
    """All agents have the same reward, where credit is shared."""
    if len({in_words(reward) for reward in rewards.values()}) > 1:
        raise CheckError(
            f"{where}: rewards are {in_words(rewards)}, and env.credit is 'shared': expected equal rewards; give "
            "all agents the change in score."
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf" and bool(np.isfinite(value).all())
    return type(value) in (int, float, bool) and math.isfinite(value)


def _check_mask(where: str, agent: Any, mask: Any, space: Space[Any]) -> None:
    """A mask is an array of int8 that the space takes, with at least one 1."""
    fits = isinstance(mask, np.ndarray) and mask.dtype == np.int8 and bool(mask.any())
    if fits:
        try:
            copy.deepcopy(space).sample(mask)
        except Exception:  # of any type: the spaces assert
            fits = False
    if not fits:
        raise CheckError(
            f"{where}: the action_mask of {agent} is {in_words(mask)}: expected an int8 array that "
            f"{space}.sample(mask) takes, 1 for every action that may be chosen, at least one; make it with "
            "np.array([...], np.int8)."
        )
