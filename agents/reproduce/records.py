"""What the files of a study may say: a schema for each, see `study`."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from dsfp_env.common.schemas import Counts, Name, Natural, Positive, Ratios, Share, Strict


class Listed(Struct, kw_only=True):
    """The settings that say which pieces there are."""

    rates: list[Positive]
    macs_budgets: list[Share]
    yardsticks: list[Name]
    agents: list[Name]
    seeds: list[Natural]


class Settings(Listed, kw_only=True):
    """`settings.json`: what was asked in the first start, and versions; the other settings are not told here."""

    macs_budgets: list[Share] = []  # earlier releases had none of these
    yardsticks: list[Name] = []
    versions: dict[Name, Name] | None = None


class Base(Strict):
    """What was found of the original network."""

    accuracy: Share
    pruned_accuracy: Share
    filters: Positive
    params: Positive
    output_only_params: Positive
    macs: Positive
    recipe: Name
    filters_kept: Counts | None = None  # all of every layer; earlier releases did not write it


class Scores(Strict):
    """How filters were scored."""

    criterion: Name


class Sweep(Strict):
    """What accuracy is left when one layer is pruned, see `allocation.sweep_of`."""

    criterion: Name
    accuracies: Annotated[dict[Name, list[Share]], Meta(min_length=1)]  # by agent


class Finalist(Strict):
    """One of the best joint actions of a search, and its validation accuracy after a few epochs."""

    ratios: Ratios
    accuracy: Share


class Found(Strict, kw_only=True):
    """The ratios that a search came to."""

    kind: Name | None = None  # who says how much every layer loses; earlier releases did not write it
    ratios: Ratios
    macs_budget: Share
    within_budget: Positive
    tried: Positive
    filled: bool | None = None  # whether all that was tried was brought to the budget
    finalists: list[Finalist] | None = None  # the best to the search first, if they were fine-tuned


class Row(Strict, kw_only=True):
    """What was found of a pruned network."""

    kind: Name | None = None  # as of `Found`
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
    epoch_accuracies: list[Share] | None = (
        None  # on validation, after each epoch; earlier releases did not write it
    )


class Tried(Strict):
    """A line of a search: a joint action."""

    ratios: Ratios
    accuracy: Share
    macs: Positive
    reward: float


class Time(Strict):
    """Of a forward pass, in seconds."""

    seconds: Annotated[float, Meta(gt=0)]
    spread: Annotated[float, Meta(ge=0)]


class Latencies(Strict):
    """`latencies.json`: times of networks, see `latencies`."""

    deployed: str
    device: Name
    of: dict[Name, Time]  # by the name of the piece


class Asked(Listed, kw_only=True):
    """The settings of a study, as far as its table needs them; there are others."""

    network: Name
    data: Name
    criterion: Name
    fine_tuning: Name
    evaluations: Positive
    finalist_epochs: Positive | None = None  # earlier releases had none, and no
    warm_start: list[Name] = []


class Results(Strict):
    """`results.json`: all that came out of a study so far."""

    settings: Asked
    versions: dict[Name, Name]
    base: Base | None
    searches: dict[Name, Found]  # by the name of the piece
    rows: dict[Name, Row]
    latencies: Latencies | None = None


def schema_of(piece: str) -> Any:
    """That of the file which a piece leaves."""
    first = piece.partition("-")[0]
    return {"base": Base, "scores": Scores, "sweep": Sweep, "search": Found}.get(first, Row)
