"""The learners that can be chosen by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from agents.base import MakeAgent
from agents.q_learning import QLearning
from agents.random_search import RandomSearch
from agents.regression_bandit import RegressionBandit
from agents.uniform import Uniform
from dsfp_env.errors import choose


class Entry(NamedTuple):
    """A learner by name."""

    actions: str  # the kind of actions that it takes
    for_budget: Callable[[int], MakeAgent]  # evaluations -> the learner's maker


AGENTS = {
    "q_learning": Entry("levels", lambda budget: partial(QLearning, exploration_steps=max(1, 2 * budget // 3))),
    "regression_bandit": Entry("box", lambda budget: partial(RegressionBandit, warm_up=max(5, budget // 5))),
    "random_search": Entry("levels", lambda budget: RandomSearch),
    "uniform": Entry("box", lambda budget: Uniform),
}


def choose_agent(name: str) -> Entry:
    """A learner by name, or by ``"package.module:Class"`` for one of your own.

    A class of your own is called as ``Class(agent, observation_space, action_space, rng)``. Its attribute
    ``actions`` says which kind of actions it takes: ``"levels"`` (also if there is none) or ``"box"``.

    Raises:
        InputError: If the name is unknown or cannot be imported.
    """
    chosen = choose("agent", name, AGENTS, importable=True)
    if isinstance(chosen, Entry):
        return chosen
    return Entry(getattr(chosen, "actions", "levels"), lambda budget: chosen)
