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

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dsfp_env.common import command_line
from dsfp_env.tables.settings import TableSettings

if __name__ == "__main__":  # help, and an option that is wrong, before torch is imported, which takes seconds
    command_line.answer_early(TableSettings, __doc__)

import numpy as np
import safetensors.torch
import torch

from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.folders import check_writable, contents, held, named, remove_parts
from dsfp_env.common.hashing import hash_of
from dsfp_env.common.parts import part_of
from dsfp_env.common.progress import Progress
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.saying import say
from dsfp_env.common.versions import check_versions
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.plans import HIGHEST, LOWEST
from dsfp_env.tables import files as table_files
from dsfp_env.tables.described import described, machine, versions
from dsfp_env.tables.files import COSTS, FIDELITIES, NETWORK, SCHEMA, SPLITS, Arrays
from dsfp_env.tables.meta import MOST_ROWS
from dsfp_env.tables.receipts import ROWS, forget_damaged, open_receipts, receipt
from dsfp_env.tables.same_task import check_same, of_the_task
from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity

PROBES = 3  # joint actions whose networks tell whether a machine computes alike


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
        fidelity: With the short distillation; that of the task unless given.
    """

    def __init__(self, task: Task, criterion: str, seeds: Sequence[int], fidelity: Fidelity | None = None) -> None:
        usual = fidelity or task.fidelity
        distilled = replace(usual, threads=usual.threads or 1)
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
    folder = named(settings.out)
    if settings.merge:
        merge([named(part, "--merge") for part in settings.merge], folder)
        return
    part, parts = check(settings)
    torch.set_num_threads(1)
    task = _task(settings)
    surveyor = Surveyor(task, settings.criterion, settings.seeds, settings.fidelity(task.fidelity))
    if (rows := len(settings.levels) ** len(surveyor.task.agents)) > MOST_ROWS:
        raise InputError(
            f"{settings.task} has {len(surveyor.task.agents)} agents, which with {len(settings.levels)} levels "
            "have "
            f"{rows} joint actions: expected at most {MOST_ROWS}."
        )
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
    if len(left):
        _check_versions(folder, meta)
    if len(left) and (described["machines"][0] not in meta["machines"] or "checksum" in meta):
        machines = {str(one): one for one in (*meta["machines"], *described["machines"])}
        meta = {**of_the_task(meta), "machines": list(machines.values())}
        table_files.write_meta(folder, meta)
    progress = Progress(f"joint actions of {settings.task}", len(left))

    def on_other_processor(name: str) -> None:
        """Say in the table that one of another kind has measured, too."""
        nonlocal meta
        one = machine(surveyor.task, name)
        if one not in meta["machines"]:
            meta = {**meta, "machines": [*meta["machines"], one]}
            table_files.write_meta(folder, meta)

    rows = {int(row): int(row) for row in left}
    work = partial(_measure_row, surveyor, meta)
    with closing(progress):
        for row, measured in as_done(work, rows, settings.place(), on_other_processor):
            arrays.seconds[row], arrays.correct[row] = measured.seconds, measured.correct
            receipts[row] = receipt(arrays, row)
            progress.advance()
    say(f"{folder} {_finish_if_whole(folder, meta, arrays)}")


def _measure_row(surveyor: Surveyor, meta: Mapping[str, Any], row: int) -> Measured:
    return surveyor.measure(_plan(meta, row))


def merge(parts: Sequence[Path], folder: Path) -> None:
    """Put parts of one table together; what several have measured is taken from the first.

    If that is done already, it is only said.

    Raises:
        InputError: If they are not of one table, or the folder is there already and is of something else.
    """
    metas = [table_files.read_meta(part) for part in parts]
    for part, meta in zip(parts, metas, strict=True):
        check_same("table", parts[0], metas[0], part, meta)
    if folder.exists():
        say(f"{folder} {_merged_before(parts, metas, folder)}")
        return
    check_writable(folder)
    unfinished = folder.with_name(f".{folder.name}.merging")  # it gets its name when it is whole
    unfinished.mkdir(parents=True, exist_ok=True)
    with held(unfinished):
        sentence = _merge(parts, metas, unfinished)
        unfinished.rename(folder)
    say(f"{folder} {sentence}")


def _merge(parts: Sequence[Path], metas: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """Put parts together in a folder of a merge that was stopped, or a new one; returns how far the table is."""
    for left_over in folder.iterdir():
        left_over.unlink()
    _checked_arrays(parts[0], metas[0])
    shutil.copytree(parts[0], folder, ignore=shutil.ignore_patterns(ROWS, "*.part"), dirs_exist_ok=True)
    machines = [machine for meta in metas for machine in meta["machines"]]
    meta = {**of_the_task(metas[0]), "machines": list({str(one): one for one in machines}.values())}
    table_files.write_meta(folder, meta)
    arrays = table_files.open_arrays(folder, meta, writable=True)
    for part, of_part in zip(parts[1:], metas[1:], strict=True):
        theirs = _checked_arrays(part, of_part)
        new = table_files.is_measured(theirs.correct) & ~table_files.is_measured(arrays.correct)
        arrays.correct[new], arrays.seconds[new] = theirs.correct[new], theirs.seconds[new]
    return _finish_if_whole(folder, meta, arrays)


def _merged_before(parts: Sequence[Path], metas: Sequence[Mapping[str, Any]], folder: Path) -> str:
    """How far a table is that holds what the parts have measured.

    Raises:
        InputError: If the folder is no such table.
    """
    other = InputError(f"The folder {folder} exists: choose another with --out, so that nothing is lost.")
    if not (folder / table_files.META).exists():
        raise other
    meta = table_files.read_meta(folder)
    if of_the_task(meta) != of_the_task(metas[0]):
        raise other
    there = _checked_arrays(folder, meta)
    for part, of_part in zip(parts, metas, strict=True):
        theirs = _checked_arrays(part, of_part)
        known = table_files.is_measured(theirs.correct)
        if (there.correct[known] != theirs.correct[known]).any():
            raise other
    return _how_far(there)


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


def check(settings: TableSettings) -> tuple[int, int]:
    """Refuse what cannot be used before anything is loaded or written.

    Returns:
        The part that is asked for, and of how many.

    Raises:
        InputError: If a setting cannot be used.
    """
    part, levels = part_of(settings.part), settings.levels
    if len(levels) < 2 or list(levels) != sorted(set(levels)) or not LOWEST <= levels[0] <= levels[-1] <= HIGHEST:
        raise InputError(f"The levels are {levels}: expected two or more rising percentages in [10, 90].")
    settings.check_splits()
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds) or min(settings.seeds) < 0:
        raise InputError(f"The seeds are {settings.seeds}: expected one or more, each once, 0 or more.")
    settings.place().check(torch.device("cpu"))
    for seed in settings.seeds:
        check_seed(seed, "One of the seeds")
    settings.check_evaluation()
    if settings.kd_batches == 0:
        raise InputError(
            "--kd-batches is 0: expected 1 or more. A table holds what recalibration alone gives beside it."
        )
    settings.check()
    _check_folder(named(settings.out), settings)
    return part


def _check_folder(folder: Path, settings: TableSettings) -> None:
    """Refuse a folder in which the table cannot be made, as far as can be told before anything is loaded."""
    check_writable(folder)
    if folder.exists():
        with held(folder):  # by another process: this is said before anything is loaded
            pass
    if (folder / table_files.META).exists():
        meta = table_files.read_meta(folder)
        asked = {**meta, **{name: list(getattr(settings, name)) for name in ("levels", "seeds")}}
        check_same("table", folder, meta, "what was asked for", {**asked, "criterion": settings.criterion})
        if "checksum" not in meta:
            _check_versions(folder, meta)
    elif begun := {path.name for path in contents(folder)}:
        ours = {NETWORK, ROWS, *(f"{name}.npy" for name in Arrays._fields)}
        if NETWORK not in begun or begun - ours:
            raise _something_else(folder)


def _something_else(folder: Path) -> InputError:
    return InputError(f"The folder {folder} holds something else: choose another with --out.")


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
    return settings.controlled(settings.fewer(task))


def _begin(folder: Path, surveyor: Surveyor, meta: dict[str, Any]) -> dict[str, Any]:
    """The `meta.json` of a table: that of the folder if there is one, which must be of the same table."""
    if (folder / table_files.META).exists():
        before = table_files.read_meta(folder)
        check_same("table", folder, before, "what was asked for", meta)
        return before
    task, evaluator = surveyor.task, surveyor.evaluators[0]
    number = len(meta["levels"]) ** len(meta["agents"])
    costs, kept = np.zeros((number, len(COSTS)), np.int64), np.zeros((number, len(meta["agents"])), np.uint16)
    for row in range(number):
        outcome = evaluator.outcome(evaluator.keep(_plan(meta, row)), 0.0)
        costs[row] = [getattr(outcome, name) for name in COSTS]
        kept[row] = list(outcome.filters_kept.values())
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
    meta: dict[str, Any] = {
        "schema": SCHEMA,
        **described(task, evaluator, settings.seed_of_task()),
        "levels": list(settings.levels),
        "criterion": settings.criterion,
        "fidelities": {name: asdict(e.fidelity) for name, e in zip(FIDELITIES, surveyor.evaluators, strict=True)},
        "seeds": list(settings.seeds),
    }
    rows = np.linspace(0, len(meta["levels"]) ** len(meta["agents"]) - 1, PROBES + 2)[1:-1].astype(int).tolist()
    probes = {str(row): surveyor.probe(_plan(meta, row)) for row in rows}
    return {**meta, "machines": [{**machine(task), "probes": probes}]}


def _check_versions(folder: Path, meta: Mapping[str, Any]) -> None:
    for first in meta["machines"][:1]:
        check_versions(f"The table in {folder}", first, versions())


def _plan(meta: Mapping[str, Any], row: int) -> dict[str, float]:
    """The joint action of a row, ratios in percent by agent."""
    levels = table_files.levels_of(row, len(meta["agents"]), len(meta["levels"])).tolist()
    return {agent: float(meta["levels"][level]) for agent, level in zip(meta["agents"], levels, strict=True)}


def _finish_if_whole(folder: Path, meta: Mapping[str, Any], arrays: Arrays) -> str:
    """Write everything to the disk; returns how far the table is."""
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
    if table_files.is_measured(arrays.correct).all() and "checksum" not in meta:
        table_files.finish(folder, meta)
    return _how_far(arrays)


def _how_far(arrays: Arrays) -> str:
    """How far a table is, in words."""
    total, left = len(arrays.correct), int((~table_files.is_measured(arrays.correct)).sum())
    return (
        f"is not whole: {left} of {total} joint actions are left" if left else f"is whole: {total} joint actions"
    )


if __name__ == "__main__":  # by its own name: workers know what is in there under that, and under no other
    from dsfp_env import tabulate as by_name

    sys.exit(by_name.main())
