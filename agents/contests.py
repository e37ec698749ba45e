"""A contest: a learner, as a command line says it, learns in an environment that is made for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from agents.base import MultiAgent
from agents.learners.warm_start import WarmStart
from agents.loop import Evaluation, evaluations_per_step, train
from agents.registry import choose_agent, contestant
from dsfp_env.common.errors import InputError
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.evaluation.plans import Plan


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
    first: Sequence[Plan] = (),
) -> Contest:
    """Let a learner learn.

    Args:
        text: The learner with its options, as for `registry.contestant`.
        env_of: Makes the environment, of ``actions`` and ``credit`` as the learner needs them.
        evaluations: That it has.
        seed: Of all that is drawn.
        on_evaluation: Called after every evaluation; see `loop.train`.
        first: Plans that it begins with; see `WarmStart`.

    Raises:
        InputError: If the learner cannot be run in such an environment, or cannot begin with plans.
    """
    name, credit, batch = contestant(text)
    entry = choose_agent(name)
    env = env_of(actions=entry.actions, credit=credit)
    team = begun(entry.make(env, seed, evaluations), env, first, evaluations)
    history = train(env, team, evaluations, batch=batch, seed=seed, on_evaluation=on_evaluation)
    return Contest(env, team, history)


def begun(team: MultiAgent, env: LayerPruningEnv, first: Sequence[Plan], evaluations: int) -> MultiAgent:
    """A team that begins with plans; itself, if there are none.

    Args:
        team: The learners.
        env: In which they learn.
        first: Ratios in percent by agent.
        evaluations: That they have.

    Raises:
        InputError: If they cannot begin with plans, or that takes all evaluations.
    """
    if not first:
        return team
    if len(first) * (each := evaluations_per_step(env)) >= evaluations:
        raise InputError(
            f"There are {evaluations} evaluations, a step takes {each}, and {len(first)} joint action(s) are "
            "given to begin with: expected evaluations for more steps than these."
        )
    return WarmStart(team, env, [env.actions_of(plan) for plan in first])
