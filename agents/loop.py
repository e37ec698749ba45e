"""The loop: act, step, update, until the budget of evaluations is spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pettingzoo import ParallelEnv

from agents.base import JointTransition, MultiAgent
from agents.callbacks import Follower
from dsfp_env.common.errors import InputError
from dsfp_env.environment.transitions import score_of


class Evaluation(NamedTuple):
    """One joint action and what came of it."""

    number: int  # of evaluations spent until then, its own included
    actions: dict[str, Any]  # by agent
    rewards: dict[str, float]  # by agent
    infos: dict[str, dict[str, Any]]  # by agent

    @property
    def ratios(self) -> dict[str, float]:
        """The joint action in percent by agent."""
        return {agent: info["ratio"] for agent, info in self.infos.items()}

    @property
    def score(self) -> float:
        """What the joint action is worth: the score that the environment tells, else the mean reward."""
        return score_of(self.infos, self.rewards)


def train(
    env: ParallelEnv[str, Any, Any],
    team: MultiAgent,
    evaluations: int,
    *,
    seed: int | None = None,
    on_evaluation: Callable[[Evaluation], None] | None = None,
    callbacks: Iterable[Follower] = (),
) -> list[Evaluation]:
    """Let a team learn, episode after episode.

    Args:
        env: The environment. Each of its steps is one evaluation, or more: `LayerPruningEnv.evaluations_per_step`.
        team: The learners. One with a loop of its own has a method ``learn``, which takes what follows here, but
            for callbacks.
        evaluations: That may be spent; never more are.
        seed: For the first reset of the environment.
        on_evaluation: Called after every step, when the team has learned from it.
        callbacks: That follow the run, see `agents.Callback`; they are told of an evaluation after
            ``on_evaluation``.

    Returns:
        Every joint action that was evaluated, in order.

    Raises:
        InputError: If the budget is not enough for one step.
    """
    followers = tuple(callbacks)
    result: dict[str, Any] | None = None
    for follower in followers:
        follower.on_start({"evaluations": evaluations, "seed": seed, "agents": list(env.possible_agents)})

    def tell(evaluation: Evaluation, learned: Mapping[str, float] | None = None) -> None:
        if on_evaluation is not None:
            on_evaluation(evaluation)
        for follower in followers:
            follower.on_evaluation(evaluation, learned)

    try:
        history = _learn(env, team, evaluations, seed, tell)
        if followers:
            highest = best(history)
            result = {"evaluations": history[-1].number, "actions": highest.actions, "reward": highest.score}
    finally:
        for follower in followers:
            follower.on_end(result)
    return history


def _learn(
    env: ParallelEnv[str, Any, Any],
    team: MultiAgent,
    evaluations: int,
    seed: int | None,
    tell: Callable[..., None],
) -> list[Evaluation]:
    """Let a team learn; everything that it comes to is told, with what it says of its learning."""
    if hasattr(team, "learn"):
        learned: list[Evaluation] = team.learn(env, evaluations, seed=seed, on_evaluation=tell)
        return learned
    check_budget(env, evaluations)
    history: list[Evaluation] = []
    spent = 0
    observations, infos = env.reset(seed=seed)
    while spent + evaluations_per_step(env) <= evaluations:
        if not env.agents:
            observations, infos = env.reset()
        actions = team.act(observations, infos)
        next_observations, rewards, terminations, truncations, infos = env.step(actions)
        report = team.update(
            JointTransition(observations, actions, rewards, next_observations, terminations, truncations, infos)
        )
        observations = next_observations
        spent += evaluations_of(infos)
        history.append(Evaluation(spent, actions, rewards, infos))
        tell(history[-1], report)
    return history


def play(env: ParallelEnv[str, Any, Any], team: MultiAgent) -> Evaluation:
    """One episode of the team's best, without exploring or learning; returns its last joint action."""
    observations, infos = env.reset()
    spent = 0
    while env.agents:
        actions = team.act(observations, infos, deterministic=True)
        observations, rewards, _, _, infos = env.step(actions)
        spent += evaluations_of(infos)
    return Evaluation(spent, actions, rewards, infos)


def check_budget(env: ParallelEnv[str, Any, Any], evaluations: int) -> None:
    """Refuse a budget that is not enough for one step.

    Raises:
        InputError: If it is not.
    """
    if evaluations < evaluations_per_step(env):
        raise InputError(
            f"The budget is {evaluations} evaluation(s), and one step can take {evaluations_per_step(env)}: "
            "expected at least as many."
        )


def evaluations_per_step(env: ParallelEnv[str, Any, Any]) -> int:
    """The largest number of evaluations that a step asks for; 1 for environments that do not tell."""
    return int(getattr(env, "evaluations_per_step", 1))


def evaluations_of(infos: Mapping[str, dict[str, Any]]) -> int:
    """The evaluations that a step has asked for, from its infos; 1 for environments that do not tell."""
    return int(next(iter(infos.values())).get("evaluations", 1))


def best(history: list[Evaluation]) -> Evaluation:
    """The first evaluation with the highest score."""
    return max(history, key=lambda evaluation: evaluation.score)
