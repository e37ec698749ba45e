"""A contest: a learner, as a command line says it, learns in an environment that is made for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from agents.base import MultiAgent
from agents.loop import Evaluation, train
from agents.registry import choose_agent, contestant
from dsfp_env.environment.env import LayerPruningEnv


class Contest(NamedTuple):
    """What came of one."""

    env: LayerPruningEnv
    team: MultiAgent
    history: list[Evaluation]


def held_contest(
    text: str,
    env_of: Callable[..., LayerPruningEnv],
    evaluations: int,
    seed: int,
    on_evaluation: Callable[[Evaluation], None] | None = None,
) -> Contest:
    """Let a learner learn.

    Args:
        text: The learner with its options, as for `registry.contestant`.
        env_of: Makes the environment, of ``actions`` and ``credit`` as the learner needs them.
        evaluations: That it has.
        seed: Of all that is drawn.
        on_evaluation: Called after every evaluation; see `loop.train`.

    Raises:
        InputError: If the learner cannot be run in such an environment.
    """
    name, credit, batch = contestant(text)
    entry = choose_agent(name)
    env = env_of(actions=entry.actions, credit=credit)
    team = entry.make(env, seed, evaluations)
    history = train(env, team, evaluations, batch=batch, seed=seed, on_evaluation=on_evaluation)
    return Contest(env, team, history)
