"""A function as a team: what it returns is played, and nothing is learned.

For heuristics, for policies that were learned elsewhere, and as a yardstick.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agents.base import JointTransition


def from_function(function: Callable[[Any, Any], Any], *, joint: bool = False) -> FunctionTeam:
    """Make a team of a function.

    Args:
        function: ``function(observation, info)`` -> action, called for every agent alike; where a budget masks
            levels, ``info["action_mask"]`` says which are allowed.
        joint: Whether it is one function of all: ``function(observations, infos)`` -> action by agent.
    """
    return FunctionTeam(function, joint=joint)


class FunctionTeam:
    """A `MultiAgent` that plays what a function says; see `from_function`."""

    def __init__(self, function: Callable[[Any, Any], Any], *, joint: bool = False) -> None:
        self.function, self.joint = function, joint

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """What the function says, deterministic or not."""
        if self.joint:
            return dict(self.function(observations, infos))
        return {agent: self.function(seen, infos[agent]) for agent, seen in observations.items()}

    def update(self, transition: JointTransition) -> None:
        """Nothing is learned."""
