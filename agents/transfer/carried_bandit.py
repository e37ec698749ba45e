"""A bandit on what pruning does to accuracy, which can start from what was seen on other networks.

    log-odds of (accuracy / that of the original) = weights . features of the joint action
                                                  + a value of each layer's level + noise

The features mean the same in every network (`joint_features`), so weights that were learned on some are a prior
for the next; the values are of this network only. What a joint action costs is known without measuring it, so
accuracy is all that is predicted, and the environment's own reward says what that is worth. Tried next is what is
worth most at the upper end of what is believed of its accuracy, and nothing twice. Without a prior it is a learner
that starts from scratch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from agents.base import JointTransition
from agents.learners.in_turn import InTurn
from agents.learners.linear_model import LinearModel
from agents.transfer.joint_features import SIZE
from agents.transfer.known import KnownNetwork
from dsfp_env.environment.env import LayerPruningEnv

RIDGE = 10.0  # precision of the weights before anything was seen anywhere
FAR = 40.0  # percent: at this distance the values of two levels of a layer have a correlation of 1 / e
STARTS = 3  # of climbs to the joint action that is tried next
TRIED = 1e3  # taken off the worth of what was tried


class Seen(NamedTuple):
    """What was seen on one network."""

    features: np.ndarray  # [k, SIZE]
    odds: np.ndarray  # [k]


@dataclass(frozen=True)
class Prior:
    """What is believed of the weights before anything was seen on a network.

    Attributes:
        scale: Of each feature, ``[SIZE]``: weights are of features over it.
        mean: Of the weights, ``[SIZE]``.
        second_moment: Mean product of features, ``[SIZE, SIZE]``: where something was seen; 0 if nothing was.
    """

    scale: np.ndarray
    mean: np.ndarray
    second_moment: np.ndarray

    @classmethod
    def ignorant(cls) -> Prior:
        """As before the first network."""
        return cls(np.ones(SIZE), np.zeros(SIZE), np.zeros((SIZE, SIZE)))

    @classmethod
    def learned(cls, networks: Sequence[Seen]) -> Prior:
        """By ridge regression, from what was seen on one or more networks."""
        features, odds = (np.concatenate(parts) for parts in zip(*networks, strict=True))
        scale = features.std(0)
        scale[scale < 1e-6] = 1.0
        scaled = features / scale
        squares = scaled.T @ scaled
        mean = np.linalg.solve(squares + RIDGE * np.eye(SIZE), scaled.T @ odds)
        return cls(scale, mean, squares / len(odds))

    def covariance(self, strength: float, noise: float) -> np.ndarray:
        """Of the weights, ``[SIZE, SIZE]``: what was seen on other networks counts as so many evaluations."""
        return np.linalg.inv(RIDGE * np.eye(SIZE) + strength * self.second_moment / noise**2)


class CarriedBandit:
    """An upper confidence bound on features of layers and levels, whose model other networks have begun.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.
        prior: From other networks; knows nothing unless given.
        strength: As how many evaluations on this network it counts.
        alpha: How far the upper end is above what is expected, in standard deviations.
        own: Standard deviation of a value of this network's own, before anything was seen.
        noise: Standard deviation of what the model does not explain.

    Raises:
        InputError: If actions are no levels.
    """

    team = True

    def __init__(
        self,
        env: LayerPruningEnv,
        seed: int | None = None,
        *,
        prior: Prior | None = None,
        strength: float = 10.0,
        alpha: float = 0.5,
        own: float = 0.5,
        noise: float = 0.3,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "The bandit")
        self._network, self.alpha = KnownNetwork(env), alpha
        believed = prior or Prior.ignorant()
        self._scale, self._values = believed.scale, own * self._alike_values()
        size = SIZE + self._values.shape[-1]
        mean, covariance = np.zeros(size), np.eye(size)
        mean[:SIZE], covariance[:SIZE, :SIZE] = believed.mean, believed.covariance(strength, noise)
        self.model = LinearModel(mean, covariance, noise)
        self._tried: dict[bytes, float] = {}  # joint action -> score

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The joint action to try next, or the best that was seen; before one was, what is expected to be best."""
        starts = self._rng.integers(self._turns.num_levels, size=(STARTS, len(self._turns.agents)))
        if self._tried:
            starts[0] = best = np.frombuffer(max(self._tried, key=self._tried.__getitem__), starts.dtype)
            if deterministic:
                return self._turns.as_actions(self._turns.nearest(infos, best, np.argsort(-best)))
        ends = np.stack([self._turns.climb(infos, start, self._worth, self._rng) for start in starts])
        return self._turns.as_actions(ends[self._worth(ends).argmax()])

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Learn the accuracy of a joint action."""
        joint = self._turns.as_joint(transition.actions)
        self._tried[joint.tobytes()] = transition.score
        accuracy = next(iter(transition.infos.values()))["accuracy"]
        return {"error": self.model.update(self._features(joint[None])[0], self._network.odds(accuracy))}

    def _worth(self, joints: np.ndarray) -> np.ndarray:
        """Of joint actions ``[k, agents]`` at the upper ends of their accuracies; at first, at their means."""
        features = self._features(joints)
        odds = features @ self.model.mean
        if self._tried:
            odds = odds + self.alpha * self.model.deviations(features)
        tried = np.array([joint.tobytes() in self._tried for joint in joints])
        return self._network.scores(joints, odds) - TRIED * tried

    def _features(self, joints: np.ndarray) -> np.ndarray:
        """Of joint actions ``[k, agents]``: ``[k, SIZE + agents * levels]``."""
        own = self._values[np.arange(joints.shape[1]), joints].sum(1)
        return np.concatenate([self._network.features(joints) / self._scale, own], 1)

    def _alike_values(self) -> np.ndarray:
        """``[agents, levels, agents * levels]``: weights of deviation 1 make values of the wanted correlation."""
        agents, levels = len(self._turns.agents), self._network.levels
        root = np.linalg.cholesky(np.exp(-np.abs(np.subtract.outer(levels, levels)) / FAR))
        return np.einsum("ab,lm->albm", np.eye(agents), root).reshape(agents, len(levels), -1)
