"""The masks of a budget for many environments over one table, with a handful of NumPy calls for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsfp_env.tables.table import Table


def strides(table: Table) -> np.ndarray:
    """Rows between neighbouring levels of each agent, ``[agents]``."""
    return len(table.levels) ** np.arange(len(table.agents) - 1, -1, -1)


class ManyMasks:
    """`BudgetMasks.draw` for many environments at once.

    Args:
        table: Of all joint actions.
        allowed: ``[joint actions]`` bool: which are within the budget; that of the highest levels is.
    """

    def __init__(self, table: Table, allowed: np.ndarray) -> None:
        self._agents, self._levels = len(table.agents), len(table.levels)
        self._strides = strides(table)
        every, highest = table.levels_of(np.arange(len(table))), self._levels - 1
        # All levels raised by as little as is needed to be within the budget, as a row: [rows]
        self._raised = np.full(len(table), len(table) - 1)
        for shift in reversed(range(self._levels)):
            rows = np.minimum(every + shift, highest) @ self._strides
            self._raised = np.where(allowed[rows], rows, self._raised)
        # The lowest level of an agent that is allowed if the others have theirs: [agents, rows]
        grid = allowed.reshape((self._levels,) * self._agents)
        lowest = [
            np.where(grid.any(agent, keepdims=True), grid.argmax(agent, keepdims=True), highest)
            for agent in range(self._agents)
        ]
        self._lowest = np.stack([np.broadcast_to(one, grid.shape).ravel() for one in lowest])

    def draw(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Masks ``[N, agents, levels]`` int8, each drawn by its own generator."""
        drawn = [(rng.permutation(self._agents), rng.integers(self._levels, size=self._agents)) for rng in rngs]
        orders, wished = np.array(drawn).swapaxes(0, 1)  # [N, agents] each
        rows = self._raised[wished @ self._strides]
        for agents in orders.T:  # [N], the first in turn, then the second, ...
            stride = self._strides[agents]
            rows = rows + (self._lowest[agents, rows] - rows // stride % self._levels) * stride
        lowest = rows[:, None] // self._strides % self._levels  # [N, agents]
        return (np.arange(self._levels) >= lowest[..., None]).astype(np.int8)
