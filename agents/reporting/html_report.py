"""A run, or several side by side, as one page of HTML: what was asked, what came out, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agents.reporting import figures
from agents.reporting.figure_files import as_svg, inline, write_files
from agents.reporting.metric_units import MetricUnits, common_units, units_of
from agents.reporting.pages import Number, Page, Picture, Row, Section, Table, as_html
from agents.reporting.report_data import RunRecord, read_run
from agents.reporting.run_report import entries_of, equal_in, error_of_times, labels_of, of_budget, others
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.evaluation.budgets import KINDS, LATENCY, budget_from

HTML = "report.html"  # in a run folder
COSTS = ("MACs", "params", "filters", "reward")  # columns
NOTE = "not free because"
EQUALS = {"macs": "multiply-adds", "params": "parameters", "latency": "time"}
FEW = (
    "Where runs differ in their seed only, their spread is the luck of a run; fewer than five of each kind say "
    "little about which is better."
)
LOAD = """\
import dsfp_env

network = dsfp_env.load_pruned("pruned.safetensors")  # an ordinary nn.Module, in evaluation mode
# where the network is not one of dsfp_env.networks: load_pruned("pruned.safetensors", network=MyNet())
"""


def write_run(run: RunRecord, path: Path) -> None:
    """Write the page of one run, and beside it its figures, as in ``report-front.svg`` and ``report-front.pdf``.

    Args:
        run: The run.
        path: The HTML file.

    Raises:
        InputError: If what is known of the run is not such as a run leaves.
    """

    def made() -> str:
        drawn = {name: draw(run) for name, (draw, _) in figures.FIGURES.items()}
        there = {name: figure for name, figure in drawn.items() if figure is not None}
        svg = {name: as_svg(figure) for name, figure in there.items()}
        shown = [Picture(inline(svg[name], name), figures.caption(name, run)) for name in there]
        html = as_html(page_of(run, shown))
        for name, figure in there.items():
            write_files(path.parent, f"{path.stem}-{name}", svg[name], figure)
        return html

    with figures.style():
        html = _checked(made, run.name)
    write_whole(path, lambda file: file.write(html.encode()))


def write_comparison(folders: Sequence[Path], path: Path) -> None:
    """Write one page about several finished runs.

    Args:
        folders: Of the runs.
        path: The HTML file.

    Raises:
        InputError: If a folder holds none, or its files are not such as a run leaves.
    """
    runs = {_name(folder, folders): read_run(folder) for folder in folders}
    with figures.style():
        page = _checked(lambda: as_html(comparison_of(runs)), ", ".join(map(str, folders)))
    write_whole(path, lambda file: file.write(page.encode()))


def page_of(run: RunRecord, pictures: Sequence[Picture]) -> Page:
    """What a page tells about one run."""
    result = run.result
    best, original, units = result["best"], result["original"], units_of(result)
    numbers = [
        Number(units.text(best, "test"), f"test {units.name}; original {units.text(original, 'test')}"),
        Number(f"{best['relative_macs']:.1%}", f"of {original['macs']:,} multiply-adds"),
        Number(f"{best['params'] / original['params']:.1%}", f"of {original['params']:,} parameters"),
        Number(f"{best['filters']:,}", f"of {original['filters']:,} filters"),
        *time_number(result),
    ]
    sections = [
        Section("Networks", [explained(units)], [networks_table(result), *finish_tables(result)]),
        Section("Pictures", pictures=pictures),
        Section("Layers", tables=[layers_table(run)]),
        Section("The network", ["The best network is in the folder of the run.", *notes(result)], code=LOAD),
    ]
    if run.settings or run.versions:
        shown = {name: value for name, value in run.settings.items() if value is not None}
        sections.append(Section("Settings and versions", dictionaries=[shown, run.versions]))
    return Page(
        f"{result['task']}, pruned by {result['agent']}", [asked(result)], [answer(result)], numbers, sections
    )


def asked(result: Mapping[str, Any]) -> str:
    """The question in one sentence."""
    within = ""
    if budget := budget_from(*(result.get(f"{kind}_budget") for kind in KINDS)):
        share, seconds, word = budget.share, budget.seconds, EQUALS[budget.of]
        within = f", within {1e3 * seconds:g} ms" if seconds else f", within {share:.0%} of the {word}"
        within += " of a forward pass" if budget.of == LATENCY else ""
    return (
        f"Asked: which share of its filters every layer of {result['task']} can lose{within}, found by "
        f"{result['agent']} in {result['evaluations']} evaluations (seed {result['seed']}, reward "
        f"{result.get('reward')}, criterion {result.get('criterion')})."
    )


def answer(result: Mapping[str, Any]) -> str:
    """What came out in one sentence, beside the yardsticks."""
    best, original, units = result["best"], result["original"], units_of(result)
    equal = f"random_search_equal_{of_budget(result)}"
    uniform, drawn = (result["baselines"][name] for name in ("uniform", equal))
    lost = 100 * (original["test_accuracy"] - best["test_accuracy"])
    change = f"{abs(lost):.1f} points {'less' if lost > 0 else 'more'} than" if abs(lost) >= 0.05 else "as much as"
    if not units.is_accuracy:  # in units of its own, and less may be better
        change = f"beside {units.text(original, 'test')} of"
    return (
        f"{times_as_fast(result)}{original['macs'] / best['macs']:.1f} times fewer multiply-adds and "
        f"{original['params'] / best['params']:.1f} times fewer parameters, at {units.text(best, 'test')} test "
        f"{units.name}, {change} the original; at equal {EQUALS[of_budget(result)]} uniform pruning has "
        f"{units.text(uniform, 'test')}, random search {units.text(drawn, 'test')}."
    )


def times_as_fast(result: Mapping[str, Any]) -> str:
    """How the sentence begins where times were measured."""
    best, original = result["best"], result["original"]
    if "measured_latency" not in original:
        return ""
    measured, predicted = (original[key] / best[key] for key in ("measured_latency", "predicted_latency"))
    return f"{measured:.1f} times as fast by measured times, {predicted:.1f} by predicted ones, with "


def time_number(result: Mapping[str, Any]) -> list[Number]:
    """The time of the best network, where times were measured."""
    best, original = result["best"], result["original"]
    if "measured_latency" not in original:
        return []
    predicted, whole = 1e3 * best["predicted_latency"], 1e3 * original["measured_latency"]
    what = f"measured; predicted {predicted:.3f}, original {whole:.3f}"
    return [Number(f"{1e3 * best['measured_latency']:.3f} ms", what)]


def explained(units: MetricUnits) -> str:
    """How the values of the table came about, and how sure they are."""
    values, small = "Accuracies", "differences of a point or less"
    if not units.is_accuracy:
        values, small = f"Values of {units.name}", "small differences"
    return (
        f"{values} are means over three fine-tunings with seeds that no search has seen; the test split was used "
        f"for this table only. It is one run of one seed: {small} are within luck."
    )


def networks_table(result: Mapping[str, Any]) -> Table:
    """A row for every network that was measured."""
    rows, labels, units = [], labels_of(result), units_of(result)
    for name, entry in entries_of(result).items():
        label = labels[name]
        kind = "best" if name == "best" else "yardstick" if label.startswith(" ") else ""
        rows.append(Row([label.strip(), *_cells(entry, units)], kind))
    return Table(("", *_values(units), *COSTS), rows, caption=metric_note(units))


def finish_tables(result: Mapping[str, Any]) -> list[Table]:
    """What the long fine-tune came to, and measured times, where there are such."""
    entries, labels, units, tables = entries_of(result), labels_of(result), units_of(result), []
    if told := result.get("fine_tuned"):
        rows = [
            Row(
                [
                    labels[name].strip(),
                    units.text(one, "test"),
                    units.text(one, "validation"),
                    f"{entries[name]['relative_macs']:.1%}",
                    f"{one['best_epoch']} of {one['epochs']}",
                ],
                "best" if name == "best" else "yardstick",
            )
            for name, one in told["networks"].items()
        ]
        head = ("", *_values(units), "MACs", "best epoch")
        tables.append(Table(head, rows, caption=f"After the long fine-tune, {told['recipe']}."))
    if "measured_latency" in entries["original"]:
        tables.append(times_table(result))
    return tables


def times_table(result: Mapping[str, Any]) -> Table:
    """Predicted times, which the budget is of, beside measured ones."""
    rows, labels = [], labels_of(result)
    for name, entry in entries_of(result).items():
        predicted, measured, noise = (
            1e3 * entry[key] for key in ("predicted_latency", "measured_latency", "latency_spread")
        )
        cells = f"{predicted:.3f}", f"{measured:.3f}", f"{measured / predicted - 1:+.1%}", f"{noise:.3f}"
        rows.append(Row([labels[name].strip(), *cells], "best" if name == "best" else ""))
    how = f", {result['deployed']}" if result.get("deployed") else ""
    error = error_of_times(result)
    caption = f"ms of a forward pass{how}. Budgets are of predicted times: {error}."
    return Table(("", "predicted", "measured", "apart", "noise"), rows, caption=caption)


def metric_note(units: MetricUnits) -> str:
    """What stands in place of accuracy, if something does."""
    if units.is_accuracy:
        return ""
    return (
        f"In place of accuracy: {units.name}, from {units.worst:.3g} at worst to {units.best:.3g} at best. "
        "Rewards see it scaled, from 0 at worst to 1 at best; there, and in pictures, nothing is worse than the "
        "worst."
    )


def notes(result: Mapping[str, Any]) -> list[str]:
    """Criteria that were compared, and files that were exported, whose names stay as they are."""
    lines = others(result).splitlines()
    return [f"{line if '.' in line.split(':')[0] else line[0].upper() + line[1:]}." for line in lines]


def layers_table(run: RunRecord) -> Table:
    """Every layer before and after; of runs that noted less, every agent."""
    result = run.result
    ratios = result["best"]["ratios"]
    if not (layers := run.more.get("layers")):
        before, after = result["original"]["filters_kept"], result["best"]["filters_kept"]
        rows = [Row([agent, f"{before[agent]} → {after[agent]}", f"{ratios[agent]:.0f} %"]) for agent in before]
        return Table(("agent", "filters", "pruned"), rows)
    rows = []
    for one in layers:
        agent, note = one["agent"], one["note"]
        pruned = f"{100 * (1 - one['filters'][1] / max(1, one['filters'][0])):.0f} %"
        asked = f"{ratios[agent]:.0f} %" if agent in ratios else ""
        macs = "" if one["macs"] is None else _change(one["macs"])
        cells = [one["layer"], agent or "", _change(one["filters"]), asked, pruned, macs, _change(one["params"])]
        rows.append(Row([*cells, note or ""], "" if agent else "alone"))
    head = ["layer", "agent", "filters", "asked", "pruned", "multiply-adds", "parameters", NOTE]
    if not any(row.cells[-1] for row in rows):
        head, rows = head[:-1], [Row(row.cells[:-1], row.kind) for row in rows]
    return Table(head, rows, ("agent", NOTE), "Every convolution, before → after.")


def comparison_of(runs: Mapping[str, RunRecord]) -> Page:
    """What a page tells about several runs."""
    rows, common = [], common_units(run.result for run in runs.values())
    for name, run in runs.items():
        result = run.result
        cells = partial(_cells, units=units_of(result), named=common is None)
        rows.append(Row([name, *cells(result["best"])], "best"))
        for yardstick in ("uniform", "random_search", f"random_search_equal_{of_budget(result)}"):
            label = labels_of(result)[yardstick].strip()
            rows.append(Row([label, *cells(result["baselines"][yardstick])], "yardstick"))
        rows.append(Row(["original", *cells(result["original"])], "yardstick"))
    costs = {equal_in(run.result) for run in runs.values()}
    cost = costs.pop() if len(costs) == 1 else "cost"
    drawn = {
        "rewards": (figures.compared_rewards, "The best reward so far."),
        "networks": (
            figures.compared_networks,
            f"Best networks (stars), and uniform pruning at their {cost} (rings).",
        ),
    }
    pictures = [
        Picture(inline(as_svg(draw(runs)), name), caption)
        for name, (draw, caption) in drawn.items()
        if all(run.evaluations for run in runs.values()) or name == "networks"
    ]
    winner = max(runs, key=lambda name: float(runs[name].result["best"]["reward"]))
    same = common is not None and len({run.result.get("reward") for run in runs.values()}) == 1
    answers = [f"The highest reward with fresh seeds, {runs[winner].result['best']['reward']:.4f}, has {winner}."]
    names = dict.fromkeys(name for run in runs.values() for name in run.settings)
    differ = [one for one in names if len({repr(run.settings.get(one)) for run in runs.values()}) > 1]
    settings = Table(
        ("run", *differ), [Row([name, *(str(r.settings.get(one)) for one in differ)]) for name, r in runs.items()]
    )
    sections = [
        Section("Networks", [FEW], [Table(("", *_values(common), *COSTS), rows)]),
        Section("Pictures", pictures=pictures),
        Section("What was asked", [asked(run.result) for run in runs.values()], [settings] if differ else []),
    ]
    return Page(f"{len(runs)} runs side by side", [], answers if same else [], [], sections)


def _checked(make: Callable[[], str], where: str) -> str:
    """What is made; of files that say something else than a run writes, a sentence.

    Raises:
        InputError: If they do.
    """
    try:
        return make()
    except (KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, AttributeError) as error:
        raise InputError(
            f"No report can be made of {where} ({type(error).__name__}: {error}): expected files as "
            "train_agents.py writes them, unchanged."
        ) from error


def _values(units: MetricUnits | None) -> tuple[str, str]:
    """Heads of the columns of a metric, or of several."""
    if units is None:
        return "test", "valid."
    name = "acc." if units.is_accuracy else units.name
    return f"test {name}", f"valid. {name}"


def _cells(entry: Mapping[str, Any], units: MetricUnits, named: bool = False) -> list[str]:
    name = f"{units.name} " if named else ""
    return [
        f"{name}{units.text(entry, 'test')}",
        f"{name}{units.text(entry, 'validation')}",
        f"{entry['relative_macs']:.1%}",
        f"{entry['params']:,}",
        f"{entry['filters']:,}",
        f"{entry['reward']:.4f}",
    ]


def _change(pair: Sequence[int]) -> str:
    before, after = pair
    return f"{before:,}" if before == after else f"{before:,} → {after:,}"


def _name(folder: Path, folders: Sequence[Path]) -> str:
    """As short as tells it from the others."""
    names = [one.absolute().name for one in folders]
    return folder.absolute().name if names.count(folder.absolute().name) == 1 else str(folder)
