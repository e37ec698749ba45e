"""LinUCB on features of levels and layers, one model for the whole team.

LinUCB (Li et al. 2010) believes that a score is linear in features of a choice, and plays the choice with the
highest upper confidence bound. A layer's observation is the same in every one-shot episode, so a model of one
layer has no context to learn from; a model of all layers has: what is learned of one layer's ratio tells something
about layers that look like it. The features of a joint action are, summed over layers,

    (1, what the agent sees) x (ratio, ratio^2)        shared by all layers
    value of the level                                 of this layer only, neighbouring levels alike

so with many layers the shared part learns first, and with many evaluations each layer gets what is its own. In
longer episodes it learns from the score of every step as if it were an episode of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.in_turn import TRIES, InTurn
from agents.learners.layer_inputs import standardised
from agents.learners.linear_model import LinearModel, alike_levels
from dsfp_env.common.ranges import Finite, NotNegative, Positive, Share, ranges_checked

DEGREE = 2  # of the polynomial of a ratio


class LinUCB:
    """The highest upper confidence bound of one linear model of all layers: the one to take for many layers.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.
        alpha: Width of the confidence bound, in standard deviations.
        epsilon: Probability that an agent's level is drawn at random instead.
        shared: Standard deviation of the shared weights, before anything was seen.
        own: Standard deviation of a layer's own values, likewise.
        alike: Levels over which own values are believed alike: their correlation is ``exp(-distance / alike)``.
        prior_mean: Of the score.
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
        alpha: NotNegative = 1.0,
        epsilon: Share = 0.02,
        shared: NotNegative = 0.05,
        own: NotNegative = 0.15,
        alike: Positive = 4.0,
        prior_mean: Finite = 0.5,
        noise: Positive = 0.05,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "LinUCB")
        self.alpha, self.epsilon, self.shared, self.own, self.alike = alpha, epsilon, shared, own, alike
        self.prior_mean, self.noise = prior_mean, noise
        self._inputs: np.ndarray = np.empty((0, 0, 0))  # [agents, levels, features], from the first observations
        self.model: LinearModel | None = None

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The joint action with the highest bound, or with the highest expected score."""
        model = self._model(observations)
        rng = np.random.default_rng(0) if deterministic else self._rng
        joint = self._highest(
            model, infos, 0.0 if deterministic else self.alpha, rng, TRIES if deterministic else 1
        )
        return self._turns.as_actions(joint if deterministic else self._astray(infos, joint))

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Several: each as if those before it had the scores expected of them (GP-BUCB, Desautels et al. 2014).

        So what is expected stays, and where joint actions are under way there is less to find out.
        """
        model, chosen = copy.copy(self._model(observations[0])), []
        for one in infos:
            joint = self._astray(one, self._highest(model, one, self.alpha, self._rng))
            features = self._features(joint[None])[0]
            model.update(features, float(features @ model.mean))
            chosen.append(self._turns.as_actions(joint))
        return chosen

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Learn the score of a joint action."""
        joint = self._turns.as_joint(transition.actions)
        score = transition.score
        return {"error": self._model(transition.observations).update(self._features(joint[None])[0], score)}

    def _highest(
        self,
        model: LinearModel,
        infos: Mapping[str, dict[str, Any]],
        alpha: float,
        rng: np.random.Generator,
        tries: int = 1,
    ) -> np.ndarray:
        """The joint action ``[agents]`` with the highest bound, of this width."""

        def worth(joints: np.ndarray) -> np.ndarray:
            features = self._features(joints)
            return features @ model.mean + alpha * model.deviations(features)

        start = rng.integers(self._turns.num_levels, size=len(self._turns.agents))
        return self._turns.climb(infos, start, worth, rng, tries=tries)

    def _astray(self, infos: Mapping[str, dict[str, Any]], joint: np.ndarray) -> np.ndarray:
        """A joint action with some levels drawn at random instead."""
        strays = self._rng.random(len(joint)) < self.epsilon
        joint = np.where(strays, self._rng.integers(self._turns.num_levels, size=len(joint)), joint)
        return self._turns.nearest(infos, joint, self._rng.permutation(len(joint)))

    def _features(self, joints: np.ndarray) -> np.ndarray:
        """Of joint actions ``[k, agents]``: ``[k, 1 + features]``."""
        summed = self._inputs[np.arange(joints.shape[1]), joints].sum(1)
        return np.concatenate([np.ones((len(joints), 1)), summed], 1)

    def _model(self, observations: Mapping[str, Any]) -> LinearModel:
        """Made of the first observations; weights are believed of deviation 1, their features are scaled."""
        if self.model is None:
            seen = np.stack([observations[agent] for agent in self._turns.agents]).astype(np.float64)
            shared, own = self._shared_inputs(seen), self._own_inputs()
            self._inputs = np.concatenate([self.shared * shared, self.own * own], 2)
            size = 1 + self._inputs.shape[2]
            mean = np.zeros(size)
            mean[0] = self.prior_mean
            self.model = LinearModel(mean, np.eye(size), self.noise)
        return self.model

    def _shared_inputs(self, seen: np.ndarray) -> np.ndarray:
        """Of observations ``[agents, features]``, standardised: ``[agents, levels, inputs]``."""
        layers = standardised(seen)
        ratios = np.linspace(-1, 1, self._turns.num_levels)
        powers = np.stack([ratios**power for power in range(1, DEGREE + 1)], 1)
        return np.einsum("av,lp->alvp", layers, powers).reshape(len(seen), len(ratios), -1)

    def _own_inputs(self) -> np.ndarray:
        """``[agents, levels, agents * levels]``: weights of deviation 1 make values of the wanted correlation."""
        num_agents, num_levels = len(self._turns.agents), self._turns.num_levels
        root = np.linalg.cholesky(alike_levels(num_levels, self.alike))
        return np.einsum("ab,lm->albm", np.eye(num_agents), root).reshape(num_agents, num_levels, -1)
