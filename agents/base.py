"""What a learner is: two verbs, and Gymnasium's words.

Any object with these methods plugs in; nothing needs to be inherited.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.spaces import Space


class Transition(NamedTuple):
    """What one agent lived through in one step."""

    observation: Any
    action: Any
    reward: float
    next_observation: Any
    terminated: bool
    truncated: bool
    info: dict[str, Any]  # that came with next_observation

    @property
    def score(self) -> float:
        """What the action was worth: the score that the environment tells, else the reward.

        In episodes of one step they are the same; in longer ones the reward is the change in score.
        """
        return float(self.info.get("score", self.reward))


class JointTransition(NamedTuple):
    """What all agents lived through in one step; every field is a dictionary by agent."""

    observations: dict[str, Any]
    actions: dict[str, Any]
    rewards: dict[str, float]
    next_observations: dict[str, Any]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, dict[str, Any]]

    def of(self, agent: str) -> Transition:
        """The part of one agent."""
        return Transition(
            self.observations[agent],
            self.actions[agent],
            self.rewards[agent],
            self.next_observations[agent],
            self.terminations[agent],
            self.truncations[agent],
            self.infos[agent],
        )


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
