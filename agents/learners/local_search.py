"""Local search from the best uniform plan: one layer changes, or two; what a linear model thinks best comes first.

First all plans of one ratio are tried. From then on the candidates are all changes of one layer of the best joint
action so far, to any level, and some changes of two; those that were tried are left out. They come in the order of
their upper confidence bounds in an additive model of the score,

    score = constant + sum over agents of value[agent, level] + noise

fitted to all that was seen (Bayesian linear regression, values of neighbouring levels alike). Its scales come
from the scores of the uniform plans. It starts nowhere else: with many layers a budget of evaluations is spent
before all neighbours of one place are known. In longer episodes it learns from the score of every step as if it
were an episode of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.in_turn import InTurn
from agents.learners.linear_model import LinearModel, alike_levels
from dsfp_env.common.ranges import NotNegative, Positive, WholeNumber, ranges_checked


class LocalSearch:
    """Changes one layer of the best so far, or two, the likeliest first: for few evaluations of many layers.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.
        alpha: Width of the confidence bound, in standard deviations.
        pairs: Changes of two layers that are drawn for every choice.
        alike: Levels over which values are believed alike: their correlation is ``exp(-distance / alike)``.
        noise: Standard deviation of what the model does not explain, over that of the uniform plans' scores.

    Raises:
        InputError: If actions are no levels.
    """

    team = True

    @ranges_checked
    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        seed: int | None = None,
        *,
        alpha: NotNegative = 1.0,
        pairs: WholeNumber = 200,
        alike: Positive = 4.0,
        noise: Positive = 0.1,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "Local search")
        self.alpha, self.pairs, self.alike, self.noise = alpha, pairs, alike, noise
        self._uniform = list(range(self._turns.num_levels))  # levels of all that are left to be tried
        self._seen: list[tuple[np.ndarray, float]] = []  # joint actions and scores, until there is a model
        self._best: tuple[float, np.ndarray] = (-np.inf, np.full(len(self._turns.agents), len(self._uniform) // 2))
        self._tried: set[bytes] = set()
        self.model: LinearModel | None = None

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The next joint action to try, or the best so far."""
        if deterministic:
            return self._turns.as_actions(self._turns.raised(infos, self._best[1], np.random.default_rng(0)))
        return self.act_many([observations], [infos])[0]

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """The next joint actions to try, the most promising ones."""
        chosen: list[np.ndarray] = []
        for told in infos:
            known = self._tried | {joint.tobytes() for joint in chosen}
            chosen.append(self._next(told, known))
        return [self._turns.as_actions(joint) for joint in chosen]

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Learn the score of a joint action."""
        joint, score = self._turns.as_joint(transition.actions), transition.score
        self._tried.add(joint.tobytes())
        if score > self._best[0]:
            self._best = score, joint
        if self.model is not None:
            self.model.update(self._features(joint[None])[0], score)
        else:
            self._seen.append((joint, score))
            if len(self._seen) == self._turns.num_levels:
                self._begin()
        return {"best_score": self._best[0]}

    def _next(self, infos: Mapping[str, dict[str, Any]], known: Collection[bytes]) -> np.ndarray:
        """The next uniform plan, or the most promising candidate that is allowed and not known."""
        if self._uniform:
            wished = np.full(len(self._turns.agents), self._uniform.pop(0))
            return self._turns.raised(infos, wished, self._rng)
        for joint in self._ordered():
            if joint.tobytes() not in known and self._turns.allows(infos, joint):
                return joint
        anywhere = self._rng.integers(self._turns.num_levels, size=len(self._turns.agents))
        return self._turns.nearest(infos, anywhere, self._rng.permutation(len(anywhere)))

    def _ordered(self) -> Iterator[np.ndarray]:
        """Changes of one layer or two of the best joint action so far, the most promising first."""
        candidates = np.concatenate([self._changes_of_one(), self._changes_of_two()])
        if self.model is None:
            yield from self._rng.permutation(candidates)
            return
        features = self._features(candidates)
        bounds = features @ self.model.mean + self.alpha * self.model.deviations(features)
        for place in np.argsort(-bounds, kind="stable"):
            yield candidates[place]

    def _changes_of_one(self) -> np.ndarray:
        count, levels = len(self._turns.agents), self._turns.num_levels
        changed = np.tile(self._best[1], (count * levels, 1))
        changed[np.arange(count * levels), np.repeat(np.arange(count), levels)] = np.tile(np.arange(levels), count)
        return changed

    def _changes_of_two(self) -> np.ndarray:
        count, rows = len(self._turns.agents), np.arange(self.pairs)
        changed = np.tile(self._best[1], (self.pairs, 1))
        for _ in range(2):
            changed[rows, self._rng.integers(count, size=self.pairs)] = self._rng.integers(
                self._turns.num_levels, size=self.pairs
            )
        return changed

    def _begin(self) -> None:
        """Make the model, with the scales of what was seen, and let it learn that."""
        count, levels = len(self._turns.agents), self._turns.num_levels
        scores = np.array([score for _, score in self._seen])
        spread = float(scores.std()) or 1.0
        covariance = np.zeros((1 + count * levels,) * 2)
        covariance[0, 0] = spread**2
        of_one = alike_levels(levels, self.alike) * spread**2 / count
        covariance[1:, 1:] = np.kron(np.eye(count), of_one)
        mean = np.zeros(len(covariance))
        mean[0] = scores.mean()
        self.model = LinearModel(mean, covariance, self.noise * spread)
        for joint, score in self._seen:
            self.model.update(self._features(joint[None])[0], score)

    def _features(self, joints: np.ndarray) -> np.ndarray:
        """Of joint actions ``[k, agents]``: ``[k, 1 + agents * levels]``."""
        one_hot = np.eye(self._turns.num_levels)[joints].reshape(len(joints), -1)
        return np.concatenate([np.ones((len(joints), 1)), one_hot], 1)
