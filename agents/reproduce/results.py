"""What came out of a study, in one small file, and the table that is made of it: no network is needed for that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.reproduce import records
from agents.reproduce.paper_table import PAPER, paper_table
from agents.reproduce.targets import Target, names_in, piece_of, targets_of
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.json_files import read_file

RESULTS = "results.json"

Results = Mapping[str, Any]  # as `records.Results` says


def read_results(file: Path) -> Results:
    """What a file holds.

    Raises:
        InputError: If it cannot be read, or is not what a study wrote.
    """
    found: Results = read_file(file, records.Results, f"expected a {RESULTS} that a study has written")
    for name, row in found["rows"].items():
        if why := _why_not(row, found["base"] or {}):
            raise InputError(f"In {file} the row {name!r} {why}.")
    return found


def _why_not(row: Mapping[str, Any], base: Mapping[str, Any]) -> str | None:
    """Why a row cannot be of this original network, if so."""
    epochs, seen = row["epochs"], row.get("epoch_accuracies")
    if seen and len(seen) != epochs:
        return f"has {epochs} epochs and {len(seen)} accuracies of epochs: expected as many"
    if row["best_epoch"] > epochs:
        return f"was best after epoch {row['best_epoch']}: expected one of its {epochs}"
    for count in ("filters", "params", "macs"):
        if row[count] > base.get(count, row[count]):
            return f"has {row[count]} {count}: expected no more than the original network, {base[count]}"
    layers, whole = [*row["filters_kept"]], [*(base.get("filters_kept") or row["filters_kept"])]
    if {*layers} != {*whole}:
        return f"has the layers {shortened(layers)}: expected those of the original network, {shortened(whole)}"
    return None


def rows_of(results: Results) -> dict[tuple[str, Target], list[dict[str, Any]]]:
    """What was found by each kind, by its name, for each target, with the seeds there are; in the table's order.

    A row has its ``seed``, too, and the ``seconds`` of a forward pass, if they were measured.
    """
    settings, rows = results["settings"], results["rows"]
    return {
        (name, target): [
            {"seed": seed} | rows[piece] | _time_of(results, piece)
            for seed in settings["seeds"]
            for piece in dict.fromkeys(piece_of(one, target, seed) for one in (name, kind))  # once its name
            if piece in rows
        ]
        for target in targets_of(settings["rates"], settings["macs_budgets"])
        for kind, name in names_in(settings).items()
    }


def table_of(results: Results) -> str:
    """What is there so far: what was run, and a Markdown table."""
    settings, base = results["settings"], results["base"]
    rows = {
        f"{name} {target.label}": (None if target.of_macs else int(target.percent), found)
        for (name, target), found in rows_of(results).items()
    }
    timed = None if base is None else base | _time_of(results, "base")
    return f"{heading_of(settings)}\n\n{paper_table(settings['network'], timed, rows)}"


def _time_of(results: Results, name: str) -> dict[str, float]:
    found: dict[str, float] = (results.get("latencies") or {"of": {}})["of"].get(name, {})
    return found


def heading_of(settings: Mapping[str, Any]) -> str:
    """What was run, in a few sentences."""
    seeds = f"seed{'s' * (len(settings['seeds']) > 1)} {', '.join(map(str, settings['seeds']))}"
    data = settings["data"].partition(":")[0]
    few = settings.get("finalist_epochs")
    epochs = f" and {few} epoch{'s' * (few > 1)} of the ten best" if few else ""
    warm = settings.get("warm_start")  # earlier releases knew of none
    began = f", beginning with what {' and '.join(warm)} say{'s' * (len(warm) < 2)}" if warm else ""
    text = (
        f"{settings['network']} on {data}: filters by {settings['criterion']}, {settings['evaluations']} "
        f"evaluations a search{epochs}{began}, fine-tuning {settings['fine_tuning']}, {seeds}."
    )
    if settings["network"] not in PAPER:
        text += " The paper has no such network: these numbers stand beside none of its own."
    return text + "".join(f" {name} is {kind}." for kind, name in names_in(settings).items() if name != kind)
