"""Joint actions of levels, chosen by one agent after another, so that they stay within a budget, if there is one.

A joint action here is an array ``[agents]`` of levels, in the order of the environment's agents. Where infos carry
masks, every agent has the one that the choices before its own leave; see `dsfp_env.environment.masks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from pettingzoo import ParallelEnv

from agents.masking import allowed, infos_in_turn
from dsfp_env.common.errors import InputError

Infos = Mapping[str, dict[str, Any]]
Choose = Callable[[int, np.ndarray], int]
"""(number of the agent, levels that it may choose ``[k]``) -> a level"""
Worth = Callable[[np.ndarray], np.ndarray]
"""Joint actions ``[k, agents]`` -> what each is believed worth ``[k]``"""
SWEEPS = 10  # of all agents, at most
PAIRS = 40  # of agents that change together, in a sweep, at most
TRIES = 4  # where the best joint action within a budget is wanted, not just a good one to try


class InTurn:
    """The joint actions of one environment.

    Args:
        env: Its actions are levels.
        learner: Who asks, for the message.

    Attributes:
        agents: Their names, in order.
        num_levels: The most that any of them has; masks leave out what the others lack.

    Raises:
        InputError: If actions are no levels.
    """

    def __init__(self, env: ParallelEnv[str, Any, Any], learner: str) -> None:
        self._env, self.agents = env, list(env.possible_agents)
        self._sizes: dict[str, int] = {}
        for agent in self.agents:
            space = env.action_space(agent)
            if not isinstance(space, Discrete):
                raise InputError(
                    f"{learner} got the action space {space} for {agent}: expected a Discrete. Make the "
                    "environment with actions='levels'."
                )
            self._sizes[agent] = int(space.n)
        self.num_levels = max(self._sizes.values())
        self._highest = np.array([size - 1 for size in self._sizes.values()])

    def choose(self, infos: Infos, choose: Choose, order: np.ndarray) -> np.ndarray:
        """Let the agents choose in this order, each of what the choices before its own leave."""
        chosen: dict[str, int] = {}
        for number in order:
            agent = self.agents[number]
            chosen[agent] = int(choose(int(number), self._allowed(infos, agent, chosen)))
        return np.array([chosen[agent] for agent in self.agents])

    def nearest(self, infos: Infos, wished: np.ndarray, order: np.ndarray) -> np.ndarray:
        """The wished joint action, or, where masks forbid a level, the nearest that is left."""
        return self.choose(infos, lambda i, levels: int(levels[np.abs(levels - wished[i]).argmin()]), order)

    def climb(
        self, infos: Infos, start: np.ndarray, worth: Worth, rng: np.random.Generator, *, tries: int = 1
    ) -> np.ndarray:
        """Change one agent's level at a time to the one worth most, until no change is better.

        At the edge of a budget no single change may be both allowed and better. So where infos carry masks, pairs
        of agents change too: one to a lower level, and the other to one that this leaves.

        Args:
            infos: Of the environment.
            start: Where to begin; brought under the masks first.
            worth: What joint actions are believed worth.
            rng: Draws the order of the agents.
            tries: With masks, as often, in other orders; the best end is taken.
        """
        if not any("action_mask" in infos[agent] for agent in self.agents):
            return self._climbed(infos, self.nearest(infos, start, rng.permutation(len(start))), worth, rng)
        ends = [self._in_pairs(infos, self.raised(infos, start, rng), worth, rng) for _ in range(tries)]
        return ends[int(np.argmax(worth(np.stack(ends))))]

    def allows(self, infos: Infos, joint: np.ndarray) -> bool:
        """Whether a joint action has levels that there are, which masks leave together."""
        if (joint > self._highest).any():
            return False
        return all(level in self._left(infos, joint, number) for number, level in enumerate(joint))

    def raised(self, infos: Infos, wished: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The wished joint action under the masks: all levels are raised together until it is allowed.

        Then one agent after another returns towards what was wished, as far as it may.
        """
        joint = np.minimum(wished, self._highest)
        while not self.allows(infos, joint):
            joint = np.minimum(joint + 1, self._highest)
        joint = joint.copy()
        for number in rng.permutation(len(joint)):
            levels = self._left(infos, joint, int(number))
            joint[number] = levels[np.abs(levels - wished[number]).argmin()]
        return joint

    def _climbed(self, infos: Infos, joint: np.ndarray, worth: Worth, rng: np.random.Generator) -> np.ndarray:
        """By changes of one agent."""
        for _ in range(SWEEPS):
            before = joint.copy()
            for number in rng.permutation(len(self.agents)):
                joint = self._improved(infos, joint, int(number), worth)
            if (joint == before).all():
                break
        return joint

    def _in_pairs(self, infos: Infos, joint: np.ndarray, worth: Worth, rng: np.random.Generator) -> np.ndarray:
        """By changes of one agent and of two; which two is drawn, as there may be many."""
        for _ in range(SWEEPS):
            joint = self._climbed(infos, joint, worth, rng)
            before = joint
            for giver, taker in rng.permutation(list(permutations(range(len(joint)), 2)))[:PAIRS].tolist():
                joint = self._exchanged(infos, joint, giver, taker, worth)
            if joint is before:
                break
        return joint

    def _exchanged(self, infos: Infos, joint: np.ndarray, giver: int, taker: int, worth: Worth) -> np.ndarray:
        """A joint action, or a better one where the giver has a lower level and the taker one that this leaves."""
        tried = joint.copy()
        tried[taker] = self._sizes[self.agents[taker]] - 1
        found = [joint]
        for level in self._left(infos, tried, giver):
            if level < joint[giver]:
                tried[giver] = level
                left = self._left(infos, tried, taker)
                found.append(np.repeat(tried[None], len(left), 0))
                found[-1][:, taker] = left
        candidates = np.vstack(found)
        best = int(np.argmax(worth(candidates)))
        return candidates[best] if best else joint

    def _left(self, infos: Infos, joint: np.ndarray, number: int) -> np.ndarray:
        """The levels that an agent may choose, where all others keep theirs."""
        others = self.as_actions(joint)
        del others[self.agents[number]]
        return self._allowed(infos, self.agents[number], others)

    def as_actions(self, joint: np.ndarray) -> dict[str, int]:
        """By agent."""
        return dict(zip(self.agents, joint.tolist(), strict=True))

    def as_joint(self, actions: Mapping[str, Any]) -> np.ndarray:
        """From actions by agent."""
        return np.array([int(actions[agent]) for agent in self.agents])

    def _improved(self, infos: Infos, joint: np.ndarray, number: int, worth: Worth) -> np.ndarray:
        levels = self._left(infos, joint, number)
        candidates = np.repeat(joint[None], len(levels), 0)
        candidates[:, number] = levels
        return candidates[np.argmax(worth(candidates))]

    def _allowed(self, infos: Infos, agent: str, chosen: Mapping[str, int]) -> np.ndarray:
        return allowed(infos_in_turn(self._env, infos, agent, chosen), self._sizes[agent])
