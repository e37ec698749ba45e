"""A study: its pieces are done in turn or by workers, and what is there is told as a table."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from agents.reporting.run_folder import missing, withdraw
from agents.reproduce import estimate
from agents.reproduce.differences import differences_of
from agents.reproduce.figures import write_figures
from agents.reproduce.pieces import Study
from agents.reproduce.results import Results, read_results, table_of
from agents.reproduce.settings import DESCRIPTION, QUICK, StudySettings
from agents.reproduce.targets import SEARCH, listed
from dsfp_env.common import command_line
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import check_writable, named, shared
from dsfp_env.common.saying import say
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.workers import available_cores
from dsfp_env.tasks.task import Task


def main() -> int:
    """Run from the command line; returns the exit status."""
    options = (word.partition("=")[0] for word in sys.argv[1:] if word.startswith("--"))
    words = {option.removeprefix("--").replace("-", "_") for option in options}
    said = words & QUICK.keys()
    return command_line.run(StudySettings, partial(reproduce, said=said), DESCRIPTION)


def reproduce(settings: StudySettings, said: Collection[str] = ()) -> None:
    """Work on the pieces that are left, printing what is left and the table.

    Args:
        settings: What is asked for.
        said: As for `StudySettings.settled`.

    Raises:
        InputError: If a setting cannot be used, or the folder is of other settings. If nothing was done before, no
            trace is left.
    """
    if settings.results is not None:
        if settings.known:
            raise InputError(
                "--from makes the table of a results.json and nothing else, --known goes on from one: expected "
                "one of them."
            )
        _remake(Path(settings.results), settings)
        return
    study = Study(settings.settled(said))
    study.check()
    if settings.estimate:
        _left(study)
        return
    made = missing(study.folder)
    study.folder.mkdir(parents=True, exist_ok=True)
    with shared(study.folder, study.files.begin) as alone:
        try:
            study.files.check_settings()  # another process may have been faster
            _work(study)
        except InputError:
            if alone():
                withdraw(study.folder, made)
            raise


def _remake(file: Path, settings: StudySettings) -> None:
    """Make the table and the figures of results that are there."""
    results, folder = read_results(file), file.parent if settings.out is None else named(settings.out)
    if settings.figures:
        check_writable(folder)
    _tell(results)
    if settings.figures:
        _draw(results, folder)


def _tell(results: Results) -> None:
    """Print the tables."""
    say(table_of(results))
    if differences := differences_of(results):
        say(f"\n{differences}")


def _draw(results: Results, folder: Path) -> None:
    say(f"figures in {folder}: {', '.join(write_figures(results, folder)) or 'none yet'}")


def _left(study: Study) -> list[str]:
    """Take over what is known; the pieces that are left of those to be worked on, told with how long they take."""
    settings = study.settings
    torch.set_num_threads(settings.threads)
    if taken := study.take_over():
        say(f"known: {listed(taken)}")
        if not settings.estimate:
            study.write_results()
    left = [name for name in study.pieces if name not in taken and not study.files.of(name).exists()]
    chosen = [name for name in left if not settings.only or name.startswith(settings.only)]
    done = f"{len(study.pieces) - len(left)} of {len(study.pieces)} pieces are done"
    say(f"{done}; now: {listed(chosen) or 'nothing'}")
    if chosen:
        say(estimate.told(study.estimate(chosen), _at_once(settings, len(chosen))))
    return chosen


def _work(study: Study) -> None:
    """Work on the pieces that are left, printing what is left and the table."""
    settings, chosen = study.settings, _left(study)
    for name in study.pieces:
        if study.files.of(name).exists():  # of a process that was killed just before it removed it
            study.files.remove_trainings(name)
    work, groups = Pieces(settings, study), grouped(chosen)
    for group in [group for group in groups if group[0] in study.first]:  # what others stand on
        groups.remove(group)
        work.do(group)
    if groups and settings.executor != "serial":
        work.do(tuple(name for name in study.first if not study.files.of(name).exists()))
    for _ in as_done(work.do, {group: group for group in groups}, settings.place()):
        study.write_results()  # once more: of two workers the slower may have seen less
    if settings.deployed is not None:
        study.measure_latencies(settings.deployed)
    results = study.write_results()
    say("")
    _tell(results)
    if settings.figures:
        _draw(results, study.folder)
    if left := [name for name in study.pieces if not study.files.of(name).exists()]:
        say(f"\nleft: {listed(left)}")


def _at_once(settings: StudySettings, pieces: int) -> int:
    """How many pieces are worked on at a time, as far as can be told; there is no telling of a cluster."""
    if settings.executor != "processes":
        return 1
    workers = settings.workers or available_cores()
    if choose_device(settings.device).type == "cpu":
        workers = min(workers, available_cores())
    return min(workers, pieces)


def grouped(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Pieces, those together that are worked on one after another: a row with the search that finds its ratios."""
    groups: dict[str, tuple[str, ...]] = {}
    for name in names:
        row = name.removeprefix(SEARCH)
        groups[row] = (*groups.get(row, ()), name)
    return list(groups.values())


class Pieces:
    """Works on pieces of a study, here or elsewhere.

    Args:
        settings: Of the study.
        study: In this process.
    """

    def __init__(self, settings: StudySettings, study: Study) -> None:
        self._settings = replace(settings, out=str(study.folder.resolve()))
        self._study: Study | None = study
        self._task: Task | None = None

    def __getstate__(self) -> dict[str, Any]:
        """On this machine others have the task from here: they need not read the data, and share its memory."""
        here = self._study is not None and self._settings.executor == "processes"
        return {**vars(self), "_study": None, "_task": self._study.task if self._study and here else None}

    def do(self, names: Sequence[str]) -> None:
        """Work on pieces, one after another.

        Raises:
            InputError: If their folder cannot be seen from here.
        """
        if self._study is None:
            torch.set_num_threads(self._settings.threads)
            self._study = Study(self._settings, self._task)
            if not (self._study.folder / "settings.json").exists():
                raise InputError(
                    f"The folder {self._study.folder} is not there on {platform.node()}: pieces of a study leave "
                    "files, so expected one with --out that all nodes see."
                )
        for name in names:
            say(f"\n{name}")
            start = time.monotonic()
            self._study.pieces[name]()
            self._study.write_results()
            say(f"{name}: done in {time.monotonic() - start:.0f} s")
