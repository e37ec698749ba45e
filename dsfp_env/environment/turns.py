"""A round of turns: agents choose one after another, and see what those before them chose and what that leaves.

An agent sees what the parallel environment shows it, every number as a share of its range, and then, for every
agent in the order of the layers:

| entry           | meaning                                                                              |
|-----------------|--------------------------------------------------------------------------------------|
| `conv_0.chosen` | 1 if that agent has chosen in this round                                             |
| `conv_0.ratio`  | its ratio / 100 %: what it chose, or else had in the round before (0 in the first) |
| `conv_0.turn`   | 1 if it is its turn                                                                  |

(first all that are ``chosen``, then all ``ratio``, then all ``turn``), and of the network

| entry           | meaning                                                                              |
|-----------------|--------------------------------------------------------------------------------------|
| `cost_at_least` | what it will cost / the original's, if all who have not chosen choose their highest  |
| `cost_at_most`  | the same, if they choose their lowest                                                |

So an observation has ``m + 3 * agents + 2`` numbers in [0, 1]; m of them are the parallel environment's. The cost
is of the budget's kind, of MACs if there is none. Where actions are levels every turn has its mask: the levels
with which the budget can still be met. Ratios of a box have none: they may exceed a budget, and the reward tells,
as in the parallel environment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.environment.infos import Infos
from dsfp_env.tasks.layer_features import bounded

EACH = ("chosen", "ratio", "turn")
COST = ("cost_at_least", "cost_at_most")
ORDERS = ("execution", "reverse")
REMEMBERED = 100_000  # costs


class Turns:
    """Rounds of turns in one environment; it takes no step in it.

    Args:
        env: A `LayerPruningEnv`, wrapped or not, or another with its ``ratios_of``, ``cost_range`` and
            ``action_mask``.
        order: In which agents choose: ``"execution"``, ``"reverse"``, or all agents, each once.

    Attributes:
        order: The agents in that order.
        features: Names of the entries of an observation.
        space: The space of observations.
        agent: Whose turn it is; None when all have chosen, and when the episode is over.
        chosen: Agent -> action, of those who have chosen.

    Raises:
        InputError: If the environment cannot tell costs, or the order is none of its agents.
    """

    def __init__(self, env: ParallelEnv[str, Any, Any], order: str | Iterable[str] = "execution") -> None:
        if not all(hasattr(env, needed) for needed in ("ratios_of", "cost_range", "action_mask")):
            raise InputError(
                f"The environment {env} does not tell what choices cost: expected a LayerPruningEnv, as "
                "dsfp_env.parallel_env makes, in a wrapper or without."
            )
        self._env: Any = env
        self._agents = list(env.possible_agents)
        self.order = order_of(self._agents, order)
        self._ends = {agent: _ends(env.observation_space(agent)) for agent in self._agents}
        size = len(next(iter(self._ends.values()))[0])
        of_one = getattr(env, "features", tuple(f"seen_{number}" for number in range(size)))
        self.features = (*of_one, *(f"{agent}.{what}" for what in EACH for agent in self._agents), *COST)
        self.space = Box(0.0, 1.0, (size + len(EACH) * len(self._agents) + len(COST),), np.float32)
        self.levels = all(isinstance(env.action_space(agent), Discrete) for agent in self._agents)
        self.agent: str | None = None
        self.chosen: dict[str, Any] = {}
        self._costs: dict[tuple[float, ...], tuple[float, float]] = {}  # by ratios of the first so many
        self._first_masks: dict[str, np.ndarray] = {}
        self._shown: dict[str, np.ndarray] = {}
        self._ratios: list[float] = []  # percent, of those who have chosen
        # What is the same for whoever looks: a row each for chosen, ratio and turn, and the two costs.
        self._each, self._cost = np.zeros((len(EACH), len(self._agents)), np.float32), np.zeros(2, np.float32)

    @property
    def is_last(self) -> bool:
        """Whether it is the last turn of a round."""
        return len(self.chosen) == len(self.order) - 1

    def begin(self, observations: Mapping[str, np.ndarray], infos: Infos, over: bool = False) -> None:
        """Begin a round with what the environment tells; if the episode is over, it is nobody's turn."""
        self._shown = {
            agent: bounded((observation - self._ends[agent][0]) / self._ends[agent][1])
            for agent, observation in observations.items()
        }
        self.chosen, self._ratios = {}, []
        self._each[:] = 0
        self._each[1] = [infos[agent]["ratio"] / 100 for agent in self._agents]
        self._give_turn(None if over else self.order[0])

    def choose(self, action: Any) -> None:
        """The agent whose turn it is chooses, and it is the next one's turn.

        Raises:
            InputError: If the action is not in its space; nothing has changed then.
        """
        agent = self.agent
        assert agent is not None
        ratio = self._env.ratios_of({agent: action})[agent]
        self.chosen[agent] = int(np.asarray(action).item()) if self.levels else np.array(action)  # a copy
        self._ratios.append(ratio)
        place = self._agents.index(agent)
        self._each[:, place] = 1, ratio / 100, 0
        self._give_turn(self.order[len(self.chosen)] if len(self.chosen) < len(self.order) else None)

    def with_last(self, action: Any) -> dict[str, Any]:
        """The joint action that the last choice of a round makes; nothing has changed by that.

        Raises:
            InputError: If the action is not in its space.
        """
        assert self.agent is not None
        chosen = {**self.chosen, self.agent: action}
        return {agent: chosen[agent] for agent in self._agents}

    def seen(self, agent: str) -> np.ndarray:
        """The observation of an agent, ``[m + 3 * agents + 2]`` float32 in [0, 1], a new array."""
        return np.concatenate([self._shown[agent], self._each.ravel(), self._cost])

    def state(self, of_all: np.ndarray) -> np.ndarray:
        """The state of the environment, followed by what is the same for whoever looks."""
        return np.concatenate([of_all, self._each.ravel(), self._cost])

    def state_space(self, of_all: Box) -> Box:
        """The space of `state`."""
        return Box(0.0, 1.0, (of_all.shape[0] + len(EACH) * len(self._agents) + len(COST),), np.float32)

    def mask(self, agent: str) -> np.ndarray:
        """The levels that an agent may choose, ``[levels]`` int8, given what was chosen."""
        if self.chosen:
            return self._env.action_mask(agent, self.chosen)
        if agent not in self._first_masks:
            self._first_masks[agent] = self._env.action_mask(agent, {})
        return self._first_masks[agent].copy()

    def _give_turn(self, agent: str | None) -> None:
        self.agent = agent
        if agent is not None:
            self._each[2, self._agents.index(agent)] = 1
        self._cost[:] = self._cost_range()

    def _cost_range(self) -> tuple[float, float]:
        known = tuple(self._ratios)
        if known not in self._costs:
            if len(self._costs) == REMEMBERED:
                self._costs.clear()
            self._costs[known] = self._env.cost_range(dict(zip(self.order, known, strict=False)))
        return self._costs[known]


def order_of(agents: list[str], order: str | Iterable[str]) -> tuple[str, ...]:
    """The agents in the order in which they choose.

    Raises:
        InputError: If it is none of `ORDERS`, and not all agents, each once.
    """
    if isinstance(order, str) and order in ORDERS:
        return tuple(agents if order == "execution" else reversed(agents))
    try:
        listed = () if isinstance(order, (str, Mapping)) else tuple(order)
    except TypeError:  # also of an array without dimensions
        listed = ()
    if not all(isinstance(agent, str) for agent in listed) or sorted(listed) != sorted(agents):
        raise InputError(
            f"The order is {shortened(order)}: expected 'execution', 'reverse', or all agents, each once, of "
            f"{', '.join(agents)}."
        )
    return listed


def _ends(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """The lowest values of an observation, and the widths of their ranges."""
    return space.low, space.high - space.low
