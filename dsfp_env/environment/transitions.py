"""What agents live through in one step of an environment, in Gymnasium's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


def score_of(infos: Mapping[str, dict[str, Any]], rewards: Mapping[str, float]) -> float:
    """What a joint action was worth: the score that the environment tells, else the mean reward."""
    told = next(iter(infos.values())).get("score")
    return float(told) if told is not None else sum(rewards.values()) / len(rewards)


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
        """What the joint action was worth: the score that the environment tells, else the reward.

        In episodes of one step they are the same; in longer ones the reward is the change in score.
        """
        return float(self.info.get("score", self.reward))

    @property
    def credit(self) -> float:
        """The agent's own part in the score, if the environment tells it, else the score.

        With shared credit they are the same; see `dsfp_env.environment.credit`.
        """
        return float(self.info.get("credit", self.score))


class JointTransition(NamedTuple):
    """What all agents lived through in one step; every field is a dictionary by agent."""

    observations: dict[str, Any]
    actions: dict[str, Any]
    rewards: dict[str, float]
    next_observations: dict[str, Any]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, dict[str, Any]]

    @property
    def score(self) -> float:
        """What the joint action was worth: the score that the environment tells, else the mean reward."""
        return score_of(self.infos, self.rewards)

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
