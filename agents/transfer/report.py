"""A study of transfer as tables and as a picture, from what `transfer.json` holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.reporting.markdown_tables import markdown_table
from agents.reporting.seeds import parse_seeds
from agents.reporting.statistics import warning_of_few
from agents.transfer.settings import CARRIED

FLOOR = 1e-3  # lower regrets are drawn there
CAPTION = """\
Normalised regrets of the best joint action seen: 0 is the optimum, 1 is what one drawn at random has on average.
Means over the held-out networks and seeds, in brackets 95 % bootstrap intervals over seeds, which tell how much
chance in training and search matters, not how much other networks would differ. Columns are evaluations of a
held-out network; after 1 a carried policy is judged zero-shot."""


def tables(results: Mapping[str, Any]) -> str:
    """Markdown: for every reward the means, the test split, each network by itself, and differences."""
    networks, settings = results["networks"], results["settings"]
    learned = f"{settings['training_evaluations']} evaluations of each of {', '.join(networks['training'])}"
    warning = warning_of_few([len(parse_seeds(settings["seeds"]))])
    parts = [
        f"Learned from {learned}. Judged on {', '.join(networks['held_out'])}.",
        CAPTION,
        *(part for form in results["forms"] for part in _form(form, networks["held_out"])),
        warning,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _form(form: Mapping[str, Any], networks: Sequence[str]) -> list[str]:
    """What came of one reward."""
    last = {name: list(by_budget.items())[-1] for name, by_budget in form["learners"].items()}
    each = {f"{name}, {k}": [f"{at['networks'][one]:.3f}" for one in networks] for name, (k, at) in last.items()}
    lines = [
        f"- {one['carried']}, {one['after']}, less {one['search']}, {one['search_after']}: {_cell(one)}"
        for one in form["differences"]
    ]
    pairs = "In pairs of the same seed and network; below 0 is better for what is carried:"
    return [
        f"## {form['reward']}",
        _means(form["learners"], "validation"),
        "The same joint actions on the test split:",
        _means(form["learners"], "test"),
        "Each network by itself, after the most evaluations:",
        _table(networks, each),
        *([pairs, "\n".join(lines)] if lines else []),
    ]


def _means(learners: Mapping[str, Any], split: str) -> str:
    """A row for each learner, a column for each number of evaluations."""
    budgets = sorted({int(k) for by_budget in learners.values() for k in by_budget})
    rows = {
        name: [_cell(by_budget[str(k)][split]) if str(k) in by_budget else "" for k in budgets]
        for name, by_budget in learners.items()
    }
    return _table(map(str, budgets), rows)


def _table(columns: Iterable[str], rows: Mapping[str, Iterable[str]]) -> str:
    return markdown_table(["", *columns], [[name, *cells] for name, cells in rows.items()])


def _cell(one: Mapping[str, float]) -> str:
    return f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Draw mean regrets against evaluations, a panel for every reward.

    Args:
        path: A PNG file.
        results: As `transfer.json` holds them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    forms = results["forms"]
    figure = Figure(figsize=(6.5 * len(forms), 4.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(forms), squeeze=False, sharey=True)[0]
    for panel, form in zip(panels, forms, strict=True):
        for name, by_budget in form["learners"].items():
            budgets = np.array([int(k) for k in by_budget])
            mean, low, high = (
                np.maximum([one["validation"][which] for one in by_budget.values()], FLOOR)
                for which in ("mean", "low", "high")
            )
            line = panel.plot(budgets, mean, "o-" if name in CARRIED else "o:", label=name, markersize=4)[0]
            panel.fill_between(budgets, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        panel.set(title=form["reward"], xlabel="evaluations of the held-out network", xscale="log", yscale="log")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("normalised regret of the best seen")
    panels[0].legend(frameon=False, fontsize="small", title="solid: carried")
    figure.savefig(path)
