"""What a learner is: two verbs, and Gymnasium's words.

Any object with these methods plugs in; nothing needs to be inherited. `dsfp_env.testing.check_agent` says in a
sentence what is wrong with one.

Where a budget of MACs masks levels, ``info["action_mask"]`` tells an agent which it may choose (see
`agents.masking`). A learner that sees the observation only has no need of ``info``.
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
        """Choose an action; if deterministic, the one that is believed best, without exploring."""

    def update(self, transition: Transition) -> Mapping[str, float] | None:
        """Learn from a step; what is returned may be logged."""


class MultiAgent(Protocol):
    """Learns for all layers at once: the same verbs on dictionaries by agent."""

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """Choose a joint action."""

    def update(self, transition: JointTransition) -> Mapping[str, float] | None:
        """Learn from a step."""


MakeAgent = Callable[[str, Space[Any], Space[Any], np.random.Generator], Agent]
"""(agent, observation space, action space, its own random generator) -> a learner for that agent."""

MakeTeam = Callable[[ParallelEnv[str, Any, Any], int], MultiAgent]
"""(environment, seed) -> learners for all of its agents."""
