"""What agents are told beside their observations: the same keys after a reset as after a step.

Of the network that all have made together:

| key           | meaning                                                              |
|---------------|----------------------------------------------------------------------|
| accuracy      | on the validation split, in [0, 1]                                   |
| relative_macs | MACs / the original network's, in (0, 1]                             |
| macs          | multiply-adds per image                                              |
| params        | all parameters                                                       |
| score         | what it is worth; 0 after a reset                                    |
| evaluations   | that the last step asked for                                         |
| relative_params | only under a budget of parameters: they / the original's, in (0, 1] |
| relative_latency | only under a budget of time: it / the original's, as predicted     |
| distance      | only of a surrogate: to the nearest joint action that was measured, in percentage points |

Of the agent's own part:

| key           | meaning                                                              |
|---------------|----------------------------------------------------------------------|
| credit        | its part in the score, see `credit`                                  |
| ratio         | percent, as it was chosen; 0 after a reset                           |
| applied_ratio | percent of its layer's filters that are gone                         |
| coupled_set   | agents with an equal number are pruned together                      |
| filters_kept  | of its layer                                                         |
| action_mask   | only under a budget with levels: which may be chosen, see `masks`    |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TEAM = (
    "accuracy",
    "relative_macs",
    "macs",
    "params",
    "score",
    "evaluations",
    "relative_params",
    "relative_latency",
    "distance",
)
OWN = ("credit", "ratio", "applied_ratio", "coupled_set", "filters_kept", "action_mask")

Infos = dict[str, dict[str, Any]]


def infos_of(team: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> Infos:
    """Infos by agent.

    Args:
        team: Some of the keys in `TEAM` -> what all are told.
        own: Agent -> some of the keys in `OWN` -> what it alone is told.
    """
    return {agent: {**team, **part} for agent, part in own.items()}


def team_info(infos: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What all agents are told, from their infos."""
    one = next(iter(infos.values()))
    return {key: one[key] for key in TEAM if key in one}
