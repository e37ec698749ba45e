"""A leaderboard as tables and as a picture, from what `leaderboard.json` holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agents.reporting.baselines import YARDSTICKS
from agents.reporting.markdown_tables import markdown_table
from agents.reporting.statistics import warning_of_few

COLOURED = 8  # learners with a colour in each panel
FLOOR = 1e-4  # lower regrets are drawn there
CAPTION = """\
Regrets are normalised: 0 is the optimum of all joint actions, 1 is what one drawn at random has on average. A
run is judged by what its own seed sees, which is what one of the table's seeds measured. Means over seeds, in
brackets their 95 % bootstrap intervals; the lowest regret of the best after the last evaluation comes first.

- best, k: the joint action with the highest reward that was seen in k evaluations;
- optimum found: the share of seeds that saw the very optimum;
- greedy: the joint action that the learner plays in the end, under masks drawn anew if it has masks;
- best, test: the best one seen, on the test split, mean over the seeds of the table;
- seeds: runs. Learners that take long themselves have fewer.
"""


ON_A_SURROGATE = """\
Regrets are normalised: 0 is the best joint action of levels that a long search has found, 1 is what one drawn at
random has on average; below 0 is better than all that the search has found. They are of means over the seeds of
the fine-tuning, while a learner sees one seed, with its noise, and its best is the best that it saw. Means over
runs, in brackets their 95 % bootstrap intervals; the lowest regret of the best after the last evaluation comes
first.

- best, k: the joint action with the highest reward that was seen in k evaluations;
- optimum found: the share of runs that end with one as good as the best known;
- greedy: the joint action that the learner plays in the end, under masks drawn anew if it has masks;
- best, test: the best one seen, on the test split;
- seeds: runs. Learners that take long themselves have fewer.
"""
CAPTIONS = {"table": CAPTION, "surrogate": ON_A_SURROGATE}


def tables(results: Mapping[str, Any]) -> str:
    """Markdown: a table for every reward, and the time that was saved."""
    what, this, seconds = results["board"], results["this_call"], results["live_seconds"]
    live = ""
    if seconds is not None:
        live = f"Live, the {results['runs']} runs would have taken {_long(seconds)} on one core. "
    parts = [
        f"Leaderboard on the {what['kind']} {what['task']} ({what['checksum'][:12]}).",
        CAPTIONS[what["kind"]].rstrip(),
        *(_table(form, results["settings"]["at"]) for form in results["forms"]),
        *_warnings(results["forms"]),
        f"{live}This call took {this['seconds']:.0f} seconds, in which it made {this['runs']} of the "
        f"{results['runs']} runs.",
    ]
    return "\n\n".join(parts) + "\n"


def _long(seconds: float) -> str:
    """A time in hours, or in minutes or seconds if it is short."""
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"


def _table(form: Mapping[str, Any], at: Iterable[int]) -> str:
    """One reward: its optima, and a row for every learner, judged after so many evaluations."""
    heading = [f"## {form['reward']}", "", *_optima(form), ""]
    if not form["learners"]:
        return "\n".join([*heading, "No learner could be run with this reward."])
    after = _columns(len(form["learners"][0]["best"]["mean"]), at)
    names = [f"best, {k}" for k in after] + ["optimum found", "greedy", "best, test", "seeds"]
    lines = []
    for learner in form["learners"]:
        best = learner["best"]
        cells = [_cell(*(best[name][k - 1] for name in ("mean", "low", "high"))) for k in after]
        cells.append(f"{learner['found']:.0%}")
        cells += [_cell(**learner[name]) for name in ("greedy", "test")]
        lines.append([learner["agent"], *cells, str(learner["seeds"])])
    return "\n".join([*heading, markdown_table(["", *names], lines)])


def _warnings(forms: Iterable[Mapping[str, Any]]) -> list[str]:
    warning = warning_of_few(learner["seeds"] for form in forms for learner in form["learners"])
    return [warning] if warning else []


def _columns(evaluations: int, at: Iterable[int]) -> list[int]:
    return sorted({k for k in at if k <= evaluations} | {evaluations})


def _optima(form: Mapping[str, Any]) -> list[str]:
    """Where the optimum of each seed is, and whether masks hide it."""
    lines = []
    for one in form["optima"]:
        ratios = "-".join(f"{ratio:.0f}" for ratio in one["ratios"].values())
        whose = f"Optimum of seed {one['seed']}" if "seed" in one else "Best known"
        lines.append(
            f"- {whose}: {ratios} %, score {one['score']:.4f}, accuracy "
            f"{one['accuracy']:.1%}, test accuracy {one['test_accuracy']:.1%}, relative MACs "
            f"{one['relative_macs']:.1%}"
        )
    budget = form["macs_budget"]
    beyond = [
        str(one.get("seed", "all"))
        for one in form["optima"]
        if budget is not None and one["relative_macs"] > budget
    ]
    if beyond:
        lines.append(
            f"- Beyond the budget, where learners of levels cannot go for their masks: the optimum of seed "
            f"{', '.join(beyond)}."
        )
    return lines


def draw(path: Path, results: Mapping[str, Any]) -> None:
    """Draw the mean regret of the best so far against evaluations, a panel for every reward.

    Args:
        path: A PNG file.
        results: As `leaderboard.json` holds them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    forms = [form for form in results["forms"] if form["learners"]]
    figure = Figure(figsize=(7 * len(forms), 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    colours = _colours(forms)
    panels = figure.subplots(1, len(forms), squeeze=False, sharey=True)[0]
    for panel, form in zip(panels, forms, strict=True):
        best = _best(form)
        for learner in form["learners"]:
            name = learner["agent"]
            line: dict[str, Any] = {"color": "0.8", "linewidth": 0.7, "zorder": 1}
            if name in YARDSTICKS:
                line = {"color": "black", "linestyle": YARDSTICKS[name], "label": name, "zorder": 3}
            elif name in best:
                line = {"color": colours[name], "label": name, "zorder": 2}
            mean, low, high = (_drawn(learner["best"][which]) for which in ("mean", "low", "high"))
            evaluations = np.arange(1, len(mean) + 1)
            panel.plot(evaluations, mean, **line)
            if "label" in line:
                panel.fill_between(evaluations, low, high, color=line["color"], alpha=0.15, linewidth=0)
        panel.set(title=form["reward"], xlabel="evaluations", xscale="log", yscale="log")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize="small", title="grey: all others")
    panels[0].set_ylabel(f"normalised regret of the best so far (below {FLOOR:g}: drawn there)")
    figure.savefig(path)


def _best(form: Mapping[str, Any]) -> list[str]:
    """The learners that get a colour."""
    names = [learner["agent"] for learner in form["learners"]]
    return [name for name in names if name not in YARDSTICKS][:COLOURED]


def _colours(forms: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The same for a learner in all panels."""
    from matplotlib import colormaps

    names = dict.fromkeys(name for form in forms for name in _best(form))
    palette = [colormaps["tab20"](place) for place in (*range(0, 20, 2), *range(1, 20, 2))]
    return {name: palette[place % len(palette)] for place, name in enumerate(names)}


def _drawn(values: Sequence[float | None]) -> np.ndarray:
    """Numbers as they are drawn: none below the floor."""
    return np.maximum(np.array(values, np.float64), FLOOR)


def _cell(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" if low == high else f"{mean:.4f} [{low:.4f}, {high:.4f}]"
