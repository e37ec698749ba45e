"""A run, or several side by side, as one page of HTML: what was asked, what came out, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.reporting import figures
from agents.reporting.figure_files import as_svg, inline, write_files
from agents.reporting.pages import Number, Page, Picture, Row, Section, Table, as_html
from agents.reporting.report_data import RunRecord, read_run
from agents.reporting.run_report import entries_of, labels_of, of_budget, others, shown_metric
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole

HTML = "report.html"  # in a run folder
HEAD = ("", "test acc.", "valid. acc.", "MACs", "params", "filters", "reward")
NOTE = "not free because"
EQUALS = {"macs": "multiply-adds", "params": "parameters", "latency": "time"}
WORDS = EQUALS | {"latency": "time of a forward pass"}
EXPLAINED = (
    "Accuracies are means over three fine-tunings with seeds that no search has seen; the test split was used for "
    "this table only. It is one run of one seed: differences of a point or less are within luck."
)
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
        shown = [Picture(inline(svg[name], name), figures.FIGURES[name][1]) for name in there]
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
    best, original, name = result["best"], result["original"], metric_name(result)
    numbers = [
        Number(shown_metric(best, "test"), f"test {name}; original {shown_metric(original, 'test')}"),
        Number(f"{best['relative_macs']:.1%}", f"of {original['macs']:,} multiply-adds"),
        Number(f"{best['params'] / original['params']:.1%}", f"of {original['params']:,} parameters"),
        Number(f"{best['filters']:,}", f"of {original['filters']:,} filters"),
    ]
    sections = [
        Section("Networks", [EXPLAINED], [networks_table(result), *finish_tables(result)]),
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
    budgets = {
        kind: result[f"{kind}_budget"] for kind in WORDS if result.get(f"{kind}_budget") is not None
    }  # one, or none
    within = "".join(
        f", within {budget if isinstance(budget, str) else f'{budget:.0%}'} of the {WORDS[kind]}"
        for kind, budget in budgets.items()
    )
    return (
        f"Asked: which share of its filters every layer of {result['task']} can lose{within}, found by "
        f"{result['agent']} in {result['evaluations']} evaluations (seed {result['seed']}, reward "
        f"{result.get('reward')}, criterion {result.get('criterion')})."
    )


def answer(result: Mapping[str, Any]) -> str:
    """What came out in one sentence, beside the yardsticks."""
    best, original = result["best"], result["original"]
    equal = f"random_search_equal_{of_budget(result)}"
    uniform, drawn = (result["baselines"][name] for name in ("uniform", equal))
    lost = 100 * (original["test_accuracy"] - best["test_accuracy"])
    change = f"{abs(lost):.1f} points {'less' if lost > 0 else 'more'} than" if abs(lost) >= 0.05 else "as much as"
    if "metric" in result:  # in units of its own, and less may be better
        change = f"beside {shown_metric(original, 'test')} of"
    return (
        f"{original['macs'] / best['macs']:.1f} times fewer multiply-adds and "
        f"{original['params'] / best['params']:.1f} times fewer parameters, at {shown_metric(best, 'test')} test "
        f"{metric_name(result)}, {change} the original; at equal {EQUALS[of_budget(result)]} uniform pruning has "
        f"{shown_metric(uniform, 'test')}, random search {shown_metric(drawn, 'test')}."
    )


def networks_table(result: Mapping[str, Any]) -> Table:
    """A row for every network that was measured."""
    rows, labels = [], labels_of(result)
    for name, entry in entries_of(result).items():
        label = labels[name]
        kind = "best" if name == "best" else "yardstick" if label.startswith(" ") else ""
        rows.append(Row([label.strip(), *_cells(entry)], kind))
    return Table(HEAD, rows, caption=metric_note(result))


def finish_tables(result: Mapping[str, Any]) -> list[Table]:
    """What the long fine-tune came to, and measured times, where there are such."""
    entries, labels, tables = entries_of(result), labels_of(result), []
    if told := result.get("fine_tuned"):
        rows = [
            Row(
                [
                    labels[name].strip(),
                    f"{one['test_accuracy']:.1%}",
                    f"{one['validation_accuracy']:.1%}",
                    f"{entries[name]['relative_macs']:.1%}",
                    f"{one['best_epoch']} of {one['epochs']}",
                ],
                "best" if name == "best" else "yardstick",
            )
            for name, one in told["networks"].items()
        ]
        head = ("", *HEAD[1:4], "best epoch")
        tables.append(Table(head, rows, caption=f"After the long fine-tune, {told['recipe']}."))
    if "measured_latency" in entries["original"]:
        keys = "predicted_latency", "measured_latency", "latency_spread"
        rows = [
            Row([labels[name].strip(), *(f"{1e3 * entry[key]:.3f}" for key in keys)], "best" * (name == "best"))
            for name, entry in entries.items()
        ]
        tables.append(Table(("", "predicted", "measured", "noise"), rows, caption="ms of a forward pass."))
    return tables


def metric_name(result: Mapping[str, Any]) -> str:
    """What is maximised, in words."""
    return str(result.get("metric", {}).get("name", "accuracy")).replace("_", " ")


def metric_note(result: Mapping[str, Any]) -> str:
    """What stands in place of accuracy, if something does."""
    if not (metric := result.get("metric")):
        return ""
    return (
        f"In place of accuracy: {metric_name(result)}, from {metric['worst']:.3g} at worst to "
        f"{metric['best']:.3g} at best. Pictures, and what follows the long fine-tune, show it scaled to 0 to "
        "100 %."
    )


def notes(result: Mapping[str, Any]) -> list[str]:
    """Criteria that were compared, and files that were exported."""
    return [f"{line[0].upper()}{line[1:]}." for line in others(result).splitlines()]


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
    rows = []
    for name, run in runs.items():
        result = run.result
        rows.append(Row([name, *_cells(result["best"])], "best"))
        for yardstick in ("uniform", "random_search", f"random_search_equal_{of_budget(result)}"):
            label = labels_of(result)[yardstick].strip()
            rows.append(Row([label, *_cells(result["baselines"][yardstick])], "yardstick"))
        rows.append(Row(["original", *_cells(result["original"])], "yardstick"))
    drawn = {
        "rewards": (figures.compared_rewards, "The best reward so far."),
        "networks": (
            figures.compared_networks,
            "Best networks (stars), and uniform pruning at their MACs (rings).",
        ),
    }
    pictures = [
        Picture(inline(as_svg(draw(runs)), name), caption)
        for name, (draw, caption) in drawn.items()
        if all(run.evaluations for run in runs.values()) or name == "networks"
    ]
    winner = max(runs, key=lambda name: float(runs[name].result["best"]["reward"]))
    same = len({run.result.get("reward") for run in runs.values()}) == 1
    answers = [f"The highest reward with fresh seeds, {runs[winner].result['best']['reward']:.4f}, has {winner}."]
    names = dict.fromkeys(name for run in runs.values() for name in run.settings)
    differ = [one for one in names if len({repr(run.settings.get(one)) for run in runs.values()}) > 1]
    settings = Table(
        ("run", *differ), [Row([name, *(str(r.settings.get(one)) for one in differ)]) for name, r in runs.items()]
    )
    sections = [
        Section("Networks", [FEW], [Table(HEAD, rows)]),
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


def _cells(entry: Mapping[str, Any]) -> list[str]:
    return [
        shown_metric(entry, "test"),
        shown_metric(entry, "validation"),
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
