"""A budget as action masks: which levels an agent may choose.

Whether a level is too expensive depends on what the others choose, so there are two kinds of mask:

- **In turn** (`BudgetMasks.of`): given what some agents have chosen, the levels with which the others can still
  meet the budget. Agents who choose one after another, each with the mask that the choices before it leave, end
  within the budget whatever they choose, and every joint action within the budget can be chosen.
- **At once** (`BudgetMasks.draw`): for each agent the levels from a lowest one upwards. The lowest levels together
  meet the budget, and costs fall with every level, so whatever is chosen under these masks does too. Such masks
  leave out some joint actions that are within the budget; so the lowest levels are drawn anew for every episode,
  and every such joint action can be chosen in some.

A mask is an array ``[levels]`` of int8, 1 where a level may be chosen, as PettingZoo's spaces take it; agents
whose ratios are bounded have fewer levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.evaluation.plans import Plan


class BudgetMasks:
    """Masks for the agents of one environment.

    Args:
        levels: Agent -> the ratios of its levels, in percent, rising.
        relative_cost: Plan (ratios in percent by agent) -> MACs of the network pruned by it (or parameters, or
            time), as a fraction of the original's; falls with every ratio, or stays.
        allowed: The fraction that is allowed.
        what: It is a fraction of, in words.

    Raises:
        InputError: If even pruning every layer by the highest level is beyond the budget.
    """

    def __init__(
        self,
        levels: Mapping[str, np.ndarray],
        relative_cost: Callable[[dict[str, float]], float],
        allowed: float,
        what: str = "MACs",
    ) -> None:
        self._agents, self._relative_cost, self.allowed = list(levels), relative_cost, allowed
        self._levels = [of_one.tolist() for of_one in levels.values()]
        self._highest = [len(of_one) - 1 for of_one in self._levels]
        self._within: dict[tuple[int, ...], bool] = {}
        if not self.allow({}):
            most = sorted({of_one[-1] for of_one in self._levels})
            by = " or ".join(f"{ratio:.0f}" for ratio in most)
            least = relative_cost(self._plan(self._highest))
            raise InputError(
                f"The {'time' if 'time' in what else what} budget is {allowed:.6g}, but with every layer pruned "
                f"by {by} % the network still has {least:.4f} of its {what}: expected a budget of at least that."
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> BudgetMasks:
        return self  # what it knows does not change

    def allow(self, chosen: Mapping[str, int]) -> bool:
        """Whether the budget can be met with these levels by agent, if all others choose the highest."""
        return self._allow(self._completed(chosen))

    def of(self, agent: str, chosen: Mapping[str, int] | None = None) -> np.ndarray:
        """The mask of an agent, given what others have chosen.

        Args:
            agent: Whose turn it is.
            chosen: Agent -> level; its own is not looked at.

        Returns:
            ``[levels of the agent]`` int8; 1 where it may be chosen.

        Raises:
            InputError: If there is no such agent, or levels are none.
        """
        if not isinstance(agent, str) or agent not in self._agents:
            raise InputError(f"There is no agent {shortened(agent)}: expected one of {', '.join(self._agents)}.")
        if chosen is not None:
            self._check(chosen)
        place = self._agents.index(agent)
        return self._from(place, self._lowest(place, self._completed(chosen or {})))

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Masks for all agents at once, drawn at random: by agent, ``[levels of the agent]`` int8."""
        order = rng.permutation(len(self._agents)).tolist()
        wished = rng.integers([highest + 1 for highest in self._highest]).tolist()
        raised = (
            [min(level + shift, highest) for level, highest in zip(wished, self._highest, strict=True)]
            for shift in range(max(self._highest) + 1)
        )
        lowest = next(levels for levels in raised if self._allow(levels))
        for place in order:
            lowest[place] = self._lowest(place, lowest)
        return {agent: self._from(place, lowest[place]) for place, agent in enumerate(self._agents)}

    def _allow(self, levels: list[int]) -> bool:
        """Whether the levels of all agents, in their order, are within the budget."""
        key = tuple(levels)
        if key not in self._within:
            self._within[key] = self._relative_cost(self._plan(levels)) <= self.allowed
        return self._within[key]

    def _lowest(self, place: int, levels: list[int]) -> int:
        """The lowest level that an agent may choose; the highest, if the others have left nothing."""
        highest, tried = self._highest[place], list(levels)
        for level in range(highest):
            tried[place] = level
            if self._allow(tried):
                return level
        return highest

    def _completed(self, chosen: Mapping[str, int]) -> list[int]:
        """The levels of all agents in their order, the highest for those who have not chosen."""
        return [int(chosen.get(agent, most)) for agent, most in zip(self._agents, self._highest, strict=True)]

    def _check(self, chosen: Mapping[str, int]) -> None:
        """Refuse what are no levels by agent."""
        if not isinstance(chosen, Mapping) or not chosen.keys() <= set(self._agents):
            raise InputError(
                f"The levels that were chosen are {shortened(chosen)}: expected a dict of levels by agent, of "
                f"{', '.join(self._agents)}."
            )
        for agent, highest in zip(self._agents, self._highest, strict=True):
            level = chosen.get(agent, highest)
            if not isinstance(level, (int, np.integer)) or not 0 <= level <= highest:
                raise InputError(
                    f"The level of {agent} is {shortened(level)}: expected a whole number from 0 to {highest}."
                )

    def _plan(self, levels: list[int]) -> Plan:
        """Ratios in percent by agent."""
        return {agent: self._levels[place][levels[place]] for place, agent in enumerate(self._agents)}

    def _from(self, place: int, lowest: int) -> np.ndarray:
        return (np.arange(self._highest[place] + 1) >= lowest).astype(np.int8)
