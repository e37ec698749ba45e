"""Rows less the yardsticks, seed by seed: with one seed all are trained on the same images in the same order.

So what a seed is worth to all alike falls out of the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.reporting.markdown_tables import markdown_table
from agents.reproduce.results import rows_of
from agents.reproduce.targets import UNIFORM, Target, names_in

HEADING = (
    "Test accuracy in points, less that of the yardstick with the same seed: of one seed or two as it is, of more "
    "the mean, in brackets its 95 % interval by Student's t."
)


def differences_of(results: Mapping[str, Any]) -> str:
    """A heading and a Markdown table: a row for each that is compared, a column for each yardstick.

    Args:
        results: As `records.Results` says.

    Returns:
        Nothing, if no two that are compared have two seeds in common.
    """
    settings = results["settings"]
    names = names_in(settings)
    yardsticks = dict.fromkeys(names[kind] for kind in (UNIFORM, *settings["yardsticks"]))
    found: dict[tuple[str, Target], dict[int, float]] = {  # seed -> accuracy
        key: {row["seed"]: row["accuracy"] for row in rows} for key, rows in rows_of(results).items() if rows
    }
    columns = [one for one in yardsticks if any(one == name for name, _ in found)]
    lines: list[tuple[str, ...]] = []
    most = 0
    for (name, target), ours in found.items():
        others = [{} if one == name else found.get((one, target), {}) for one in columns]
        differences = [[100 * (ours[seed] - theirs[seed]) for seed in ours if seed in theirs] for theirs in others]
        if name != UNIFORM and any(differences):
            lines.append((f"{name} {target.label}", *map(told, differences)))
            most = max(most, *map(len, differences))
    return f"{HEADING}\n\n{markdown_table(('', *columns), lines)}" if most > 1 else ""


def told(differences: Sequence[float]) -> str:
    """Their mean with its interval; one or two, which tell nothing of their spread, as they are."""
    count = len(differences)
    if count < 3:
        return ", ".join(map(_signed, differences))
    from scipy.stats import t  # takes half a second to import

    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / count**0.5
    half = float(t.ppf(0.975, count - 1)) * error
    return f"{_signed(mean)} [{mean - half:.2f}, {mean + half:.2f}]"


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # zero is no -0.00
