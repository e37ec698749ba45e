"""A budget of MACs as action masks: which levels an agent may choose.

Whether a level is too expensive depends on what the others choose, so there are two kinds of mask:

- **In turn** (`BudgetMasks.of`): given what some agents have chosen, the levels with which the others can still
  meet the budget. Agents who choose one after another, each with the mask that the choices before it leave, end
  within the budget whatever they choose, and every joint action within the budget can be chosen.
- **At once** (`BudgetMasks.draw`): for each agent the levels from a lowest one upwards. The lowest levels together
  meet the budget, and costs fall with every level, so whatever is chosen under these masks does too. Such masks
  leave out some joint actions that are within the budget; so the lowest levels are drawn anew for every episode,
  and every such joint action can be chosen in some.

A mask is an array ``[levels]`` of int8, 1 where a level may be chosen, as PettingZoo's spaces take it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from dsfp_env.actions import LEVELS
from dsfp_env.errors import InputError

HIGHEST_LEVEL = len(LEVELS) - 1


class BudgetMasks:
    """Masks for the agents of one environment.

    Args:
        agents: Their names.
        relative_macs: Plan (ratios in percent by agent) -> MACs of the network pruned by it, as a fraction of the
            original's; falls with every ratio.
        macs_budget: The fraction that is allowed.

    Raises:
        InputError: If even pruning every layer by 90 % is beyond the budget.
    """

    def __init__(
        self, agents: Iterable[str], relative_macs: Callable[[dict[str, float]], float], macs_budget: float
    ) -> None:
        self._agents, self._relative_macs, self.macs_budget = list(agents), relative_macs, macs_budget
        self._within: dict[tuple[int, ...], bool] = {}
        if not self.allow({}):
            least = relative_macs(dict.fromkeys(self._agents, float(LEVELS[-1])))
            raise InputError(
                f"The MACs budget is {macs_budget}, but with every layer pruned by {LEVELS[-1]:.0f} % the network "
                f"still has {least:.4f} of its MACs: expected a budget of at least that."
            )

    def allow(self, chosen: Mapping[str, int]) -> bool:
        """Whether the budget can be met with these levels by agent, if all others choose the highest."""
        levels = tuple(int(chosen.get(agent, HIGHEST_LEVEL)) for agent in self._agents)
        if levels not in self._within:
            plan = {agent: float(LEVELS[level]) for agent, level in zip(self._agents, levels, strict=True)}
            self._within[levels] = self._relative_macs(plan) <= self.macs_budget
        return self._within[levels]

    def of(self, agent: str, chosen: Mapping[str, int] | None = None) -> np.ndarray:
        """The mask of an agent, given what others have chosen.

        Args:
            agent: Whose turn it is.
            chosen: Agent -> level; its own is not looked at.
        """
        return _from(self._lowest(agent, dict(chosen or {})))

    def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Masks for all agents at once, drawn at random."""
        order = [self._agents[i] for i in rng.permutation(len(self._agents))]
        wished = dict(zip(self._agents, rng.integers(len(LEVELS), size=len(self._agents)).tolist(), strict=True))
        shift = next(s for s in range(len(LEVELS)) if self.allow(_raised(wished, s)))
        lowest = _raised(wished, shift)
        for agent in order:
            lowest[agent] = self._lowest(agent, lowest)
        return {agent: _from(level) for agent, level in lowest.items()}

    def _lowest(self, agent: str, chosen: Mapping[str, int]) -> int:
        """The lowest level that is allowed; the highest, if the others have left nothing."""
        return next(
            (level for level in range(HIGHEST_LEVEL) if self.allow({**chosen, agent: level})), HIGHEST_LEVEL
        )


def _from(lowest: int) -> np.ndarray:
    return (np.arange(len(LEVELS)) >= lowest).astype(np.int8)


def _raised(levels: Mapping[str, int], shift: int) -> dict[str, int]:
    return {agent: min(level + shift, HIGHEST_LEVEL) for agent, level in levels.items()}
