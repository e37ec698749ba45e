"""Uniform pruning: the same ratio for every layer, the yardstick of the pruning literature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from agents.learners.keep_best import KeepBest


class Uniform(KeepBest):
    """Sweeps the range of ratios, ever finer, in step with its peers; keeps the one that was rewarded best.

    With nine levels it plays them in turn. With Box(10, 90) it plays 10, 20, ... 90, then the midpoints, then
    the midpoints of those, and so on. As all learners of a team play the same sequence and share the reward,
    they agree on the ratio.
    """

    def __init__(self, agent: str, observation_space: Space[Any], action_space: Space[Any], rng: object) -> None:
        super().__init__(swept(action_space, 0))
        self._space, self._proposed = action_space, 0

    def propose(self, info: Mapping[str, Any]) -> Any:
        """The next ratio of the sweep; of levels that are masked, the nearest that is not."""
        action = swept(self._space, self._proposed)
        self._proposed += 1
        return action if "action_mask" not in info else max(action, int(np.flatnonzero(info["action_mask"])[0]))


def swept(space: Space[Any], number: int) -> Any:
    """The action of the sweep with this number, from 0."""
    if isinstance(space, Discrete):
        return number % int(space.n)
    assert isinstance(space, Box)
    low, high, cells = float(space.low[0]), float(space.high[0]), 8
    place = number / cells  # of the edges of the first cells
    number -= cells + 1
    while number >= 0:
        place = (number + 0.5) / cells  # of the midpoints
        number, cells = number - cells, 2 * cells
    return np.array([low + place * (high - low)], np.float32)
