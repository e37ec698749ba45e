"""Measure every joint action of a task once, and keep the table.

    python -m dsfp_env.tabulate --task digits --out tables/digits

Every joint action is measured by the live `Evaluator`, after recalibration only and after the short knowledge
distillation, on the validation and on the test split, with every seed. Stopped or killed, the same command goes on
where it was. Several machines can make a part each, ``--part 1/2`` and ``--part 2/2``, of one trained network
(``--weights`` of the first one's folder, ``network.safetensors``); their folders are then merged:

    python -m dsfp_env.tabulate --merge tables/first tables/second --out tables/whole

Joint actions are measured in a random order, so that what is there after a part of the time is like the whole.
"""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch

import dsfp_env
from dsfp_env.common import command_line
from dsfp_env.common.devices import device_name
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.folders import check_writable, contents, held, remove_parts
from dsfp_env.common.hashing import hash_of
from dsfp_env.common.progress import Progress
from dsfp_env.common.saying import say
from dsfp_env.criteria.scoring import parse_criterion
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.plans import HIGHEST, LEVELS, LOWEST
from dsfp_env.evaluation.workers import as_done, available_cores
from dsfp_env.tables import files as table_files
from dsfp_env.tables.files import COSTS, FIDELITIES, NETWORK, SCHEMA, SPLITS, Arrays
from dsfp_env.tables.receipts import ROWS, forget_damaged, open_receipts, receipt
from dsfp_env.tasks.loading import TaskOptions
from dsfp_env.tasks.task import Task

PROBES = 3  # joint actions whose networks tell whether a machine computes alike


@dataclass(frozen=True)
class TableSettings(TaskOptions):
    """What is measured, and where it is kept."""

    out: str
    """The folder of the table; one that was begun with the same settings goes on."""
    levels: tuple[int, ...] = tuple(int(level) for level in LEVELS)
    """Ratios in percent that every agent chooses from, rising."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the fine-tuning."""
    criterion: str = "dsfp"
    """Which filters go first, as for train_agents.py."""
    validation_images: int | None = None
    """So many of the validation images, drawn at random; all unless given."""
    test_images: int | None = None
    """So many of the test images, drawn at random; all unless given."""
    part: str = "1/1"
    """Measure only a part of the joint actions: 1/2 and 2/2 are halves."""
    merge: tuple[str, ...] = ()
    """Folders of parts to put together, in place of measuring."""
    workers: int = available_cores()
    """Processes; each measures with one thread."""


class Measured(NamedTuple):
    """What is known of one joint action."""

    correct: np.ndarray  # [fidelities, seeds, splits]
    seconds: np.ndarray  # [fidelities], mean over seeds


class Surveyor:
    """Measures joint actions of a task.

    Args:
        task: The task.
        criterion: Which filters go first.
        seeds: Of the fine-tuning.
    """

    def __init__(self, task: Task, criterion: str, seeds: Sequence[int]) -> None:
        distilled = replace(task.fidelity, threads=task.fidelity.threads or 1)
        fidelities = replace(distilled, batches=0), distilled  # as FIDELITIES
        self.task, self.seeds = task, tuple(seeds)
        self.evaluators = [Evaluator(task, criterion, fidelity, store=False) for fidelity in fidelities]
        self.sizes = [len(split.labels) for split in (task.validation, task.test)]

    def measure(self, ratios: Mapping[str, float]) -> Measured:
        """Everything about one joint action, ratios in percent by agent."""
        correct = np.zeros((len(FIDELITIES), len(self.seeds), len(SPLITS)), np.int64)
        seconds = np.zeros(len(FIDELITIES), np.float32)
        for place, evaluator in enumerate(self.evaluators):
            seeds = self.seeds if evaluator.fidelity.batches else self.seeds[:1]  # else nothing is random
            start = time.perf_counter()
            accuracies = np.array([evaluator.measure_splits(ratios, seed) for seed in seeds])  # [seeds, splits]
            seconds[place] = (time.perf_counter() - start) / len(seeds)
            correct[place] = np.rint(accuracies * self.sizes)
        return Measured(correct, seconds)

    def probe(self, ratios: Mapping[str, float]) -> str:
        """Hash of the network that the first seed's fine-tuning makes, to the last bit."""
        return hash_of(self.evaluators[-1].build(ratios, self.seeds[0]).state_dict().values())


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(TableSettings, tabulate, __doc__)


def tabulate(settings: TableSettings) -> None:
    """Measure what is left, or merge.

    Raises:
        InputError: If a setting cannot be used, or the folder is of another table.
    """
    folder = Path(settings.out)
    if settings.merge:
        merge([Path(part) for part in settings.merge], folder)
        return
    part, parts = _part(settings.part)
    _check(settings)
    _check_folder(folder, settings)
    torch.set_num_threads(1)
    surveyor = Surveyor(_task(settings), settings.criterion, settings.seeds)
    described = _describe(settings, surveyor)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        remove_parts(folder)
        _measure(folder, settings, surveyor, described, part, parts)


def _measure(
    folder: Path,
    settings: TableSettings,
    surveyor: Surveyor,
    described: dict[str, Any],
    part: int,
    parts: int,
) -> None:
    """Measure what is left of a part."""
    meta = _begin(folder, surveyor, described)
    arrays = table_files.open_arrays(folder, meta, writable=True)
    receipts = open_receipts(folder, arrays)
    if damaged := forget_damaged(arrays, receipts):
        say(f"{folder}: {damaged} joint actions were damaged, and are measured anew")
    elif "checksum" in meta:
        table_files.read(folder)  # refuses what is damaged: it is not signed anew
    order = np.random.default_rng(0).permutation(len(arrays.correct))[part - 1 :: parts]
    left = order[~table_files.is_measured(arrays.correct)[order]]
    if len(left) and (described["machines"][0] not in meta["machines"] or "checksum" in meta):
        machines = {str(one): one for one in (*meta["machines"], *described["machines"])}
        meta = {**_described(meta), "machines": list(machines.values())}
        table_files.write_meta(folder, meta)
    plans = {int(row): _plan(meta, row) for row in left}
    progress = Progress(f"joint actions of {settings.task}", len(plans))
    with closing(progress):
        for row, measured in as_done(surveyor.measure, plans, settings.workers):
            arrays.seconds[row], arrays.correct[row] = measured.seconds, measured.correct
            receipts[row] = receipt(arrays, row)
            progress.advance()
    say(f"{folder} {_finish_if_whole(folder, meta, arrays)}")


def merge(parts: Sequence[Path], folder: Path) -> None:
    """Put parts of one table together; what several have measured is taken from the first.

    Raises:
        InputError: If they are not of one table, or the folder is there already.
    """
    metas = [table_files.read_meta(part) for part in parts]
    for part, meta in zip(parts, metas, strict=True):
        _check_same(parts[0], metas[0], part, meta)
    if folder.exists():
        raise InputError(f"The folder {folder} exists: choose another with --out, so that nothing is lost.")
    check_writable(folder)
    whole, folder = folder, folder.with_name(f".{folder.name}.merging")  # it gets its name when it is whole
    shutil.rmtree(folder, ignore_errors=True)
    _checked_arrays(parts[0], metas[0])
    shutil.copytree(parts[0], folder, ignore=shutil.ignore_patterns(ROWS))
    machines = [machine for meta in metas for machine in meta["machines"]]
    meta = {**_described(metas[0]), "machines": list({str(one): one for one in machines}.values())}
    table_files.write_meta(folder, meta)
    arrays = table_files.open_arrays(folder, meta, writable=True)
    for part, of_part in zip(parts[1:], metas[1:], strict=True):
        theirs = _checked_arrays(part, of_part)
        new = table_files.is_measured(theirs.correct) & ~table_files.is_measured(arrays.correct)
        arrays.correct[new], arrays.seconds[new] = theirs.correct[new], theirs.seconds[new]
    sentence = _finish_if_whole(folder, meta, arrays)
    folder.rename(whole)
    say(f"{whole} {sentence}")


def _checked_arrays(part: Path, meta: Mapping[str, Any]) -> Arrays:
    """The arrays of a part.

    Raises:
        InputError: If it is damaged.
    """
    if "checksum" in meta:
        return table_files.read(part)[1]
    arrays = table_files.open_arrays(part, meta)
    copied = Arrays(*map(np.array, arrays))
    if forget_damaged(copied, np.array(open_receipts(part, arrays))):
        raise InputError(f"{part} is damaged: the command that began it measures anew what is.")
    return arrays


def _check(settings: TableSettings) -> None:
    levels = settings.levels
    if len(levels) < 2 or list(levels) != sorted(set(levels)) or not LOWEST <= levels[0] <= levels[-1] <= HIGHEST:
        raise InputError(f"The levels are {levels}: expected two or more rising percentages in [10, 90].")
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0:
        raise InputError(f"The seeds are {settings.seeds}: expected one or more, each once, 0 or more.")
    if settings.workers < 1:
        raise InputError(f"--workers is {settings.workers}: expected 1 or more.")
    parse_criterion(settings.criterion)
    settings.check()


def _check_folder(folder: Path, settings: TableSettings) -> None:
    """Refuse a folder in which the table cannot be made, as far as can be told before anything is loaded."""
    check_writable(folder)
    if (folder / table_files.META).exists():
        meta = table_files.read_meta(folder)
        asked = {**meta, **{name: list(getattr(settings, name)) for name in ("levels", "seeds")}}
        _check_same(folder, meta, Path("what was asked for"), {**asked, "criterion": settings.criterion})
    elif begun := {path.name for path in contents(folder)}:
        ours = {NETWORK, ROWS, *(f"{name}.npy" for name in Arrays._fields)}
        if NETWORK not in begun or begun - ours:
            raise _something_else(folder)


def _something_else(folder: Path) -> InputError:
    return InputError(f"The folder {folder} holds something else: choose another with --out.")


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"--part is {text!r}: expected for example 1/2, the first of two.")
    return int(part), int(parts)


def _task(settings: TableSettings) -> Task:
    task = settings.load("cpu")
    if not task.metric.is_accuracy:
        raise InputError(
            f"The metric of the task {task.name!r} is {task.metric.name!r}, and a table counts images that are "
            "right: expected a task whose metric is accuracy."
        )
    bounded = [agent for agent, one in task.control.agents.items() if one[1:] != (LOWEST, HIGHEST)]
    if bounded:
        raise InputError(
            f"--layers bounds {bounded[0]}, but all agents of a table have the same levels: expected layers that "
            "are left alone or of one ratio; --levels says the levels. Who looks the table up can be bounded "
            "(dsfp_env.TableEvaluator(table, layers=...))."
        )
    wanted = settings.validation_images, settings.test_images
    if wanted == (None, None):
        return task
    validation, test = (
        _some(split, count) for split, count in zip((task.validation, task.test), wanted, strict=True)
    )
    task = replace(task, validation=validation, test=test)
    return task.with_layers(**settings.controls()) if settings.controls() else task


def _some(split: LabelledImages, count: int | None) -> LabelledImages:
    """So many images of a split, drawn at random but always the same."""
    if count is None:
        return split
    if not 1 <= count <= len(split.labels):
        raise InputError(f"{count} images of a split of {len(split.labels)} are asked for: expected at most all.")
    chosen = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(0))[:count]
    return LabelledImages(split.images[chosen], split.labels[chosen])


def _begin(folder: Path, surveyor: Surveyor, meta: dict[str, Any]) -> dict[str, Any]:
    """The `meta.json` of a table: that of the folder if there is one, which must be of the same table."""
    if (folder / table_files.META).exists():
        before = table_files.read_meta(folder)
        _check_same(folder, before, Path("what was asked for"), meta)
        return before
    task, evaluator = surveyor.task, surveyor.evaluators[0]
    outcomes = [
        evaluator.outcome(evaluator.keep(_plan(meta, row)), 0.0)
        for row in range(len(meta["levels"]) ** len(meta["agents"]))
    ]
    costs = np.array([[getattr(outcome, name) for name in COSTS] for outcome in outcomes])
    kept = np.array([list(outcome.filters_kept.values()) for outcome in outcomes])
    weights = {name: value.contiguous() for name, value in task.network.state_dict().items()}
    network = safetensors.torch.save(weights)
    if (folder / NETWORK).exists() and (folder / NETWORK).read_bytes() != network:
        raise _something_else(folder)  # else it was killed before it was begun
    write_whole(folder / NETWORK, lambda file: file.write(network))
    table_files.create(folder, meta, costs, kept)
    return meta


def _describe(settings: TableSettings, surveyor: Surveyor) -> dict[str, Any]:
    """What a table says about itself before it is finished."""
    task, evaluator = surveyor.task, surveyor.evaluators[0]
    original, features = evaluator.original, evaluator.layer_features
    right = np.rint(np.array(evaluator.measure_splits()) * surveyor.sizes).astype(int).tolist()
    meta: dict[str, Any] = {
        "schema": SCHEMA,
        "task": task.name,
        "task_seed": settings.seed_of_task(),
        "task_hash": hash_of(task.network.state_dict().values()),
        "split_hash": hash_of(tensor for split in (task.train, task.validation, task.test) for tensor in split),
        "splits": dict(zip(SPLITS, surveyor.sizes, strict=True)),
        "agents": {
            agent: {
                "path": path,
                "filters": original.filters_kept[agent],
                "coupled_with": list(task.coupled_agents[agent]),
                "features": features[agent].tolist(),
            }
            for agent, path in task.agents.items()
        },
        "original": {
            "correct": dict(zip(SPLITS, right, strict=True)),
            **{name: getattr(original, name) for name in COSTS},
        },
        "levels": list(settings.levels),
        "criterion": settings.criterion,
        "fidelities": {name: asdict(e.fidelity) for name, e in zip(FIDELITIES, surveyor.evaluators, strict=True)},
        "seeds": list(settings.seeds),
        **_control(task),
    }
    rows = np.linspace(0, len(meta["levels"]) ** len(meta["agents"]) - 1, PROBES + 2)[1:-1].astype(int).tolist()
    probes = {str(row): surveyor.probe(_plan(meta, row)) for row in rows}
    return {**meta, "machines": [{**_machine(task), "probes": probes}]}


def _control(task: Task) -> dict[str, Any]:
    """What is said of agents that are not one for each prunable layer, if some are not."""
    deciders, fixed = task.control.agents, task.control.fixed
    tied = {agent: list(decides.paths) for agent, decides in deciders.items() if len(decides.paths) > 1}
    return {"control": {"fixed": fixed, "tied": tied}} if fixed or tied else {}


def _machine(task: Task) -> dict[str, Any]:
    return {
        "processor": f"{platform.machine()}, {device_name(task.device)}",
        "python": platform.python_version(),
        "dsfp_env": dsfp_env.__version__,
        **{package: version(package) for package in ("torch", "numpy")},
    }


def _described(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What must be equal in parts of one table."""
    return {name: value for name, value in meta.items() if name not in ("machines", "files", "checksum")}


def _check_same(one: Path, meta: Mapping[str, Any], other: Path, other_meta: Mapping[str, Any]) -> None:
    mine, theirs = _described(meta), _described(other_meta)
    if different := [name for name in mine if mine[name] != theirs.get(name)]:
        name = different[0]
        advice = " Give --weights with the network.safetensors of the first." if name == "task_hash" else ""
        raise InputError(
            f"{one} and {other} are not of one table: {name} is {_short(mine[name])} and "
            f"{_short(theirs.get(name))}, expected the same.{advice}"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plan(meta: Mapping[str, Any], row: int) -> dict[str, float]:
    """The joint action of a row, ratios in percent by agent."""
    levels = table_files.levels_of(row, len(meta["agents"]), len(meta["levels"])).tolist()
    return {agent: float(meta["levels"][level]) for agent, level in zip(meta["agents"], levels, strict=True)}


def _finish_if_whole(folder: Path, meta: Mapping[str, Any], arrays: Arrays) -> str:
    """Write everything to the disk; returns how far the table is."""
    total, left = len(arrays.correct), int((~table_files.is_measured(arrays.correct)).sum())
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
    if left:
        return f"is not whole: {left} of {total} joint actions are left"
    if "checksum" not in meta:
        table_files.finish(folder, meta)
    return f"is whole: {total} joint actions"


if __name__ == "__main__":
    sys.exit(main())
