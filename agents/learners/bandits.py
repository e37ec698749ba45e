"""Bandits on levels, one for each layer: what is believed of a level is a count and a mean of its credits.

They differ in how they choose a level from that:

- `EpsilonGreedy`: the highest mean, but sometimes any level, and that less and less often.
- `UCB1`: the highest upper confidence bound (Auer, Cesa-Bianchi and Fischer 2002).
- `GaussianThompson`: the highest value drawn from the posterior of each level's mean (Thompson 1933).

A bandit sees no state. In longer episodes it learns from the score of every step as if it were an episode of its
own.

The credit of a level depends on what the other layers choose, and they explore at the same time. Therefore a
credit above the mean may weigh more: at least ``step_size``, however many came before it. With 1 a level is worth
its best credit, or a little less after worse ones (as optimistic learners do, Lauer and Riedmiller 2000); with 0
means are plain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete, Space

from agents.base import Transition
from agents.learners.exploration import fallen
from agents.masking import allowed
from dsfp_env.common.errors import InputError
from dsfp_env.common.ranges import Finite, NotNegative, Positive, Share, WholeNumber, ranges_checked


class LevelBandit:
    """Keeps a count and a mean for every level; what is played while learning is left to `choose`.

    Args:
        agent: Its name.
        observation_space: Is not looked at.
        action_space: Discrete.
        rng: Draws what is random in the choice, and breaks ties.
        step_size: The least weight of a credit above the mean of its level; 0 is the plain mean.

    Raises:
        InputError: If actions are no levels.
    """

    @ranges_checked
    def __init__(
        self,
        agent: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        rng: np.random.Generator,
        *,
        step_size: Share = 0.0,
    ) -> None:
        if not isinstance(action_space, Discrete):
            raise InputError(
                f"The bandit on levels for {agent} got the action space {action_space}: expected Discrete. Make "
                "the environment with actions='levels'."
            )
        self._rng = rng
        self.step_size = step_size
        self.counts = np.zeros(int(action_space.n), int)  # [levels]
        self.means = np.zeros(int(action_space.n))  # [levels], 0 where nothing came yet

    def choose(self, levels: np.ndarray) -> int:
        """A level to play while learning, of those ``[k]`` that are allowed."""
        raise NotImplementedError

    def act(self, observation: Any, info: dict[str, Any], *, deterministic: bool = False) -> int:
        """The choice of a level, or the level with the highest mean of those that were tried."""
        levels = allowed(info, len(self.means))
        if not deterministic:
            return int(self.choose(levels))
        tried = np.where(self.counts[levels] > 0, self.means[levels], -np.inf)
        return int(levels[np.argmax(tried)])

    def update(self, transition: Transition) -> dict[str, float]:
        """Move the mean of the level towards its credit, by the inverse of its count, or more if it is better."""
        level = int(transition.action)
        self.counts[level] += 1
        error = transition.credit - self.means[level]
        least = self.step_size if error > 0 else 0.0
        self.means[level] += max(1 / self.counts[level], least) * error
        return {"error": error}

    def best_of(self, levels: np.ndarray, values: np.ndarray) -> int:
        """The level with the highest value; ties are broken at random.

        Args:
            levels: ``[k]``.
            values: Of these levels, ``[k]``.
        """
        return int(self._rng.choice(levels[values == values.max()]))


class EpsilonGreedy(LevelBandit):
    """Plays the level with the highest mean, or, with a probability that falls, any level.

    Args:
        agent: Its name.
        observation_space: Is not looked at.
        action_space: Discrete.
        rng: Draws the exploration, and breaks ties.
        epsilon: Probability of a random level at first; it falls linearly ...
        final_epsilon: ... to this ...
        exploration_steps: ... over so many actions.
        step_size: See `LevelBandit`.
    """

    @ranges_checked
    def __init__(
        self,
        agent: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        rng: np.random.Generator,
        *,
        epsilon: Share = 1.0,
        final_epsilon: Share = 0.02,
        exploration_steps: WholeNumber = 200,
        step_size: Share = 1.0,
    ) -> None:
        super().__init__(agent, observation_space, action_space, rng, step_size=step_size)
        self.epsilon, self.final_epsilon, self.exploration_steps = epsilon, final_epsilon, exploration_steps
        self._steps = 0

    def choose(self, levels: np.ndarray) -> int:
        """See `LevelBandit.choose`."""
        epsilon = fallen(self._steps, self.epsilon, self.final_epsilon, self.exploration_steps)
        self._steps += 1
        if self._rng.random() < epsilon:
            return int(self._rng.choice(levels))
        return self.best_of(levels, self.means[levels])


class UCB1(LevelBandit):
    """Plays the level with the highest ``mean + exploration * sqrt(2 ln(all plays) / plays)``; untried ones first.

    Learners that share a reward and choose by the same rule move in lock-step: each plays its levels in the same
    order, and only nine joint actions are ever tried. So untried levels come in random order, ties are broken at
    random, and now and then any level is played.

    Args:
        agent: Its name.
        observation_space: Is not looked at.
        action_space: Discrete.
        rng: Draws what is random.
        exploration: The width of the bound; 1 is UCB1 as published, for rewards that fill [0, 1].
        epsilon: Probability of a random level.
        step_size: See `LevelBandit`.
    """

    @ranges_checked
    def __init__(
        self,
        agent: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        rng: np.random.Generator,
        *,
        exploration: NotNegative = 0.2,
        epsilon: Share = 0.05,
        step_size: Share = 0.0,
    ) -> None:
        super().__init__(agent, observation_space, action_space, rng, step_size=step_size)
        self.exploration, self.epsilon = exploration, epsilon

    def choose(self, levels: np.ndarray) -> int:
        """See `LevelBandit.choose`."""
        return self._choose(levels, self.counts)

    def act_many(self, observations: Sequence[Any], infos: Sequence[dict[str, Any]]) -> list[int]:
        """Several levels: those chosen before count as played with the mean that is known, so bounds come down."""
        counts, chosen = self.counts.copy(), []
        for info in infos:
            chosen.append(self._choose(allowed(info, len(counts)), counts))
            counts[chosen[-1]] += 1
        return chosen

    def _choose(self, levels: np.ndarray, counts: np.ndarray) -> int:
        """A level of those ``[k]`` that are allowed, when all were played so often, ``[levels]``."""
        untried = levels[counts[levels] == 0]
        if untried.size:
            return int(self._rng.choice(untried))
        if self._rng.random() < self.epsilon:
            return int(self._rng.choice(levels))
        widths = np.sqrt(2 * math.log(counts.sum()) / counts[levels])
        return self.best_of(levels, self.means[levels] + self.exploration * widths)


class GaussianThompson(LevelBandit):
    """Plays the level whose mean, drawn from its posterior, is highest.

    With a normal prior ``N(m, s^2)`` of each level's mean and normal noise of standard deviation ``e``, the
    posterior after n credits of mean c is normal too, of precision ``p = 1 / s^2 + n / e^2`` and mean
    ``(m / s^2 + n c / e^2) / p``. It is exact with ``step_size=0``, where c is the plain mean.

    Args:
        agent: Its name.
        observation_space: Is not looked at.
        action_space: Discrete.
        rng: Draws from the posterior.
        prior_mean: m.
        prior_deviation: s.
        noise: e; what the other layers do is noise to this one.
        step_size: See `LevelBandit`.
    """

    @ranges_checked
    def __init__(
        self,
        agent: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        rng: np.random.Generator,
        *,
        prior_mean: Finite = 0.5,
        prior_deviation: Positive = 0.5,
        noise: Positive = 0.2,
        step_size: Share = 1.0,
    ) -> None:
        super().__init__(agent, observation_space, action_space, rng, step_size=step_size)
        self.prior_mean, self.prior_deviation, self.noise = prior_mean, prior_deviation, noise

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of the mean of each level, both ``[levels]``."""
        precision = 1 / self.prior_deviation**2 + self.counts / self.noise**2
        weighed = self.prior_mean / self.prior_deviation**2 + self.counts * self.means / self.noise**2
        return weighed / precision, precision**-0.5

    def choose(self, levels: np.ndarray) -> int:
        """See `LevelBandit.choose`."""
        mean, deviation = self.posterior()
        return self.best_of(levels, self._rng.normal(mean, deviation)[levels])
