"""Random search: the yardstick for every learner at equal evaluations."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from agents.base import Transition


class RandomSearch:
    """Draws ratios uniformly; keeps the one that was rewarded best.

    As the learners of a team share the reward, what they keep is the best joint action of all.
    """

    def __init__(
        self, agent: str, observation_space: Space[Any], action_space: Space[Any], rng: np.random.Generator
    ) -> None:
        self._space, self._rng = action_space, rng
        self._best: tuple[float, Any] = (-np.inf, self._draw())

    def act(self, observation: Any, info: dict[str, Any], *, deterministic: bool = False) -> Any:
        """A random action, or the best so far."""
        return self._best[1] if deterministic else self._draw()

    def update(self, transition: Transition) -> None:
        """Remember the action if it was rewarded best."""
        if transition.score > self._best[0]:
            self._best = (transition.score, transition.action)

    def _draw(self) -> Any:
        if isinstance(self._space, Discrete):
            return int(self._rng.integers(self._space.n))
        assert isinstance(self._space, Box)
        return self._rng.uniform(self._space.low, self._space.high).astype(np.float32)
