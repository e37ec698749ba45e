"""What a survey stands on: a folder that is its own, a task that can be surveyed, and who measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import safetensors.torch
import torch

from dsfp_env.channels.cost_tables import CostTables, cost_tables
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.folders import check_writable, contents, held, remove_parts
from dsfp_env.common.versions import check_versions
from dsfp_env.surveys import files
from dsfp_env.surveys.settings import SurveyedOptions
from dsfp_env.surveys.surveyor import Surveyor
from dsfp_env.tables.described import described, machine, versions
from dsfp_env.tables.same_task import check_same
from dsfp_env.tasks.task import Task

_OURS = {files.ROWS, files.COSTS, files.NETWORK}  # what a folder holds before `meta.json`


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
