"""Thompson sampling for the whole team, with an additive model of the score.

    score = constant + sum over agents of value[agent, level] + noise

In one-shot episodes this is value decomposition (VDN, Sunehag et al. 2018): the best joint action of the model is
made of each agent's best level. The values are learned by Bayesian linear regression; values of neighbouring
levels are believed alike. Each time, values are drawn from the posterior, and the joint action that is best for
them is played (Thompson 1933), so what is uncertain is explored and what is known to be bad is not.

In longer episodes it learns from the score of every step as if it were an episode of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.in_turn import TRIES, InTurn
from agents.learners.linear_model import LinearModel, alike_levels
from dsfp_env.common.ranges import Finite, Positive, ranges_checked


class JointThompson:
    """Thompson sampling of a model that adds up the worth of each layer's level: quick, and at ease in batches.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.
        prior_mean: Of the score.
        prior_deviation: Standard deviation of a value.
        alike: Levels over which values are believed alike: their correlation is ``exp(-distance / alike)``.
        noise: Standard deviation of what the model does not explain.

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
        prior_mean: Finite = 0.5,
        prior_deviation: Positive = 0.2,
        alike: Positive = 4.0,
        noise: Positive = 0.05,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "Joint Thompson sampling")
        num_agents, num_levels = len(self._turns.agents), self._turns.num_levels
        size = 1 + num_agents * num_levels  # the constant, then the values
        mean, covariance = np.zeros(size), np.eye(size)
        mean[0] = prior_mean
        covariance[1:, 1:] = prior_deviation**2 * np.kron(np.eye(num_agents), alike_levels(num_levels, alike))
        self.model = LinearModel(mean, covariance, noise)

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The joint action that is best for values drawn from the posterior, or for the expected ones."""
        rng = np.random.default_rng(0) if deterministic else self._rng
        weights = self.model.mean if deterministic else self.model.sample(rng)
        values = weights[1:].reshape(len(self._turns.agents), self._turns.num_levels)

        def worth(joints: np.ndarray) -> np.ndarray:
            return np.take_along_axis(values[None], joints[..., None], 2).sum((1, 2))

        tries = TRIES if deterministic else 1
        return self._turns.as_actions(self._turns.climb(infos, values.argmax(1), worth, rng, tries=tries))

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Learn the score of a joint action."""
        joint = self._turns.as_joint(transition.actions)
        one_hot = np.eye(self._turns.num_levels)[joint].ravel()
        score = transition.score
        return {"error": self.model.update(np.concatenate([[1.0], one_hot]), score)}
