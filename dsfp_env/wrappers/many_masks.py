"""The masks of a budget for many environments, with NumPy calls for all of them at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from dsfp_env.wrappers.table_rows import TableRows


class ManyMasks:
    """`BudgetMasks.draw` for many environments over one table at once.

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
        orders, wished = _drawn(rngs, self._sizes)
        numbers = self._raised[wished @ self._strides]
        for agents in orders.T:  # [N], the first in turn, then the second, ...
            stride = self._strides[agents]
            numbers = numbers + (self._lowest[agents, numbers] - numbers // stride % self._sizes[agents]) * stride
        return _from(numbers[:, None] // self._strides % self._sizes, self._sizes)


class SearchedMasks:
    """The same where there are too many joint actions to know of all whether they are allowed.

    Args:
        levels: Percent, rising.
        lowest: ``[agents]``, the first level that an agent may choose.
        sizes: ``[agents]``, levels that it may choose, from that upwards.
        used: Ratios in percent ``[N, agents]`` -> what is used, ``[N]``; falls with every ratio, or stays.
        allowed: How much may be used; less than that is with the highest levels.
    """

    def __init__(
        self,
        levels: np.ndarray,
        lowest: np.ndarray,
        sizes: np.ndarray,
        used: Callable[[np.ndarray], np.ndarray],
        allowed: float,
    ) -> None:
        self._levels, self._lowest, self._sizes, self._used, self._allowed = levels, lowest, sizes, used, allowed

    def draw(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """As `ManyMasks.draw`."""
        orders, wished = _drawn(rngs, self._sizes)
        raise_by = partial(_raised, wished, self._sizes - 1)
        levels = raise_by(self._least(raise_by, np.full(len(wished), self._sizes.max() - 1)))
        for agents in orders.T:  # [N], the first in turn, then the second, ...
            choose = partial(_with, levels, agents)
            levels = choose(self._least(choose, levels[np.arange(len(levels)), agents]))
        return _from(levels, self._sizes)

    def _least(self, levels_of: Callable[[np.ndarray], np.ndarray], enough: np.ndarray) -> np.ndarray:
        """The least numbers ``[N]`` whose levels are within the budget, found by halving.

        Args:
            levels_of: Numbers ``[N]`` -> levels ``[N, agents]`` that rise with them.
            enough: Numbers whose levels are within it, ``[N]``.
        """
        least = np.zeros_like(enough)
        while (least < enough).any():
            middle = (least + enough) // 2
            fine = self._used(self._levels[levels_of(middle) + self._lowest]) <= self._allowed
            least, enough = np.where(fine, least, np.minimum(middle + 1, enough)), np.where(fine, middle, enough)
        return least


def _raised(levels: np.ndarray, highest: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Levels ``[N, agents]``, all raised by so much, ``[N]``, up to the highest."""
    return np.minimum(levels + by[:, None], highest)


def _with(levels: np.ndarray, agents: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Levels ``[N, agents]``, of which one agent each, ``[N]``, has another, ``[N]``."""
    changed = levels.copy()
    changed[np.arange(len(levels)), agents] = level
    return changed


def _drawn(rngs: Sequence[np.random.Generator], sizes: np.ndarray) -> np.ndarray:
    """The turns of agents, and the levels that they wish to be lowest, ``[2, N, agents]``."""
    return np.array([(rng.permutation(len(sizes)), rng.integers(sizes)) for rng in rngs]).swapaxes(0, 1)


def _from(lowest: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Masks ``[N, agents, levels]`` from lowest levels ``[N, agents]``."""
    levels = np.arange(sizes.max())
    return ((levels >= lowest[..., None]) & (levels < sizes[:, None])).astype(np.int8)
