"""What a learner is: two verbs, and Gymnasium's words.

Any object with these methods plugs in; nothing needs to be inherited. `dsfp_env.testing.check_agent` says in a
sentence what is wrong with one.

Where a budget of MACs masks levels, ``info["action_mask"]`` tells an agent which it may choose (see
`agents.masking`). A learner that sees the observation only has no need of ``info``.

**Several at once.** With a batch of k, k joint actions are chosen before the first of them is learned from:
``act`` is called k times, then ``update`` k times, in the same order. Two things are optional, of a learner of one
layer as of a team:

- ``act_many(observations, infos)``, for those who know better what to choose k times without news. It takes lists,
  an entry for each of the k, and returns a list of k actions (joint actions, of a team). Of one it is ``act``.
- ``alternates = True``, for those who must learn from each action before the next: they are refused a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Space
from pettingzoo import ParallelEnv

from dsfp_env.environment.transitions import JointTransition as JointTransition
from dsfp_env.environment.transitions import Transition as Transition


class Agent(Protocol):
    """Learns for one layer."""

    def act(self, observation: Any, info: dict[str, Any], *, deterministic: bool = False) -> Any:
        """Choose an action.

        Args:
            observation: What the environment gives the agent, ``[13]`` float32 in [0, 1] unless asked otherwise.
            info: Likewise, such as the ``action_mask`` of a budget.
            deterministic: Whether it is the one that is believed best, without exploring.

        Returns:
            One of the action space: a level from 0, or ``[1]`` float, a ratio in percent.
        """

    def update(self, transition: Transition) -> Mapping[str, float] | None:
        """Learn from a step.

        Args:
            transition: What was seen, done and earned, and ``score``, what the joint action was worth.

        Returns:
            Nothing, or numbers by name, which may be logged.
        """


class MultiAgent(Protocol):
    """Learns for all layers at once: the same verbs on dictionaries by agent."""

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """Choose a joint action; arguments as for `Agent.act`, and what is returned, by agent."""

    def update(self, transition: JointTransition) -> Mapping[str, float] | None:
        """Learn from a step; as `Agent.update`, with what all agents saw, did and earned."""


MakeAgent = Callable[[str, Space[Any], Space[Any], np.random.Generator], Agent]
"""(agent, observation space, action space, its own random generator) -> a learner for that agent."""

MakeTeam = Callable[[ParallelEnv[str, Any, Any], int], MultiAgent]
"""(environment, seed) -> learners for all of its agents."""
