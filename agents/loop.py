"""The loop: act, step, update, until the budget of evaluations is spent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, NamedTuple

from pettingzoo import ParallelEnv

from agents.base import JointTransition, MultiAgent
from agents.callbacks import Follower
from agents.verbs import check_env, check_team, joint_actions_of
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.environment.lanes import Lane, start_lanes
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
    batch: int = 1,
    workers: int | None = None,
    seed: int | None = None,
    on_evaluation: Callable[[Evaluation], None] | None = None,
    callbacks: Iterable[Follower] = (),
) -> list[Evaluation]:
    """Let a team learn, episode after episode.

    With a batch of k, k episodes go on at once, each in a copy of the environment: the team chooses k joint
    actions, they are evaluated at once, and it learns from them in their order. What comes depends on k and the
    seed, not on how many workers there are. The last batch is smaller, if k does not divide the budget.

    Args:
        env: The environment. Each of its steps is one evaluation, or more: `LayerPruningEnv.evaluations_per_step`.
        team: The learners. One with a loop of its own has a method ``learn``, which takes what follows here, but
            for callbacks.
        evaluations: That may be spent; never more are.
        batch: Joint actions that are chosen before the team learns from them.
        workers: That evaluate a batch; as in `Evaluator.evaluate_many`.
        seed: For the first reset of the environment.
        on_evaluation: Called after every step, when the team has learned from it.
        callbacks: That follow the run, see `agents.Callback`; they are told of an evaluation after
            ``on_evaluation``.

    Returns:
        Every joint action that was evaluated, in order.

    Raises:
        InputError: If the team is none, or its methods take other arguments; if the budget is not enough for one
            step; or if the team or the environment cannot have the batch.
    """
    check_team(team, learns=True)
    check_env(env)
    if hasattr(env, "agent_iter"):
        raise InputError("The environment is turn-based: expected a parallel one, as dsfp_env.parallel_env makes.")
    check_batch(team, batch)
    check_budget(env, evaluations)
    batch = min(batch, evaluations)
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
        history = _learn(env, team, evaluations, batch, workers, seed, tell)
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
    batch: int,
    workers: int | None,
    seed: int | None,
    tell: Callable[..., None],
) -> list[Evaluation]:
    """Let a team learn; everything that it comes to is told, with what it says of its learning."""
    if hasattr(team, "learn"):
        many = {} if batch == 1 else {"batch": batch, "workers": workers}
        learned: list[Evaluation] = team.learn(env, evaluations, seed=seed, on_evaluation=tell, **many)
        return learned
    history: list[Evaluation] = []
    spent = 0
    lanes: list[Any] = [env] if batch == 1 else [Lane(env) for _ in range(batch)]
    seen: dict[int, tuple[Any, Any]] = {}  # by number of the lane: observations and infos
    while count := min(batch, (evaluations - spent) // evaluations_per_step(env)):
        for number, lane in enumerate(lanes[:count]):
            if number not in seen:
                seen[number] = lane.reset(seed=None if seen else seed)
            elif not lane.agents:
                seen[number] = lane.reset()
        chosen = joint_actions_of(team, [seen[number] for number in range(count)])
        known = iter([None]) if batch == 1 else start_lanes(lanes[:count], chosen, workers)
        for number, (actions, _) in enumerate(zip(chosen, known, strict=True)):
            observations, _ = seen[number]
            next_observations, rewards, terminations, truncations, infos = lanes[number].step(actions)
            report = team.update(
                JointTransition(
                    observations, actions, rewards, next_observations, terminations, truncations, infos
                )
            )
            seen[number] = next_observations, infos
            spent += evaluations_of(infos)
            history.append(Evaluation(spent, actions, rewards, infos))
            tell(history[-1], report)
    return history


def play(env: ParallelEnv[str, Any, Any], team: MultiAgent) -> Evaluation:
    """One episode of the team's best, without exploring or learning.

    Args:
        env: The environment, which is reset first.
        team: The learners.

    Returns:
        The last joint action of the episode, and what came of it.

    Raises:
        InputError: If the team is none.
    """
    check_team(team, learns=False)
    observations, infos = env.reset()
    spent = 0
    while env.agents:
        actions = team.act(observations, infos, deterministic=True)
        observations, rewards, _, _, infos = env.step(actions)
        spent += evaluations_of(infos)
    return Evaluation(spent, actions, rewards, infos)


def check_batch(team: MultiAgent, batch: int) -> None:
    """Refuse a batch that there is not, or that a team cannot have.

    Raises:
        InputError: If so.
    """
    if not isinstance(batch, Integral) or isinstance(batch, bool) or batch < 1:
        raise InputError(f"The batch is {batch!r}: expected a whole number of joint actions, 1 or more.")
    if batch == 1:
        return
    who = type(team).__name__
    if getattr(team, "alternates", False):
        raise InputError(
            f"The batch is {batch}, and {who} must learn from one joint action before it chooses the next: "
            "expected batch=1."
        )
    learn = getattr(team, "learn", None)
    if learn is not None and "batch" not in inspect.signature(learn).parameters:
        raise InputError(
            f"The batch is {batch}, and {who} has a loop of its own, whose method learn takes no batch: expected "
            "batch=1, or that learn takes batch and workers."
        )


def check_budget(env: ParallelEnv[str, Any, Any], evaluations: int) -> None:
    """Refuse a budget that is no number, or not enough for one step.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(evaluations, Integral) or isinstance(evaluations, bool):
        raise InputError(f"The budget is {shortened(evaluations)}: expected a whole number of evaluations.")
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
    """The first evaluation with the highest score.

    Raises:
        InputError: If there is none.
    """
    if not history:
        raise InputError("The history is empty: expected what `agents.train` returns.")
    return max(history, key=lambda evaluation: evaluation.score)
