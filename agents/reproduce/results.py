"""What came out of a study, in one small file, and the table that is made of it: no network is needed for that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.reproduce import records
from agents.reproduce.paper_table import PAPER, paper_table
from agents.reproduce.targets import Target, kinds_of, piece_of, targets_of
from dsfp_env.common.json_files import read_file

RESULTS = "results.json"

Results = Mapping[str, Any]  # as `records.Results` says


def read_results(file: Path) -> Results:
    """What a file holds.

    Raises:
        InputError: If it cannot be read, or is not what a study wrote.
    """
    found: Results = read_file(file, records.Results, f"expected a {RESULTS} that a study has written")
    return found


def rows_of(results: Results) -> dict[tuple[str, Target], list[dict[str, Any]]]:
    """What was found by each kind for each target, with the seeds there are; in the order of the table.

    A row has the ``seconds`` of a forward pass, too, if they were measured.
    """
    settings, rows = results["settings"], results["rows"]
    return {
        (kind, target): [
            rows[name] | _time_of(results, name)
            for seed in settings["seeds"]
            if (name := piece_of(kind, target, seed)) in rows
        ]
        for target in targets_of(settings["rates"], settings["macs_budgets"])
        for kind in kinds_of(settings["yardsticks"], settings["agents"])
    }


def table_of(results: Results) -> str:
    """What is there so far: what was run, and a Markdown table."""
    settings, base = results["settings"], results["base"]
    rows = {
        f"{kind} {target.label}": (None if target.of_macs else int(target.percent), found)
        for (kind, target), found in rows_of(results).items()
    }
    timed = None if base is None else base | _time_of(results, "base")
    return f"{heading_of(settings)}\n\n{paper_table(settings['network'], timed, rows)}"


def _time_of(results: Results, name: str) -> dict[str, float]:
    found: dict[str, float] = (results.get("latencies") or {"of": {}})["of"].get(name, {})
    return found


def heading_of(settings: Mapping[str, Any]) -> str:
    """What was run, in a sentence or two."""
    seeds = f"seed{'s' * (len(settings['seeds']) > 1)} {', '.join(map(str, settings['seeds']))}"
    data = settings["data"].partition(":")[0]
    text = (
        f"{settings['network']} on {data}: filters by {settings['criterion']}, {settings['evaluations']} "
        f"evaluations a search, fine-tuning {settings['fine_tuning']}, {seeds}."
    )
    if settings["network"] in PAPER:
        return text
    return f"{text} The paper has no such network: these numbers stand beside none of its own."
