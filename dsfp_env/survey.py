"""Measure a sample of the joint actions of a task that has too many for a table.

    python -m dsfp_env.survey --task cifar10-resnet20 --download --kd-batches 5 --out surveys/resnet20

Which joint actions those are is said in `surveys.designs`; every one is measured by the live `Evaluator`, on the
validation and on the test split. Stopped or killed, the same command goes on where it was. Several machines can
make a part each, ``--part 1/2`` and ``--part 2/2``, of one trained network (``--weights`` of the first one's
folder, ``network.safetensors``); their folders are then merged:

    python -m dsfp_env.survey --merge surveys/first surveys/second --out surveys/whole

What learners try, `python -m agents.survey` adds. A surrogate is made of it by `python -m dsfp_env.fit_surrogate`.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from dsfp_env.common import command_line
from dsfp_env.surveys.settings import SurveyedOptions, SurveySettings

if __name__ == "__main__":  # help, and an option that is wrong, before torch is imported, which takes seconds
    command_line.answer_early(SurveySettings, __doc__)

import numpy as np
import safetensors.torch
import torch

from dsfp_env.channels.cost_tables import CostTables, cost_tables
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.folders import check_writable, contents, held, named, remove_parts
from dsfp_env.common.parts import part_of
from dsfp_env.common.progress import Progress
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.saying import say
from dsfp_env.common.versions import check_versions
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.surveys import files
from dsfp_env.surveys.designs import Asked, design
from dsfp_env.surveys.surveyor import Surveyor
from dsfp_env.tables.described import described, machine, versions
from dsfp_env.tables.same_task import check_same
from dsfp_env.tasks.task import Task

_OURS = {files.ROWS, files.COSTS, files.NETWORK}  # what a folder holds before `meta.json`


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(SurveySettings, survey, __doc__)


def survey(settings: SurveySettings) -> None:
    """Measure what is left, or merge.

    Raises:
        InputError: If a setting cannot be used, or the folder is of another survey.
    """
    folder = named(settings.out)
    if settings.merge:
        merge([named(part, "--merge") for part in settings.merge], folder)
        return
    part, parts = check(settings, folder)
    task = surveyed_task(settings)
    surveyor = surveyor_of(settings, task)
    with opened(folder, settings, surveyor) as costs:
        asked = _asked(settings, task, costs)
        known = {files.key_of(row) for row in files.read_rows(folder, len(task.agents))}
        mine = {(*one.ratios, one.seed): one for one in islice(asked, part - 1, None, parts)}
        left = [one for key, one in mine.items() if key not in known]
        _measure(folder, settings, surveyor, left)


def _measure(folder: Path, settings: SurveySettings, surveyor: Surveyor, left: Sequence[Asked]) -> None:
    """Measure joint actions, and add each to the folder."""
    progress = Progress(f"joint actions of {settings.task}", len(left))
    jobs, work = dict(enumerate(left)), partial(_row_of, surveyor)
    heard = partial(note_machine, folder, surveyor.task)
    with closing(progress):
        for _, row in as_done(work, jobs, settings.place(), heard):
            files.append_row(folder, row)
            progress.advance()
    say(f"{folder} has {len(files.read_rows(folder, len(surveyor.task.agents)))} rows")


def _row_of(surveyor: Surveyor, asked: Asked) -> dict[str, Any]:
    plan = dict(zip(surveyor.task.agents, asked.ratios, strict=True))
    return surveyor.row(plan, asked.seed, asked.source)


def _asked(settings: SurveySettings, task: Task, costs: CostTables) -> list[Asked]:
    """What the survey is of."""
    places = {path: place for place, path in enumerate(task.agents.values())}
    sets = [[places[path] for path in paths] for paths in task.graph.sets]
    whole = task.graph.costs().macs

    def relative_macs(ratios: np.ndarray) -> float:
        return float(costs.costs(costs.classes_lost(ratios[None] / 100)).macs[0] / whole)

    return list(design(sets, len(places), relative_macs, settings.plans, settings.seeds))


def merge(parts: Sequence[Path], folder: Path) -> None:
    """Put surveys of one task together; what several have measured is taken from the first.

    Raises:
        InputError: If they are not of one task, or the folder is there already.
    """
    metas, rows = files.read_together(parts)
    if contents(folder):
        raise InputError(f"The folder {folder} exists: choose another with --out, so that nothing is lost.")
    check_writable(folder)
    unfinished = folder.with_name(f".{folder.name}.merging")  # it gets its name when it is whole
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for row in rows:
        files.append_row(unfinished, row)
    for name in (files.COSTS, files.NETWORK):
        shutil.copy(parts[0] / name, unfinished / name)
    machines = {str(one): one for meta in metas for one in meta["machines"]}
    files.write_meta(unfinished, {**metas[0], "machines": list(machines.values())})
    unfinished.rename(folder)
    say(f"{folder} has {len(rows)} rows")


def check(settings: SurveySettings, folder: Path) -> tuple[int, int]:
    """Refuse what cannot be used before anything is loaded or written.

    Returns:
        The part that is asked for, and of how many.

    Raises:
        InputError: If a setting cannot be used.
    """
    if settings.plans < 1:
        raise InputError(f"--plans is {settings.plans}: expected 1 or more.")
    check_surveyed(settings)
    if not settings.seeds or len(set(settings.seeds)) < len(settings.seeds):
        raise InputError(f"The seeds are {settings.seeds}: expected one or more, each once.")
    for seed in settings.seeds:
        check_seed(seed, "One of the seeds")
    check_folder(folder)
    return part_of(settings.part)


def check_surveyed(settings: SurveyedOptions) -> None:
    """Refuse what cannot be surveyed, as far as that can be told before it is loaded.

    Raises:
        InputError: If a setting cannot be used.
    """
    settings.check_splits()
    settings.place().check(choose_device(settings.device))
    settings.check_evaluation()
    settings.check()
    if said := settings.controls():
        raise InputError(
            f"--{min(said).replace('_', '-')} was given, and a survey is of all layers, each with its own ratio: "
            "leave it out. Who uses a surrogate can bound layers and tie them."
        )


def check_folder(folder: Path) -> None:
    """Refuse a folder that a survey cannot be in.

    Raises:
        InputError: If it is such.
    """
    check_writable(folder)
    if not folder.exists():
        return
    with held(folder):  # by another process: this is said before anything is loaded
        pass
    if (folder / files.META).exists():
        check_versions(f"The survey in {folder}", files.read_meta(folder)["machines"][0], versions())
    elif {path.name for path in contents(folder)} - _OURS:
        raise InputError(f"The folder {folder} holds something else: choose another with --out.")


def surveyed_task(settings: SurveyedOptions) -> Task:
    """The task of a survey.

    Raises:
        InputError: If it cannot be loaded, or its metric is not accuracy.
    """
    torch.set_num_threads(1)  # as workers do
    task = settings.load(settings.device)
    if not task.metric.is_accuracy:
        raise InputError(
            f"The metric of the task {task.name!r} is {task.metric.name!r}, and a survey counts images that are "
            "right: expected a task whose metric is accuracy."
        )
    return settings.fewer(task)


def surveyor_of(settings: SurveyedOptions, task: Task) -> Surveyor:
    """Who measures, on one thread unless the task says otherwise."""
    usual = settings.fidelity(task.fidelity)
    return Surveyor(task, settings.criterion, replace(usual, threads=usual.threads or 1))


@contextmanager
def opened(folder: Path, settings: SurveyedOptions, surveyor: Surveyor) -> Iterator[CostTables]:
    """The folder of a survey, begun if need be, which nobody else writes meanwhile; gives what plans cost.

    Raises:
        InputError: If it is of another survey.
    """
    task = surveyor.task
    meta = {
        "schema": files.SCHEMA,
        **described(task, surveyor, settings.seed_of_task()),
        "criterion": settings.criterion,
        "fidelity": asdict(surveyor.fidelity),
        "machines": [machine(task)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder):
        remove_parts(folder)
        if (folder / files.META).exists():
            check_same("survey", folder, files.read_meta(folder), "what was asked for", meta)
            note_machine(folder, task)
        else:
            files.write_costs(folder, cost_tables(task.graph, surveyor.scores))
            weights = {name: value.contiguous() for name, value in task.network.state_dict().items()}
            network = safetensors.torch.save(weights)
            write_whole(folder / files.NETWORK, lambda file: file.write(network))
            files.write_meta(folder, meta)  # last: a folder with it has all files
        yield files.read_costs(folder)


def note_machine(folder: Path, task: Task, processor: str | None = None) -> None:
    """Say in the survey who measures, too."""
    meta, one = files.read_meta(folder), machine(task, processor)
    if one not in meta["machines"]:
        files.write_meta(folder, {**meta, "machines": [*meta["machines"], one]})


if __name__ == "__main__":  # by its own name: workers know what is in there under that, and under no other
    from dsfp_env import survey as by_name

    sys.exit(by_name.main())
