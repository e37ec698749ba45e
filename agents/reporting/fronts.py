"""Accuracy against multiply-adds: the Pareto front of what a search has tried, and its hypervolume."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsfp_env.pareto import hypervolume, pareto_front


def front_of(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of `evaluations.jsonl` that no other beats in both accuracy and MACs, the least MACs first."""
    points = [(line["validation_accuracy"], -line["relative_macs"]) for line in lines]
    return sorted((lines[i] for i in pareto_front(points)), key=lambda line: float(line["relative_macs"]))


def volume_of(accuracies: Iterable[float], relative_macs: Iterable[float]) -> float:
    """The hypervolume of (accuracy, 1 - relative MACs) above (0, 0), in [0, 1]."""
    points = [(accuracy, 1 - macs) for accuracy, macs in zip(accuracies, relative_macs, strict=True)]
    return hypervolume(points, (0, 0))
