"""The masks of a budget for many environments over one table, with a handful of NumPy calls for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dsfp_env.wrappers.table_rows import TableRows


class ManyMasks:
    """`BudgetMasks.draw` for many environments at once.

    Args:
        rows: Where joint actions are in the table.
        allowed: ``[joint actions of the table]`` bool: which are within the budget; that of the highest levels is.
    """

    def __init__(self, rows: TableRows, allowed: np.ndarray) -> None:
        # Joint actions of the agents' own levels have numbers here, as if they made a table of their own.
        self._sizes, highest = rows.sizes, rows.sizes - 1
        self._strides = np.append(np.cumprod(self._sizes[:0:-1])[::-1], 1)  # [agents]
        every = np.arange(self._sizes.prod())[:, None] // self._strides % self._sizes  # [numbers, agents]
        allowed = allowed[rows.of_own(every)]
        # All levels raised by as little as is needed to be within the budget, as a number: [numbers]
        self._raised = np.full(len(every), len(every) - 1)
        for shift in reversed(range(self._sizes.max())):
            raised = np.minimum(every + shift, highest) @ self._strides
            self._raised = np.where(allowed[raised], raised, self._raised)
        # The lowest level of an agent that is allowed if the others have theirs: [agents, numbers]
        grid = allowed.reshape(self._sizes)
        lowest = [
            np.where(grid.any(agent, keepdims=True), grid.argmax(agent, keepdims=True), highest[agent])
            for agent in range(len(self._sizes))
        ]
        self._lowest = np.stack([np.broadcast_to(one, grid.shape).ravel() for one in lowest])

    def draw(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Masks ``[N, agents, levels]`` int8, each drawn by its own generator; 0 beyond the levels of an agent."""
        drawn = [(rng.permutation(len(self._sizes)), rng.integers(self._sizes)) for rng in rngs]
        orders, wished = np.array(drawn).swapaxes(0, 1)  # [N, agents] each
        numbers = self._raised[wished @ self._strides]
        for agents in orders.T:  # [N], the first in turn, then the second, ...
            stride = self._strides[agents]
            numbers = numbers + (self._lowest[agents, numbers] - numbers // stride % self._sizes[agents]) * stride
        lowest = numbers[:, None] // self._strides % self._sizes  # [N, agents]
        levels = np.arange(self._sizes.max())
        return ((levels >= lowest[..., None]) & (levels < self._sizes[:, None])).astype(np.int8)
