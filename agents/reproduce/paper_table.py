"""Pruned networks in a table, beside what the DSFP paper (arXiv 2509.05446) prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.reporting.markdown_tables import markdown_table

# Network -> rate (0: base) -> accuracy when pruned, accuracy in the end, filters, parameters in millions.
PAPER: dict[str, dict[int, tuple[float, float, int, float]]] = {
    "alexnet": {
        0: (87.76, 87.76, 1152, 6.9768),
        50: (44.28, 87.40, 585, 5.8021),
        60: (33.11, 86.66, 443, 5.6191),
        70: (33.71, 86.21, 317, 5.3391),
    },
    "vgg16": {
        0: (93.76, 93.76, 4224, 14.8486),
        50: (11.91, 93.07, 2154, 7.5945),
        60: (10.04, 92.76, 1754, 6.1164),
        70: (10.00, 91.45, 1339, 4.7087),
    },
}

HEADER = (
    "",
    "accuracy, pruned",
    "fine-tuned",
    "retained",
    "filters",
    "params",
    "params, output only",
    "MACs",
)
TIME = "forward pass"
BESIDE = "paper: pruned, fine-tuned, retained, filters, params"


def paper_table(
    network: str,
    base: Mapping[str, Any] | None,
    rows: Mapping[str, tuple[int | None, Sequence[Mapping[str, Any] | None]]],
) -> str:
    """A Markdown table; accuracies in percent, means over the seeds, and ± their standard deviation.

    Args:
        network: Whose numbers of the paper stand beside, if it has any.
        base: What was found of the original network, or None if nothing was yet: then there is no table. If it
            has the ``seconds`` of a forward pass, times are shown.
        rows: Label -> the rate in percent, if the paper has such, and what was found with each seed, or None.
    """
    if base is None:
        return "no table yet: the base network is not trained"
    heading = (*HEADER, *(TIME,) * ("seconds" in base), *(BESIDE,) * (network in PAPER))
    lines = [_cells("base", [base], base) + _theirs(network, 0)]
    for label, (rate, found) in rows.items():
        if there := [row for row in found if row is not None]:
            lines.append(_cells(label, there, base) + _theirs(network, rate))
    return markdown_table(heading, lines)


def _cells(label: str, rows: Sequence[Mapping[str, Any]], base: Mapping[str, Any]) -> tuple[str, ...]:
    names = ("pruned_accuracy", "accuracy", "filters", "params", "output_only_params", "macs")
    mean = {name: float(np.mean([row[name] for row in rows])) for name in names}
    spread = f" ± {100 * np.std([row['accuracy'] for row in rows], ddof=1):.2f}" if len(rows) > 1 else ""
    return (
        label,
        "" if rows[0] is base else f"{100 * mean['pruned_accuracy']:.2f}",
        f"{100 * mean['accuracy']:.2f}{spread}",
        f"{100 * mean['accuracy'] / base['accuracy']:.2f} %" if base["accuracy"] else "",
        f"{mean['filters']:.0f}",
        f"{mean['params'] / 1e6:.4f} M",
        f"{mean['output_only_params'] / 1e6:.4f} M",
        f"{mean['macs'] / 1e6:.2f} M ({100 * mean['macs'] / base['macs']:.1f} %)",
        *((_time(rows, base["seconds"]),) if "seconds" in base else ()),
    )


def _time(rows: Sequence[Mapping[str, Any]], whole: float) -> str:
    """Of a forward pass; of rows that came later, nothing is known."""
    if not all("seconds" in row for row in rows):
        return ""
    seconds = float(np.mean([row["seconds"] for row in rows]))
    return f"{1e3 * seconds:.3g} ms ({100 * seconds / whole:.0f} %)"


def _theirs(network: str, rate: int | None) -> tuple[str, ...]:
    """A cell for what the paper has of this network at this rate; none, if it has nothing of the network."""
    if network not in PAPER:
        return ()
    table = PAPER[network]
    if rate not in table:
        return ("",)
    pruned, accuracy, filters, params = table[rate]
    if not rate:
        return (f"{accuracy:.2f}, {filters}, {params:.4f} M",)
    return (f"{pruned:.2f}, {accuracy:.2f}, {100 * accuracy / table[0][1]:.2f} %, {filters}, {params:.4f} M",)
