"""A task as a file of measurements tells of it, with agents for its layers as they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.tasks.layer_control import LayerControl, Layers, controlled, coupled_agents
from dsfp_env.tasks.layer_features import together


@dataclass(frozen=True)
class RecordedTask:
    """What is known of a task without its network.

    Attributes:
        name: Of the task.
        recorded: What is recorded of each agent, one for each layer: ``path``, ``filters``, ``coupled_with`` and
            ``features``.
        control: Who decides for which of these layers.
    """

    name: str
    recorded: Mapping[str, Mapping[str, Any]]
    control: LayerControl

    @classmethod
    def of(
        cls, name: str, recorded: Mapping[str, Mapping[str, Any]], layers: Any, tie: Any, agents_per: str
    ) -> RecordedTask:
        """With agents as `tasks.layer_control` says; raises as `controlled`."""
        names = {agent: about["path"] for agent, about in recorded.items()}
        return cls(name, recorded, controlled(Layers(names, _sets(recorded)), layers, tie, agents_per))

    @property
    def agents(self) -> dict[str, str]:
        """Agent -> module path of its convolution; of the first, if it decides for several."""
        return {agent: decides.paths[0] for agent, decides in self.control.agents.items()}

    @cached_property
    def coupled_agents(self) -> dict[str, tuple[str, ...]]:
        """Agent -> the agents of the layers that are pruned together with its own."""
        return coupled_agents(self.control, _sets(self.recorded))

    @cached_property
    def paths(self) -> dict[str, str]:
        """Recorded agent -> module path."""
        return {agent: about["path"] for agent, about in self.recorded.items()}

    @cached_property
    def members(self) -> dict[str, list[str]]:
        """Agent -> the recorded ones whose layers it decides for."""
        agent_of = {path: agent for agent, path in self.paths.items()}
        return {agent: [agent_of[path] for path in one.paths] for agent, one in self.control.agents.items()}

    @cached_property
    def as_recorded(self) -> bool:
        """Whether the agents are those that were recorded."""
        return self.members == {agent: [agent] for agent in self.recorded}

    def features(self) -> dict[str, np.ndarray]:
        """Agent -> the features of its layers that never change; of several, see `layer_features.together`."""
        known = {agent: np.array(about["features"], np.float32) for agent, about in self.recorded.items()}
        return {agent: together([known[one] for one in ones]) for agent, ones in self.members.items()}

    def by_agent(self, outcome: Outcome) -> Outcome:
        """What was measured, told of the recorded agents, told by those of this task."""
        if self.as_recorded:
            return outcome
        filters = {agent: about["filters"] for agent, about in self.recorded.items()}
        kept, whole = (
            {agent: sum(of_one[one] for one in ones) for agent, ones in self.members.items()}
            for of_one in (outcome.filters_kept, filters)
        )
        applied = {agent: 100 * (1 - kept[agent] / whole[agent]) for agent in kept}
        return replace(outcome, filters_kept=kept, applied_ratios=applied)


def _sets(recorded: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Module paths that are coupled, a list for each agent."""
    return [
        [about["path"], *(recorded[other]["path"] for other in about["coupled_with"])]
        for about in recorded.values()
    ]
