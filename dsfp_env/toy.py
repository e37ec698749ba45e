"""A cooperative problem of the environment's shape whose optimum is known, and whose steps take microseconds.

Every agent has a best ratio, and the joint action of all of them is worth 1:

    score = product over agents of 1 - ((ratio - best ratio) / 100)^2

so a ratio matters the more, the nearer the others are to theirs. It has the spaces, infos, rewards and masks of
`LayerPruningEnv`, without a network. For trying learners out, and for testing them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Space
from pettingzoo import ParallelEnv

from dsfp_env.environment.actions import action_space, choices_of, decode
from dsfp_env.environment.infos import Infos, infos_of
from dsfp_env.environment.masks import BudgetMasks
from dsfp_env.tasks.layer_control import Decider
from dsfp_env.tasks.ratios import HIGHEST, LOWEST

BEST_RATIOS = {"conv_0": 20.0, "conv_1": 70.0, "conv_2": 40.0}  # percent


class ToyEnv(ParallelEnv[str, np.ndarray, Any]):
    """The toy; a reward is the change in score, as in `LayerPruningEnv`.

    Args:
        actions: ``"levels"`` or ``"box"``.
        horizon: Steps in an episode.
        macs_budget: Relative MACs allowed, which masks levels; the toy's relative MACs are the mean share of
            filters kept.
        best_ratios: Agent -> percent, in [10, 90].
        bounds: Agent -> what its ratio lies between, in percent, if that is less than [10, 90].
    """

    metadata = {"name": "toy_v0", "render_modes": []}  # noqa: RUF012 - PettingZoo reads it from the class
    features = ("place", "ratio", "score", "time")

    def __init__(
        self,
        actions: str = "levels",
        horizon: int = 1,
        macs_budget: float | None = None,
        best_ratios: Mapping[str, float] = BEST_RATIOS,
        bounds: Mapping[str, tuple[float, float]] = MappingProxyType({}),
    ) -> None:
        self.best_ratios = dict(best_ratios)
        self.possible_agents = list(best_ratios)
        self.agents: list[str] = []
        self.render_mode = None
        self.macs_budget = macs_budget
        self._actions, self._horizon = actions, horizon
        deciders = {agent: Decider((agent,), *bounds.get(agent, (LOWEST, HIGHEST))) for agent in best_ratios}
        self._choices = choices_of(deciders, actions)
        self._action_spaces = {agent: action_space(actions, choice) for agent, choice in self._choices.items()}
        self._observation_spaces = {agent: Box(0, 1, (4,), np.float32) for agent in best_ratios}
        self.state_space = Box(0, 1, (len(best_ratios) + 2,), np.float32)
        levels = {agent: choice.levels for agent, choice in self._choices.items()}
        self._budget_masks = None if macs_budget is None else BudgetMasks(levels, self.relative_macs, macs_budget)
        self._masks: dict[str, np.ndarray] = {}
        self._rng = np.random.default_rng(0)
        self._was_reset = False
        self._ratios, self._score, self._time = dict.fromkeys(best_ratios, 0.0), 0.0, 0

    def observation_space(self, agent: str) -> Box:
        """The agent's place, its last ratio, the last score and the time: ``Box(0, 1, (4,))``."""
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> Space[Any]:
        """As in `LayerPruningEnv`."""
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], Infos]:
        """Start an episode; the seed draws masks, nothing else is random."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self.agents, self._was_reset = list(self.possible_agents), True
        self._ratios, self._score, self._time = dict.fromkeys(self.agents, 0.0), 0.0, 0
        if self._budget_masks is not None and self._actions == "levels":
            self._masks = self._budget_masks.draw(self._rng)
        return self._observe(), self._infos()

    def step(self, actions: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
        """Take a joint action; refusals are those of `LayerPruningEnv.step`."""
        if not self._was_reset or (actions and not self.agents):
            raise ResetNeeded("step was called before reset, or after the end: call env.reset(seed=...) first.")
        if not self.agents:
            return {}, {}, {}, {}, {}
        self._ratios = decode(actions, self._choices, self._actions)
        before, self._score = self._score, self.score(self._ratios)
        self._time += 1
        over = self._time >= self._horizon
        acted, self.agents = self.agents, [] if over else self.agents
        return (
            self._observe(),
            dict.fromkeys(acted, self._score - before),
            dict.fromkeys(acted, over),
            dict.fromkeys(acted, False),
            self._infos(),
        )

    def state(self) -> np.ndarray:
        """The shares of filters that are kept, the last score and the time: ``[agents + 2]``, in [0, 1]."""
        kept = [1 - ratio / 100 for ratio in self._ratios.values()]
        return np.array([*kept, self._score, self._time / self._horizon], np.float32)

    def score(self, ratios: Mapping[str, float]) -> float:
        """What ratios in percent by agent are worth, in [0, 1]."""
        return float(
            np.prod([1 - ((ratios[agent] - best) / 100) ** 2 for agent, best in self.best_ratios.items()])
        )

    def relative_macs(self, plan: Mapping[str, float]) -> float:
        """The multiply-adds that are left with these ratios, in percent by agent, over the original's."""
        return 1 - float(np.mean(list(plan.values()))) / 100

    def action_mask(self, agent: str, chosen: Mapping[str, int] | None = None) -> np.ndarray:
        """As `LayerPruningEnv.action_mask`."""
        if self._budget_masks is None:
            return np.ones(len(self._choices[agent].levels), np.int8)
        return self._budget_masks.of(agent, chosen)

    def ratios_of(self, actions: Mapping[str, Any]) -> dict[str, float]:
        """As `LayerPruningEnv.ratios_of`."""
        acting = {agent: choice for agent, choice in self._choices.items() if agent in actions}
        return decode(actions, acting, self._actions)

    def cost_range(self, ratios: Mapping[str, float]) -> tuple[float, float]:
        """As `LayerPruningEnv.cost_range`."""
        highest = {agent: choice.highest for agent, choice in self._choices.items()}
        lowest = {agent: choice.lowest for agent, choice in self._choices.items()}
        return self.relative_macs({**highest, **ratios}), self.relative_macs({**lowest, **ratios})

    def _observe(self) -> dict[str, np.ndarray]:
        shared = self._score, self._time / self._horizon
        places = np.linspace(0, 1, len(self.possible_agents) + 1)[1:]  # no observation is all zeros
        return {
            agent: np.array([place, self._ratios[agent] / 100, *shared], np.float32)
            for agent, place in zip(self.possible_agents, places, strict=True)
        }

    def _infos(self) -> Infos:
        team = {"score": self._score, "relative_macs": self.relative_macs(self._ratios)}
        masks = {agent: {"action_mask": mask.copy()} for agent, mask in self._masks.items()}
        return infos_of(team, {agent: {"ratio": r, **masks.get(agent, {})} for agent, r in self._ratios.items()})
