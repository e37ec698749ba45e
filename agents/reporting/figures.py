"""The pictures of a run: what was kept, how the reward grew, and what accuracy, or another metric, costs.

Each is a figure of matplotlib, narrow enough for a telephone; None where a run does not hold what it shows. Lines
and texts are in `INK`, so that they can be made to suit any background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from agents.reporting.metric_units import MetricUnits, common_units, units_of
from agents.reporting.report_data import RunRecord
from agents.reporting.run_report import labels_of

INK = "#24292f"
BEST, GREEDY, UNIFORM, RANDOM, TRIED = "#d1495b", "#e39aa3", "#2f7fbf", "#8a6fb3", "#9aa1a9"
SEVERAL = (BEST, UNIFORM, "#3a9d6e", RANDOM, "#c98a1b", "#4f5d75", "#b5547e", "#6b8e23")
WIDTH, HEIGHT = 4.7, 3.3  # inches
MANY = 10  # layers: then fewer bars for each, and maps in place of lines
BINS = np.linspace(0, 100, 11)  # percent of a layer's filters that are gone


@contextmanager
def style() -> Iterator[None]:
    """How figures look, while they are made and written."""
    import matplotlib

    looks: Any = {f"{part}.color": INK for part in ("text", "xtick", "ytick", "grid")}
    looks |= {f"axes.{part}": INK for part in ("edgecolor", "labelcolor", "titlecolor")}
    with matplotlib.rc_context(
        {
            **looks,
            "axes.axisbelow": True,
            "axes.facecolor": "none",
            "axes.grid": True,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "figure.facecolor": "none",
            "font.size": 9,
            "grid.alpha": 0.18,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "svg.fonttype": "none",  # text stays text
            "svg.hashsalt": "dsfp_env",  # equal pictures are equal files
            "text.parse_math": False,  # a dollar sign in a name is one
        }
    ):
        yield


def filters_kept(run: RunRecord) -> Any:
    """Filters before and after, a row for every layer or agent."""
    result = run.result
    agents = list(result["original"]["filters_kept"])
    whole = np.array([result["original"]["filters_kept"][agent] for agent in agents])
    shown = {"best": (result["best"], BEST), "greedy": (result["greedy"], GREEDY)}
    shown[labels_of(result)["uniform"].strip()] = (result["baselines"]["uniform"], UNIFORM)
    if len(agents) > MANY:
        shown = {"best": shown["best"]}
    height = (0.55 if len(shown) > 1 else 0.2) * len(agents) + 1.0
    figure, axes = narrow_figure(height)
    places = np.arange(len(agents))
    axes.barh(places, whole, 0.86, facecolor="none", edgecolor=INK, linewidth=0.8, label="original")
    thick = 0.78 / len(shown)
    for number, (name, (entry, colour)) in enumerate(shown.items()):
        kept = np.array([entry["filters_kept"][agent] for agent in agents])
        bars = axes.barh(places + (number - (len(shown) - 1) / 2) * thick, kept, thick, color=colour, label=name)
        if len(agents) <= MANY:
            axes.bar_label(bars, [f"{k}" for k in kept], padding=2, fontsize=7)
    axes.set_yticks(places, agents, fontsize=8 if len(agents) <= 30 else 6)
    axes.set(xlabel="filters", ylim=(len(agents) - 0.5, -0.5))
    axes.grid(False, axis="y")
    legend_above(figure, axes)
    return figure


def rewards(run: RunRecord) -> Any:
    """The reward over evaluations, beside random search and the best uniform plan."""
    if not run.evaluations:
        return None
    figure, axes = narrow_figure()
    spent = [line["evaluation"] for line in run.evaluations]
    scores = [line["reward"] for line in run.evaluations]
    axes.plot(spent, scores, ".", color=GREEDY, markersize=4, label="evaluated")
    axes.step(spent, np.maximum.accumulate(scores), where="post", color=BEST, label="best so far")
    if drawn := [point["reward"] for point in run.more.get("random_search", ())]:
        places = np.arange(1, len(drawn) + 1)
        axes.step(places, np.maximum.accumulate(drawn), "--", where="post", color=RANDOM, label="random search")
    level = max((point["reward"] for point in run.more.get("uniform", ())), default=None)
    if level is not None:
        axes.axhline(level, linestyle=":", color=UNIFORM, label="best uniform plan")
    axes.set(xlabel="evaluations", ylabel="reward")
    legend_above(figure, axes)
    return figure


def front(run: RunRecord) -> Any:
    """The validation metric against multiply-adds: what was tried, its front, and the networks of the table."""
    figure, axes = narrow_figure()
    units = units_of(run.result)
    if run.evaluations:
        tried = [(line["relative_macs"], units.value(line, "validation")) for line in run.evaluations]
        axes.plot(*zip(*tried, strict=True), ".", color=TRIED, markersize=4, label="evaluated")
    if line := run.result.get("pareto"):
        best = [(one["relative_macs"], units.value(one, "validation")) for one in line]
        axes.step(*zip(*best, strict=True), where="post", color=BEST, linewidth=1, label="Pareto front")
    _uniform_line(axes, run, "relative_macs")
    _marks(axes, run, "relative_macs")
    axes.set(xlabel="multiply-adds, of the original's", ylabel=f"validation {units.axis}", xscale="log")
    _log_percent(axes, units)
    legend_above(figure, axes)
    return figure


def metric_by_rate(run: RunRecord) -> Any:
    """The validation metric against the share of filters that are gone."""
    figure, axes = narrow_figure()
    units = units_of(run.result)
    _uniform_line(axes, run, "filters")
    _marks(axes, run, "filters")
    axes.set(xlabel="filters that are gone", ylabel=f"validation {units.axis}")
    percent(axes.xaxis)
    _of_metric(axes.yaxis, units)
    legend_above(figure, axes)
    return figure


def sensitivity(run: RunRecord) -> Any:
    """The mean validation metric by a layer's own pruning ratio, all other layers being at random."""
    found, units = sensitivities(run), units_of(run.result)
    if not found:
        return None
    label = f"mean validation {units.axis}"
    centres = (BINS[:-1] + BINS[1:]) / 2
    if len(found) <= MANY:
        figure, axes = narrow_figure()
        for number, (agent, means) in enumerate(found.items()):
            seen = np.isfinite(means)
            colour = SEVERAL[number % len(SEVERAL)]
            line = "-" if number < len(SEVERAL) else "--"
            axes.plot(centres[seen], means[seen], line, marker="o", markersize=3, color=colour, label=agent)
        axes.set(xlabel="filters of the layer that are gone", ylabel=label)
        percent(axes.xaxis, 100)
        _of_metric(axes.yaxis, units)
        legend_above(figure, axes)
        return figure
    figure, axes = narrow_figure(0.17 * len(found) + 1.2)
    values = np.ma.masked_invalid(np.stack(list(found.values())))
    shading = axes.pcolormesh(BINS, np.arange(len(found) + 1), values, cmap="cividis")
    axes.set_yticks(np.arange(len(found)) + 0.5, list(found), fontsize=7 if len(found) <= 30 else 5)
    axes.set(xlabel="filters of the layer that are gone", ylim=(len(found), 0))
    axes.grid(False)
    percent(axes.xaxis, 100)
    bar = figure.colorbar(shading, ax=axes, label=label)
    _of_metric(bar.ax.yaxis, units)
    return figure


def sensitivities(run: RunRecord) -> dict[str, np.ndarray]:
    """Agent -> mean of the validation metric in each of `BINS`, NaN where nothing was tried, ``[10]``.

    Random search tells it best, as it prunes all other layers at random; runs that did not note what that tried
    tell it from what the agents tried.
    """
    whole, units = run.result["original"]["filters_kept"], units_of(run.result)
    points = run.more.get("random_search", ())
    if points:
        kept = np.array([point["filters_kept"] for point in points], float)
        gone = 100 * (1 - kept / np.array(list(whole.values())))  # [points, agents]
        worths = np.array([units.value(point, "validation") for point in points])
    elif run.evaluations:
        gone = np.array([[line["ratios"][agent] for agent in whole] for line in run.evaluations], float)
        worths = np.array([units.value(line, "validation") for line in run.evaluations])
    else:
        return {}
    places = np.clip(np.digitize(gone, BINS) - 1, 0, len(BINS) - 2)
    return {
        agent: np.array(
            [
                worths[inside].mean() if (inside := places[:, number] == place).any() else np.nan
                for place in range(len(BINS) - 1)
            ]
        )
        for number, agent in enumerate(whole)
    }


FIGURES: dict[str, tuple[Callable[[RunRecord], Any], str]] = {
    "filters": (filters_kept, "Filters kept in each layer."),
    "rewards": (rewards, "The reward over evaluations, beside the yardsticks."),
    "front": (front, "{Metric} against multiply-adds. Marked networks are means over fresh fine-tuning seeds."),
    "rate": (metric_by_rate, "{Metric} against the share of all filters that is gone."),
    "sensitivity": (
        sensitivity,
        "How much each layer matters: mean {metric} of what was tried, by the layer's own pruning.",
    ),
}


def caption(name: str, run: RunRecord) -> str:
    """What one of `FIGURES` shows of a run."""
    units = units_of(run.result)
    return FIGURES[name][1].format(metric=units.name, Metric=units.capitalised)


def compared_rewards(runs: Mapping[str, RunRecord]) -> Any:
    """The best reward so far of several runs."""
    figure, axes = narrow_figure()
    for number, (name, run) in enumerate(runs.items()):
        spent = [line["evaluation"] for line in run.evaluations]
        best = np.maximum.accumulate([line["reward"] for line in run.evaluations])
        axes.step(spent, best, where="post", color=SEVERAL[number % len(SEVERAL)], label=name)
    axes.set(xlabel="evaluations", ylabel="best reward so far")
    legend_above(figure, axes, columns=1)
    return figure


def compared_networks(runs: Mapping[str, RunRecord]) -> Any:
    """The test metric against multiply-adds of the best networks of several runs, and of their yardsticks.

    Where metrics differ, each is scaled to [0, 1].
    """
    figure, axes = narrow_figure()
    common = common_units(run.result for run in runs.values())
    for number, (name, run) in enumerate(runs.items()):
        colour, units = SEVERAL[number % len(SEVERAL)], units_of(run.result)
        entry, uniform = (
            (one["relative_macs"], units.value(one, "test") if common else one["test_accuracy"])
            for one in (run.result["best"], run.result["baselines"]["uniform"])
        )
        axes.plot(*entry, "*", color=colour, markersize=12, label=name)
        axes.plot(*uniform, "o", color=colour, fillstyle="none")
    shown = common or MetricUnits("metric, scaled to 0 to 100 %")
    axes.set(xlabel="multiply-adds, of the original's", ylabel=f"test {shown.axis}")
    percent(axes.xaxis)
    _of_metric(axes.yaxis, shown)
    legend_above(figure, axes, columns=1)
    return figure


def narrow_figure(height: float = HEIGHT, rows: int = 1) -> tuple[Any, Any]:
    """A figure of this height in inches, and its axes; several, one below the other, share theirs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, sharex=True)


def legend_above(figure: Any, axes: Any, columns: int = 3) -> None:
    """Where it hides nothing; of one panel or several."""
    named = dict[str, Any]()
    for panel in np.atleast_1d(axes):
        handles, labels = panel.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc="outside upper center", ncols=min(columns, len(named)))


def _uniform_line(axes: Any, run: RunRecord, against: str) -> None:
    if points := run.more.get("uniform"):
        whole = run.result["original"]["filters"]
        places = [1 - one["filters"] / whole if against == "filters" else one[against] for one in points]
        values = [units_of(run.result).value(point, "validation") for point in points]
        axes.plot(places, values, "o-", color=UNIFORM, markersize=3, linewidth=1, label="uniform")


def _marks(axes: Any, run: RunRecord, against: str) -> None:
    """The networks of the table."""
    result = run.result
    whole = result["original"]["filters"]
    entries = {
        "original": (result["original"], "s", TRIED, 6),
        "random search": (result["baselines"]["random_search"], "D", RANDOM, 6),
        "greedy": (result["greedy"], "P", GREEDY, 9),
        "best": (result["best"], "*", BEST, 13),
    }
    for name, (entry, marker, colour, size) in entries.items():
        place = 1 - entry["filters"] / whole if against == "filters" else entry[against]
        axes.plot(
            place,
            units_of(result).value(entry, "validation"),
            marker,
            color=colour,
            markersize=size,
            markeredgecolor=INK,
            markeredgewidth=0.6,
            label=name,
        )


def percent(axis: Any, whole: float = 1) -> None:
    """An axis of shares in percent; 100 % is this number."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(PercentFormatter(whole))


def _of_metric(axis: Any, units: MetricUnits) -> None:
    """Accuracy in percent, and what else in its own units."""
    if units.is_accuracy:
        percent(axis)


def _log_percent(axes: Any, units: MetricUnits) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if units.is_accuracy:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
