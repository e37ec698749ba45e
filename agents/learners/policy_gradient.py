"""A policy-gradient bandit: one policy of all agents, on what they see of their layers (REINFORCE, Williams 1992).

    pi(level | layer i) = softmax over levels of (x[i] . shared + own[i]) . phi(level)
    both <- both + step_size * gradient of (advantage * log pi(joint action) + entropy * H(pi))

x is 1 and the features that differ between layers, standardised; phi are the first cosines over the levels, so
neighbouring levels are alike. What is learned of one layer holds for layers that look like it; ``own`` is what is
its own. The advantage is the score less the mean of the last scores, over their standard deviation.

First all plans of one ratio are tried, and the policy starts from their scores: it prefers the levels that were
good for all. Layers do not change, so its probabilities are the same in every episode. In longer episodes it
learns from the score of every step as if it were an episode of its own. Under masks each draws from what is left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.in_turn import TRIES, InTurn
from agents.learners.layer_inputs import standardised
from dsfp_env.common.ranges import Count, NotNegative, Positive, ranges_checked

COSINES = 5  # over the levels, the constant not among them
LEAST = 1e-9  # of a standard deviation


class PolicyGradient:
    """One policy of all layers on their features, by REINFORCE: for many layers, of which some are alike.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.
        step_size: Of the gradient.
        entropy: Weight of the policy's entropy.
        recent: Scores that the advantage compares with.
        trust: Weight of the scores of the plans of one ratio, where the policy starts; 0: all levels alike.

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
        step_size: Positive = 0.1,
        entropy: NotNegative = 0.01,
        recent: Count = 30,
        trust: NotNegative = 1.0,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "The policy gradient")
        self.step_size, self.entropy, self.trust = step_size, entropy, trust
        count = self._turns.num_levels
        orders = np.arange(1, min(COSINES + 1, count))
        self._phi = np.cos(np.pi * orders[:, None] * (np.arange(count) + 0.5) / count)  # [cosines, levels]
        self.own = np.zeros((len(self._turns.agents), len(orders)))
        self.shared: np.ndarray | None = None  # [inputs, cosines], from the first observations
        self._inputs = np.empty((0, 0))  # [agents, inputs]
        self._recent: deque[float] = deque(maxlen=recent)
        self._begun: list[np.ndarray] = []  # joint actions that were played as plans of one level
        self._uniform: list[float] = []  # their scores

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """A joint action drawn from the policy, or the one that it gives the highest probability."""
        logits = self._logits(observations)
        if deterministic:

            def worth(joints: np.ndarray) -> np.ndarray:
                return np.take_along_axis(logits[None], joints[..., None], 2).sum((1, 2))

            rng = np.random.default_rng(0)
            return self._turns.as_actions(self._turns.climb(infos, logits.argmax(1), worth, rng, tries=TRIES))
        if len(self._begun) < self._turns.num_levels:
            wished = np.full(len(logits), len(self._begun))
            self._begun.append(self._turns.raised(infos, wished, self._rng))
            return self._turns.as_actions(self._begun[-1])

        def choose(number: int, levels: np.ndarray) -> int:
            return int(self._rng.choice(levels, p=softmax(logits[number, levels])))

        return self._turns.as_actions(self._turns.choose(infos, choose, self._rng.permutation(len(logits))))

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Follow the gradient."""
        joint, score = self._turns.as_joint(transition.actions), transition.score
        self._recent.append(score)
        if len(self._uniform) < self._turns.num_levels:
            told = len(self._uniform)
            if told == len(self._begun) or not np.array_equal(joint, self._begun[told]):
                return {"advantage": 0.0}  # what somebody else chose says nothing of plans of one level
            self._uniform.append(score)
            if len(self._uniform) == self._turns.num_levels:
                self._start(transition.observations)
            return {"advantage": 0.0}
        advantage = (score - np.mean(self._recent)) / (np.std(self._recent) + LEAST)
        chances = softmax(self._logits(transition.observations))
        logs = np.log(chances)
        surprise = logs - (chances * logs).sum(1, keepdims=True)
        slope = advantage * (np.eye(chances.shape[1])[joint] - chances) - self.entropy * chances * surprise
        step = self.step_size * slope @ self._phi.T  # [agents, cosines]
        self.own += step
        self.shared = self.shared + self._inputs.T @ step / len(step)
        return {"advantage": float(advantage)}

    def _start(self, observations: Mapping[str, Any]) -> None:
        """Prefer the levels that were good for all."""
        self._logits(observations)
        assert self.shared is not None
        scores = np.array(self._uniform)
        wished = self.trust * (scores - scores.mean()) / (scores.std() + LEAST)
        self.shared[0] += np.linalg.lstsq(self._phi.T, wished, rcond=None)[0]

    def _logits(self, observations: Mapping[str, Any]) -> np.ndarray:
        """``[agents, levels]``."""
        if self.shared is None:
            self._inputs = standardised(np.stack([np.ravel(observations[agent]) for agent in self._turns.agents]))
            self.shared = np.zeros((self._inputs.shape[1], len(self._phi)))
        logits: np.ndarray = (self._inputs @ self.shared + self.own) @ self._phi
        return logits


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities ``[..., k]`` of logits ``[..., k]``."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)
