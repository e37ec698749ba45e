"""The figures of a study, as figures 2 to 4 of the DSFP paper and one more: made of `results.json` alone.

| file                | shows                                                                    |
|---------------------|--------------------------------------------------------------------------|
| `figure-filters`    | filters kept in each layer, for each rate or budget                      |
| `figure-accuracy`   | accuracy after fine-tuning against rate, or multiply-adds left           |
| `figure-finetuning` | accuracy before and after fine-tuning                                    |
| `figure-epochs`     | validation accuracy after each epoch of it, which is in none of theirs   |

Numbers are means over seeds; whiskers are a standard deviation. Where a study has both rates and budgets, all are
shown against the multiply-adds that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.reporting.figure_files import as_svg, write_files
from agents.reporting.figures import INK, SEVERAL, legend_above, narrow_figure, percent, style
from agents.reproduce.paper_table import PAPER
from agents.reproduce.results import Results, rows_of
from agents.reproduce.targets import Target

_PANEL = 1.5  # inches


def filters_kept(results: Results) -> Any:
    """Shares of the filters of each layer that are kept, a panel for each target, a line for each kind."""
    whole = dict(results["base"].get("filters_kept") or {})
    found = _means(results, lambda row: [row["filters_kept"][path] / whole[path] for path in whole])
    targets = _targets(found)
    if not whole or not targets:
        return None
    figure, panels = _panels(targets)
    places = np.arange(len(whole))
    for target, axes in zip(targets, np.atleast_1d(panels), strict=True):
        for number, (kind, of_kind) in enumerate(found.items()):
            if target in of_kind:
                axes.plot(places, of_kind[target][0], **_looks(number, 3), label=kind)
        axes.set(ylim=(0, 1.05))
        percent(axes.yaxis)
    axes.set(xlabel="layer", ylabel="filters kept")
    axes.set_xticks(places[:: 1 + len(whole) // 20])
    legend_above(figure, panels)
    return figure


def accuracy(results: Results) -> Any:
    """Test accuracy after fine-tuning against the targets; the paper's beside it, where it has such."""
    found = _means(results, lambda row: row["accuracy"])
    if not found:
        return None
    figure, axes = narrow_figure()
    place, label = _against(results)
    for number, (kind, of_kind) in enumerate(found.items()):
        x = [place(target) for target in of_kind]
        means, spreads = zip(*of_kind.values(), strict=True)
        axes.errorbar(x, means, spreads, **_looks(number), capsize=2, label=kind)
    _original(axes, results)
    _places(axes, [place(target) for of_kind in found.values() for target in of_kind], label)
    settings = results["settings"]
    if not settings["macs_budgets"] and (theirs := PAPER.get(settings["network"])):
        printed = {rate: of_rate[1] / 100 for rate, of_rate in theirs.items() if rate}
        axes.plot(*zip(*printed.items(), strict=True), "k+", markersize=8, label="paper")
    axes.set(ylabel="test accuracy, fine-tuned")
    percent(axes.yaxis)
    legend_above(figure, axes)
    return figure


def finetuning(results: Results) -> Any:
    """Test accuracy right after removal, dotted, and after fine-tuning."""
    before = _means(results, lambda row: row["pruned_accuracy"])
    after = _means(results, lambda row: row["accuracy"])
    if not after:
        return None
    figure, axes = narrow_figure()
    place, label = _against(results)
    for number, kind in enumerate(after):
        x = [place(target) for target in after[kind]]
        axes.plot(x, [mean for mean, _ in after[kind].values()], **_looks(number), label=kind)
        looks = {**_looks(number), "linestyle": ":", "fillstyle": "none"}
        axes.plot(x, [mean for mean, _ in before[kind].values()], **looks)
    _original(axes, results)
    _places(axes, [place(target) for of_kind in after.values() for target in of_kind], label)
    axes.set(ylabel="test accuracy (dotted: before)")
    percent(axes.yaxis)
    legend_above(figure, axes)
    return figure


def epochs(results: Results) -> Any:
    """Validation accuracy after each epoch of the fine-tuning, a panel for each target."""
    known = {name: row for name, row in results["rows"].items() if row.get("epoch_accuracies")}
    found = _means({**results, "rows": known}, lambda row: row["epoch_accuracies"])
    targets = _targets(found)
    if not targets:
        return None
    figure, panels = _panels(targets)
    for target, axes in zip(targets, np.atleast_1d(panels), strict=True):
        for number, (kind, of_kind) in enumerate(found.items()):
            if target in of_kind:
                means, _ = of_kind[target]
                axes.plot(np.arange(1, len(means) + 1), means, **{**_looks(number), "marker": ""}, label=kind)
        percent(axes.yaxis)
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    legend_above(figure, panels)
    return figure


FIGURES: dict[str, Callable[[Results], Any]] = {
    "filters": filters_kept,
    "accuracy": accuracy,
    "finetuning": finetuning,
    "epochs": epochs,
}


def write_figures(results: Results, folder: Path) -> list[str]:
    """Write what figures there can be, each as ``figure-NAME.svg`` and ``figure-NAME.pdf``; gives their names."""
    written = list[str]()
    if results["base"] is None:
        return written
    for name, make in FIGURES.items():
        with style():
            figure = make(results)
        if figure is not None:
            write_files(folder, f"figure-{name}", as_svg(figure), figure)
            written.append(f"figure-{name}")
    return written


def _means(
    results: Results, value: Callable[[Mapping[str, Any]], Any]
) -> dict[str, dict[Target, tuple[Any, Any]]]:
    """Kind -> target -> mean and standard deviation over the seeds; in the order of the table."""
    found: dict[str, dict[Target, tuple[Any, Any]]] = {}
    for (kind, target), rows in rows_of(results).items():
        if rows:
            values = np.array([value(row) for row in rows])
            spread = values.std(0, ddof=1) if len(rows) > 1 else np.zeros(values.shape[1:])
            found.setdefault(kind, {})[target] = values.mean(0), spread
    return found


def _targets(found: Mapping[str, Mapping[Target, object]]) -> list[Target]:
    return list(dict.fromkeys(target for of_kind in found.values() for target in of_kind))


def _panels(targets: Sequence[Target]) -> tuple[Any, Any]:
    """A figure with a panel for each target, one below another."""
    figure, panels = narrow_figure(_PANEL * len(targets) + 1.0, len(targets))
    for target, axes in zip(targets, np.atleast_1d(panels), strict=True):
        axes.set_title(target.label, fontsize=9, loc="left")
    return figure, panels


def _against(results: Results) -> tuple[Callable[[Target], float], str]:
    """Where a target stands on an axis, in percent, and what that axis says."""
    if not results["settings"]["macs_budgets"]:
        return lambda target: target.percent, "filters that uniform pruning takes"
    macs = _means(results, lambda row: 100 * row["macs"] / results["base"]["macs"])
    means = {target: mean for of_kind in macs.values() for target, (mean, _) in of_kind.items()}
    return lambda target: target.percent if target.of_macs else float(means[target]), "multiply-adds that are left"


def _original(axes: Any, results: Results) -> None:
    axes.axhline(results["base"]["accuracy"], color=INK, linewidth=0.8, linestyle="--", label="original")


def _places(axes: Any, places: Sequence[float], label: str) -> None:
    """Mark an axis where targets stand."""
    marked = sorted(set(places))
    axes.set_xticks(marked, [f"{place:.3g} %" for place in marked])
    axes.set_xlabel(label)


def _looks(number: int, size: float = 4) -> dict[str, Any]:
    line = "-" if number < len(SEVERAL) else "--"
    colour = SEVERAL[number % len(SEVERAL)]
    return {"linestyle": line, "marker": "o", "markersize": size, "linewidth": 1.2, "color": colour}
