"""What the files of a study may say: a schema for each, see `study`."""

from __future__ import annotations

from typing import Any

from dsfp_env.common.schemas import Counts, Name, Positive, Ratios, Share, Strict, Value

Settings = dict[Name, Value | list[Value] | dict[Name, Name]]  # `settings.json`: settings by name, and versions


class Base(Strict):
    """What was found of the original network."""

    accuracy: Share
    pruned_accuracy: Share
    filters: Positive
    params: Positive
    output_only_params: Positive
    macs: Positive
    recipe: Name


class Scores(Strict):
    """How filters were scored."""

    criterion: Name


class Found(Strict):
    """The ratios that a search came to."""

    ratios: Ratios
    macs_budget: Share
    within_budget: Positive
    tried: Positive


class Row(Strict):
    """What was found of a pruned network."""

    ratios: Ratios
    pruned_accuracy: Share
    accuracy: Share
    validation_accuracy: Share
    best_epoch: Positive
    epochs: Positive
    filters: Positive
    filters_kept: Counts
    params: Positive
    output_only_params: Positive
    macs: Positive


class Tried(Strict):
    """A line of a search: a joint action."""

    ratios: Ratios
    accuracy: Share
    macs: Positive
    reward: float


def schema_of(piece: str) -> Any:
    """That of the file which a piece leaves."""
    named = {"base": Base, "scores": Scores}
    return named.get(piece, Found if piece.startswith("search-") else Row)
