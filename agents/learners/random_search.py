"""Random search: the yardstick for every learner at equal evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from agents.learners.keep_best import KeepBest
from agents.masking import allowed


class RandomSearch(KeepBest):
    """Draws ratios uniformly; keeps the one that was rewarded best."""

    def __init__(
        self, agent: str, observation_space: Space[Any], action_space: Space[Any], rng: np.random.Generator
    ) -> None:
        self._space, self._rng = action_space, rng
        super().__init__(self.propose({}))

    def propose(self, info: Mapping[str, Any]) -> Any:
        """A random action, of those that are allowed."""
        if isinstance(self._space, Discrete):
            return int(self._rng.choice(allowed(info, int(self._space.n))))
        assert isinstance(self._space, Box)
        return self._rng.uniform(self._space.low, self._space.high).astype(np.float32)
