"""Ratio selection by scalar reward regression (DSFP section III-B), one bandit per layer.

The paper: a fixed context s, a continuous ratio a in [10, 90], epsilon-greedy perturbation within a small window,
and a regression model fitted to the collected (s, a, r) by least squares, which then suggests the ratio. It does
not say which model, how large the window, or how the first ratios are chosen. Here:

    r(s, a) = w . [1, a, a^2, s, s*a]        (a and s scaled to [-1, 1])

fitted to all tuples with a little ridge; the first ``warm_up`` ratios are uniform. As the context is fixed, its
two terms only matter if the user changes it between episodes.

What comes of a ratio depends on what the other layers choose, and they move on. With ``recent`` a tuple counts the
less, the older it is, so the fit tells what is better where the others are now. As it holds there alone, what it
suggests is no farther from the mean of these ratios than the window. With ``final_window`` all come to rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space

from agents.base import Transition
from agents.learners.exploration import fallen
from dsfp_env.common.errors import InputError
from dsfp_env.common.ranges import Count, Positive, Share, WholeNumber, ranges_checked


def features(context: float, action: np.ndarray) -> np.ndarray:
    """Regression features ``[..., 5]`` of actions ``[...]``, all in [-1, 1]."""
    one, s = np.ones_like(action), np.full_like(action, context)
    return np.stack([one, action, action**2, s, s * action], -1)


def importance(count: int, recent: int) -> np.ndarray:
    """How much tuples count, oldest first, ``[count]``.

    Each counts ``1 - 1 / recent`` of what the next newer one does, so all together are as good as so many.
    """
    counts: np.ndarray = (1 - 1 / recent) ** np.arange(count - 1, -1, -1)
    return counts


def fit(inputs: np.ndarray, rewards: np.ndarray, ridge: float, important: np.ndarray | None = None) -> np.ndarray:
    """Weights that minimise the summed squared errors plus ``ridge * |w|^2``.

    Args:
        inputs: ``[n, features]``.
        rewards: ``[n]``.
        ridge: Keeps the solution unique.
        important: How much squared errors count, ``[n]``; None: all the same.
    """
    if important is not None:
        roots = np.sqrt(important)
        inputs, rewards = inputs * roots[:, None], rewards * roots
    return np.linalg.solve(inputs.T @ inputs + ridge * np.eye(inputs.shape[1]), inputs.T @ rewards)


class RegressionBandit:
    """Predicts the reward of a ratio, and plays the ratio predicted best.

    Args:
        agent: Its name.
        observation_space: Its last feature is the context with ``observation="context"``; otherwise ignored.
        action_space: Box(10, 90, (1,)).
        rng: Draws the warm-up and the perturbations.
        warm_up: Ratios drawn uniformly at first.
        epsilon: Probability that a ratio is perturbed.
        window: Largest perturbation at first, in percent; it falls linearly ...
        final_window: ... to this ...; None: it stays.
        exploration_steps: ... over so many ratios.
        ridge: See `fit`.
        recent: Tuples that the fit is made of, as it were, see `importance`; 0: all, which count the same.
    """

    @ranges_checked
    def __init__(
        self,
        agent: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        rng: np.random.Generator,
        *,
        warm_up: WholeNumber = 20,
        epsilon: Share = 0.9,
        window: Positive = 20.0,
        final_window: Positive | None = None,
        exploration_steps: Count = 200,
        ridge: Positive = 1e-3,
        recent: WholeNumber = 0,
    ) -> None:
        if not isinstance(action_space, Box) or action_space.shape != (1,):
            raise InputError(
                f"The regression bandit for {agent} got the action space {action_space}: expected a Box of one "
                "number. Make the environment with actions='box'."
            )
        self._low, self._high = float(action_space.low[0]), float(action_space.high[0])
        self._has_context = observation_space.shape == (1,)
        self._rng = rng
        self.warm_up, self.epsilon, self.ridge, self.recent = warm_up, epsilon, ridge, recent
        self.window, self.final_window = window, window if final_window is None else final_window
        self.exploration_steps = exploration_steps
        self._inputs: list[np.ndarray] = []
        self._rewards: list[float] = []

    def act(self, observation: Any, info: dict[str, Any], *, deterministic: bool = False) -> np.ndarray:
        """The ratio predicted best, perhaps perturbed; uniform while warming up."""
        if deterministic:
            return self._action(self._best(self._context(observation)))
        if len(self._rewards) < self.warm_up:
            return self._action(self._rng.uniform(self._low, self._high))
        ratio = self._best(self._context(observation))
        if self._rng.random() < self.epsilon:
            window = self._window()
            ratio += self._rng.uniform(-window, window)
        return self._action(ratio)

    def update(self, transition: Transition) -> dict[str, float]:
        """Collect the tuple (context, ratio, reward)."""
        context, ratio = self._context(transition.observation), float(transition.action[0])
        self._inputs.append(features(context, np.array(self._scaled(ratio))))
        self._rewards.append(transition.credit)
        return {"tuples": float(len(self._rewards))}

    def _best(self, context: float) -> float:
        if not self._rewards:
            return (self._low + self._high) / 2
        ratios = np.linspace(self._low, self._high, 161)
        inputs = np.concatenate(self._inputs).reshape(len(self._inputs), -1)  # quicker than np.stack
        important = importance(len(inputs), self.recent) if self.recent else None
        if important is not None:
            middle = self._unscaled(important @ inputs[:, 1] / important.sum())
            ratios = ratios.clip(middle - self._window(), middle + self._window())
        weights = fit(inputs, np.array(self._rewards), self.ridge, important)
        return float(ratios[(features(context, self._scaled(ratios)) @ weights).argmax()])

    def _window(self) -> float:
        """The largest perturbation now, in percent."""
        return fallen(len(self._rewards), self.window, self.final_window, self.exploration_steps)

    def _context(self, observation: np.ndarray) -> float:
        return float(self._scaled(observation[0])) if self._has_context else 0.0

    def _scaled(self, ratio: Any) -> Any:
        return 2 * (ratio - self._low) / (self._high - self._low) - 1

    def _unscaled(self, scaled: Any) -> Any:
        return self._low + (scaled + 1) / 2 * (self._high - self._low)

    def _action(self, ratio: float) -> np.ndarray:
        return np.array([np.clip(ratio, self._low, self._high)], np.float32)
