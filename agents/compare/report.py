"""Runs of several learners as tables and as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.reporting.baselines import YARDSTICKS
from agents.reporting.markdown_tables import markdown_table
from agents.reporting.statistics import Interval, interval, mean, warning_of_few

Run = Mapping[str, Any]  # as `agents.compare.runs.make_run` gives
PAIRED_WITH = "random_search"
FRONTS = 5  # learners whose fronts are drawn


def table(runs: Sequence[Run]) -> str:
    """Markdown: for every learner and budget the interquartile mean over seeds, with its 95 % interval.

    Learners are in the order of their best joint actions with the largest budget.
    """
    budgets = sorted({run["budget"] for run in runs})
    names = _ranked(runs, budgets[-1])
    columns = [(which, budget) for which in ("best", "greedy") for budget in budgets]
    parts = [
        markdown_table(
            ["", *(f"{which}, {budget}" for which, budget in columns)],
            [[name, *(_cell(_rewards(runs, name, budget, which)) for which, budget in columns)] for name in names],
        ),
        f"With {budgets[-1]} evaluations:",
        _details(runs, names, budgets[-1]),
        warning_of_few(len(of) for name in names for b in budgets if (of := _of(runs, name, b))),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _details(runs: Sequence[Run], names: Sequence[str], budget: int) -> str:
    """What else came of the largest budget."""
    heading = (
        "",
        f"best, less that of {PAIRED_WITH}",
        "its test accuracy",
        "its relative MACs",
        "hypervolume of all tried",
        "seeds",
    )
    rows = []
    for name in names:
        mine = _of(runs, name, budget)
        cells = (
            _difference(runs, name, budget),
            f"{np.mean([run['best']['test_accuracy'] for run in mine]):.1%}",
            f"{np.mean([run['best']['relative_macs'] for run in mine]):.1%}",
            _cell([run["hypervolume"] for run in mine]),
            str(len(mine)),
        )
        rows.append((name, *cells))
    return markdown_table(heading, rows)


def _difference(runs: Sequence[Run], name: str, budget: int) -> str:
    """The mean difference to the yardstick, paired by seeds, whose networks differ more than learners do."""
    rewards, others = (
        {run["seed"]: run["best"]["reward"] for run in _of(runs, one, budget)} for one in (name, PAIRED_WITH)
    )
    differences = np.array([rewards[seed] - others[seed] for seed in rewards if seed in others])
    if name == PAIRED_WITH or len(differences) < 2:
        return ""
    found = interval(differences, statistic=mean, rng=np.random.default_rng(0))
    return f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def draw(path: Path, runs: Sequence[Run]) -> None:
    """Draw the interquartile means with their intervals, one panel for each budget.

    Args:
        path: A PNG file.
        runs: Of several learners.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    budgets = sorted({run["budget"] for run in runs})
    names = _ranked(runs, budgets[-1])[::-1]
    figure = Figure(figsize=(4.5 * len(budgets), 1.2 + 0.28 * len(names)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(budgets), sharey=True, sharex=True, squeeze=False)[0]
    for panel, budget in zip(panels, budgets, strict=True):
        for which, colour, shift in (("best", "#d62728", 0.12), ("greedy", "#1f77b4", -0.12)):
            found = [(place, _interval(_rewards(runs, name, budget, which))) for place, name in enumerate(names)]
            known = [(place, one) for place, one in found if one is not None]
            values = [one.value for _, one in known]
            errors = np.array([[one.value - one.low, one.high - one.value] for _, one in known]).T
            places = [place + shift for place, _ in known]
            panel.errorbar(values, places, xerr=np.abs(errors), fmt="o", markersize=4, color=colour, label=which)
        panel.set(title=f"{budget} evaluations", xlabel="reward with fresh seeds")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].legend(frameon=False, loc="lower left")
    figure.savefig(path)


def draw_fronts(path: Path, runs: Sequence[Run]) -> None:
    """Draw the Pareto fronts of what learners have tried with the largest budget, mean over seeds.

    A front is the highest accuracy found with at most so many MACs. Shown are the learners whose front has the
    largest hypervolume, and the yardsticks; where a seed found nothing so small, the line begins later.

    Args:
        path: A PNG file.
        runs: Of several learners.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    budget = max(run["budget"] for run in runs)
    volumes = {name: _volume(runs, name, budget) for name in dict.fromkeys(run["agent"] for run in runs)}
    best = sorted(volumes, key=lambda name: -volumes[name])[:FRONTS]
    figure = Figure(figsize=(8, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    macs = np.geomspace(0.01, 0.5, 100)
    for name in [
        *best,
        *(yardstick for yardstick in YARDSTICKS if yardstick in volumes and yardstick not in best),
    ]:
        fronts = np.mean([accuracies_within(run, macs) for run in _of(runs, name, budget)], axis=0)
        line: dict[str, Any] = {"color": "black", "linestyle": YARDSTICKS[name]} if name in YARDSTICKS else {}
        axes.plot(macs, fronts, label=f"{name}, hypervolume {volumes[name]:.3f}", **line)
    axes.set(
        title=f"validation accuracy found in {budget} evaluations, mean over seeds",
        xlabel="at most so many MACs, of the original's",
        xscale="log",
    )
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)


def accuracies_within(run: Run, macs: np.ndarray) -> np.ndarray:
    """The highest accuracy that a run found with at most these relative MACs; NaN where it found nothing.

    Args:
        run: Of one learner.
        macs: ``[k]``.
    """
    tried, accuracies = np.array(run["relative_macs"]), np.array(run["accuracies"])
    within = np.where(tried <= macs[:, None], accuracies, -np.inf).max(1)
    return np.where(np.isfinite(within), within, np.nan)


def _volume(runs: Iterable[Run], name: str, budget: int) -> float:
    found = _interval([run["hypervolume"] for run in _of(runs, name, budget)])
    return -np.inf if found is None else found.value


def _ranked(runs: Iterable[Run], budget: int) -> list[str]:
    runs = list(runs)
    names = dict.fromkeys(run["agent"] for run in runs)

    def worth(name: str) -> float:
        found = _interval(_rewards(runs, name, budget, "best"))
        return -np.inf if found is None else found.value

    return sorted(names, key=worth, reverse=True)


def _of(runs: Iterable[Run], name: str, budget: int) -> list[Run]:
    return [run for run in runs if run["agent"] == name and run["budget"] == budget]


def _rewards(runs: Iterable[Run], name: str, budget: int, which: str) -> list[float]:
    return [run[which]["reward"] for run in _of(runs, name, budget)]


def _interval(scores: Sequence[float]) -> Interval | None:
    if len(scores) < 2:
        return Interval(scores[0], scores[0], scores[0]) if scores else None
    return interval(scores, rng=np.random.default_rng(0))


def _cell(scores: Sequence[float]) -> str:
    found = _interval(scores)
    return "" if found is None else f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
