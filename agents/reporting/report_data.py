"""What a report is made from: the files of a run folder, and `report.json`, which holds what no other file does.

| in `report.json` | content                                                                                 |
|------------------|-----------------------------------------------------------------------------------------|
| `random_search`  | what random search tried, in order: filters kept (by agent, in order), accuracy, ...    |
| `uniform`        | the sweep of uniform plans from 10 to 90 %, likewise                                    |
| `layers`         | every convolution of the network before and after, also those that nobody decides for   |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from agents.reporting.run_folder import EVALUATIONS, HOW, RESULT, SETTINGS, SUMMARY, write_json
from dsfp_env.channels.lent import unwrapped
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.tasks.task import Task

REPORT = "report.json"


@dataclass(frozen=True)
class RunRecord:
    """All that is known of a finished run.

    Attributes:
        name: Of its folder.
        result: As in `result.json`.
        evaluations: The lines of `evaluations.jsonl`; none if there is no such file.
        more: As in `report.json`; empty for runs that wrote none.
        settings: That results depend on, by name.
        versions: Of packages.
    """

    name: str
    result: Mapping[str, Any]
    evaluations: Sequence[Mapping[str, Any]] = ()
    more: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def read_run(folder: Path, result: Mapping[str, Any] | None = None) -> RunRecord:
    """A finished run, from its files.

    Args:
        folder: That it was written to.
        result: Of a run that is about to write it; else it is read too.

    Raises:
        InputError: If there is none in the folder, it is not finished, or a file cannot be read.
    """
    if (folder / SUMMARY).exists():
        raise InputError(f"{folder} holds runs of several seeds: give their folders, {folder}/seed-*.")
    if result is None and not (folder / RESULT).exists():
        what = "a run that is not finished" if (folder / SETTINGS).exists() else "no run"
        raise InputError(f"{folder} holds {what}: expected a folder that train_agents.py has written to its end.")
    result = _read(folder / RESULT, json.loads) if result is None else result
    if not isinstance(result, Mapping) or result.get("interrupted"):
        raise InputError(
            f"The run in {folder} was interrupted: give its command again, and it goes on to its end."
        )
    asked = _read(folder / SETTINGS, json.loads) if (folder / SETTINGS).exists() else {}
    lines = _read(folder / EVALUATIONS, _lines) if (folder / EVALUATIONS).exists() else []
    more = _read(folder / REPORT, json.loads) if (folder / REPORT).exists() else {}
    settings = {name: value for name, value in dict(asked.get("settings", {})).items() if name not in HOW}
    return RunRecord(folder.absolute().name, result, lines, more, settings, dict(asked.get("versions", {})))


def write_more(
    folder: Path,
    task: Task,
    pruned: nn.Module,
    score: Callable[[Outcome], float],
    random_outcomes: Iterable[Outcome],
    uniform_outcomes: Iterable[Outcome],
) -> None:
    """Write `report.json`.

    Args:
        folder: Of the run.
        task: Whose network was pruned.
        pruned: The network with the best joint action.
        score: What an outcome is worth.
        random_outcomes: Of random search, in order.
        uniform_outcomes: Of the sweep of uniform plans.
    """
    more = {
        "random_search": [_point(outcome, score) for outcome in random_outcomes],
        "uniform": [_point(outcome, score) for outcome in uniform_outcomes],
        "layers": layers_of(task, pruned),
    }
    write_json(folder / REPORT, more)


def layers_of(task: Task, pruned: nn.Module) -> list[dict[str, Any]]:
    """Every convolution of a network before and after, in the order of the modules.

    Args:
        task: With the original network.
        pruned: What was cut from it.

    Returns:
        Of each: ``layer`` (module path), ``agent`` that decided (or None), ``filters`` and ``params``, each before
        and after, ``macs`` likewise (None where the layer cannot lose filters), and ``note``: why nobody decided.
    """
    graph, control = task.graph, task.control
    agent_of = {path: agent for agent, decides in control.agents.items() for path in decides.paths}
    rows = []
    pruned = unwrapped(pruned)
    for path, module in unwrapped(task.network).named_modules(remove_duplicate=False):
        if path not in graph.layers and path not in graph.excluded:
            continue
        before, after = (_sizes(one) for one in (module, pruned.get_submodule(path)))
        layer, ratio = graph.layers.get(path), control.fixed.get(path)
        note = graph.excluded.get(path)
        if ratio is not None:
            note = "left alone, as asked" if ratio == 0 else f"always {ratio:g} %, as asked"
        macs = None if layer is None else [layer.macs, round(layer.macs * after[2] / before[2])]
        rows.append(
            {
                "layer": path,
                "agent": agent_of.get(path),
                "filters": [before[0], after[0]],
                "params": [before[1], after[1]],
                "macs": macs,
                "note": note,
            }
        )
    return rows


def _sizes(module: nn.Module) -> tuple[int, int, int]:
    """Filters, parameters, and weights without biases, to which multiply-adds are in proportion."""
    weights = sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)
    filters = getattr(module, "out_channels", 0)
    return int(filters), sum(parameter.numel() for parameter in module.parameters()), max(1, weights)


def _point(outcome: Outcome, score: Callable[[Outcome], float]) -> dict[str, Any]:
    return {
        "filters_kept": list(outcome.filters_kept.values()),
        "validation_accuracy": outcome.accuracy,
        "relative_macs": outcome.relative_macs,
        "filters": outcome.filters,
        "reward": score(outcome),
    }


def _lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}): expected what train_agents.py has written.") from error
