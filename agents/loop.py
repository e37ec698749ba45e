"""The loop: act, step, update, until the budget of evaluations is spent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pettingzoo import ParallelEnv

from agents.base import JointTransition, MultiAgent


class Evaluation(NamedTuple):
    """One joint action and what came of it."""

    number: int  # from 0
    actions: dict[str, Any]  # by agent
    rewards: dict[str, float]  # by agent
    infos: dict[str, dict[str, Any]]  # by agent

    @property
    def score(self) -> float:
        """What the joint action is worth: the score that the environment tells, else the mean reward."""
        told = next(iter(self.infos.values())).get("score")
        return float(told) if told is not None else sum(self.rewards.values()) / len(self.rewards)


def train(
    env: ParallelEnv[str, Any, Any],
    team: MultiAgent,
    evaluations: int,
    *,
    seed: int | None = None,
    on_evaluation: Callable[[Evaluation], None] | None = None,
) -> list[Evaluation]:
    """Let a team learn, episode after episode.

    Args:
        env: The environment. Each of its steps is one evaluation.
        team: The learners.
        evaluations: Steps to take, in all.
        seed: For the first reset of the environment.
        on_evaluation: Called after every step, when the team has learned from it.

    Returns:
        Every evaluation, in order.
    """
    history: list[Evaluation] = []
    observations, infos = env.reset(seed=seed)
    while len(history) < evaluations:
        if not env.agents:
            observations, infos = env.reset()
        actions = team.act(observations, infos)
        next_observations, rewards, terminations, truncations, infos = env.step(actions)
        team.update(
            JointTransition(observations, actions, rewards, next_observations, terminations, truncations, infos)
        )
        observations = next_observations
        history.append(Evaluation(len(history), actions, rewards, infos))
        if on_evaluation is not None:
            on_evaluation(history[-1])
    return history


def play(env: ParallelEnv[str, Any, Any], team: MultiAgent) -> Evaluation:
    """One episode of the team's best, without exploring or learning; returns its last joint action."""
    observations, infos = env.reset()
    steps = 0
    while env.agents:
        actions = team.act(observations, infos, deterministic=True)
        observations, rewards, _, _, infos = env.step(actions)
        steps += 1
    return Evaluation(steps - 1, actions, rewards, infos)


def best(history: list[Evaluation]) -> Evaluation:
    """The first evaluation with the highest score."""
    return max(history, key=lambda evaluation: evaluation.score)
