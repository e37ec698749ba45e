"""What was measured of one pruned network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dsfp_env.channels.costs import Costs


@dataclass(frozen=True)
class Outcome:
    """What a pruned network is: accurate to some degree, and of some cost."""

    accuracy: float  # the metric of the task on the validation split, scaled to [0, 1]: see `training.metrics`
    macs: int  # multiply-adds per image
    relative_macs: float  # of the original network's, in (0, 1]
    params: int
    relative_params: float  # in (0, 1]
    filters: int  # of all convolutions
    filters_kept: dict[str, int]  # by agent
    applied_ratios: dict[str, float]  # by agent: percent of its filters that are gone
    latency: float | None = None  # seconds of one forward pass, if measured
    distance: float | None = None  # of a surrogate: to the nearest that was measured, see `Surrogate.distance`


def outcome_of(
    accuracy: float,
    costs: Costs,
    whole: Costs,
    filters_kept: Mapping[str, int],
    filters: Mapping[str, int],
    latency: float | None = None,
    distance: float | None = None,
) -> Outcome:
    """The outcome of what was measured, and of what follows from the structure.

    Args:
        accuracy: On the validation split.
        costs: Of the pruned network.
        whole: Of the original.
        filters_kept: By agent.
        filters: Of the original, by agent.
        latency: Seconds of a forward pass, if measured.
        distance: Of a surrogate.
    """
    return Outcome(
        accuracy=accuracy,
        macs=costs.macs,
        relative_macs=costs.macs / whole.macs,
        params=costs.params,
        relative_params=costs.params / whole.params,
        filters=costs.filters,
        filters_kept=dict(filters_kept),
        applied_ratios={agent: 100 * (1 - kept / filters[agent]) for agent, kept in filters_kept.items()},
        latency=latency,
        distance=distance,
    )
