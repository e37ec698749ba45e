"""Uniform pruning: the same ratio for every layer, the yardstick of the pruning literature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from agents.keep_best import KeepBest


class Uniform(KeepBest):
    """Sweeps the range of ratios, ever finer, in step with its peers; keeps the one that was rewarded best.

    With nine levels it plays them in turn. With Box(10, 90) it plays 10, 20, ... 90, then the midpoints, then
    the midpoints of those, and so on. As all learners of a team play the same sequence and share the reward,
    they agree on the ratio.
    """

    def __init__(self, agent: str, observation_space: Space[Any], action_space: Space[Any], rng: object) -> None:
        super().__init__(next(_sweep(action_space)))
        self._actions = _sweep(action_space)

    def propose(self, info: Mapping[str, Any]) -> Any:
        """The next ratio of the sweep; of levels that are masked, the nearest that is not."""
        action = next(self._actions)
        return action if "action_mask" not in info else max(action, np.flatnonzero(info["action_mask"])[0])


def _sweep(space: Space[Any]) -> Iterator[Any]:
    if isinstance(space, Discrete):
        while True:
            yield from range(space.n)
    assert isinstance(space, Box)
    low, high = float(space.low[0]), float(space.high[0])
    cells = 8
    yield from (np.array([value], np.float32) for value in np.linspace(low, high, cells + 1))
    while True:
        edges = np.linspace(low, high, cells + 1)
        yield from (np.array([value], np.float32) for value in (edges[:-1] + edges[1:]) / 2)
        cells *= 2
