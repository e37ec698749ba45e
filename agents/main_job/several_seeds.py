"""Several seeds of the main command: at once, each in a process of its own, or one after another.

Nothing that comes depends on it. At once, the process of a seed searches, and has its share of the workers for
what can be measured at once. Seeds are run one after another where times are measured, on a GPU, which they would
share, and where a batch has work for more workers than there are seeds.
"""

from __future__ import annotations

import dataclasses
import io
import os
import platform
from collections.abc import Mapping
from contextlib import closing, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from agents.main_job.asked import reward_name, summary_of
from agents.main_job.one_run import train_one
from agents.reporting import run_report
from agents.reporting.html_report import HTML, write_comparison
from agents.reporting.resuming import leave
from agents.reporting.run_folder import (
    SETTINGS,
    SUMMARY,
    RunFolder,
    is_finished,
    write_json,
)
from agents.run_settings import RunSettings
from dsfp_env.common.config_files import write_config
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import remove_parts
from dsfp_env.common.saying import remark, say
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.rewards import needs_time
from dsfp_env.evaluation.workers import available_cores


def train_several(settings: RunSettings, seeds: list[int], folder: Path) -> None:
    """Run seeds, or go on with those that a folder holds; each has a folder in it, and a summary is added.

    Raises:
        InputError: If a setting cannot be used, nothing is written then; or if the folder is of another run.
        KeyboardInterrupt: After Ctrl-C, with a sentence that says what was kept.
    """
    with RunFolder(folder, asdict(settings)) as record:
        runs = {seed: dataclasses.replace(settings, seed=seed, seeds=None) for seed in seeds}
        try:
            told = _run_at_once(settings, runs, folder)
            results = [told.get(seed) or train_one(one, folder_of(folder, seed)) for seed, one in runs.items()]
        except InputError:
            record.withdraw()
            raise
        if not (folder / SUMMARY).exists():
            write_config(folder, asdict(settings))
            write_comparison([folder_of(folder, seed) for seed in seeds], folder / HTML)
            write_json(folder / SUMMARY, {"seeds": seeds, "summary": run_report.summary(results)})
    say(f"\n{run_report.summary_table(results)}\n\nwritten to {folder}")


def folder_of(folder: Path, seed: int) -> Path:
    """Of one seed's run."""
    return folder / f"seed-{seed}"


def crew_for(settings: RunSettings, count: int) -> tuple[Executor, Executor] | None:
    """Who runs so many seeds at once, and who measures for each of them; None if they are not run at once."""
    measures_times = needs_time(reward_name(settings)) or settings.latency_budget is not None
    if count < max(2, settings.batch) or settings.executor == "serial" or measures_times:
        return None
    if settings.executor == "ray":
        return settings.place(), Processes(1)
    workers = settings.workers or available_cores()
    if workers == 1 or choose_device(settings.device).type != "cpu":
        return None
    at_once = min(workers, count)
    return Processes(at_once), Processes(min(8, workers // at_once))


def _run_at_once(
    settings: RunSettings, runs: Mapping[int, RunSettings], folder: Path
) -> dict[int, dict[str, Any]]:
    """Run the seeds that are left, if they are to be run at once; returns the results of those that were."""
    left = {seed: one for seed, one in runs.items() if not is_finished(folder_of(folder, seed))}
    crew = crew_for(settings, len(left))
    if crew is None:
        return {}
    done: dict[int, dict[str, Any]] = {}
    try:
        with closing(as_done(SeedRunner(folder, crew[1]).run, left, crew[0])) as ended:
            for seed, found in ended:
                if isinstance(found, NotSeen):
                    remark(f"{folder} is not seen from {found.node}: seed {seed} is run here.")
                else:
                    done[seed], said = found
                    say(said, end="")
    except BaseException as error:
        _leave({seed: one for seed, one in left.items() if seed not in done}, folder, error)
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt("stopped; the same command goes on from here") from error
        raise
    return done


class NotSeen(NamedTuple):
    """A seed was not run where it was sent."""

    node: str  # from where its folder cannot be seen


class SeedRunner:
    """Runs one seed after another, in a process of its own.

    Args:
        folder: Of all seeds.
        executor: Who measures for a seed.
    """

    def __init__(self, folder: Path, executor: Executor) -> None:
        self._home, self._folder, self._executor = Path.cwd(), folder, executor

    def run(self, settings: RunSettings) -> tuple[dict[str, Any], str] | NotSeen:
        """The result of a seed, and what was said of it."""
        if not (self._home / self._folder / SETTINGS).exists():
            return NotSeen(platform.node())
        os.chdir(self._home)  # settings may name files from there
        torch.set_num_threads(settings.threads)
        with redirect_stdout(io.StringIO()) as said:
            result = train_one(settings, folder_of(self._folder, settings.seed), self._executor)
        return result, said.getvalue()


def _leave(runs: Mapping[int, RunSettings], folder: Path, error: BaseException) -> None:
    """Seeds whose processes were ended: the best so far of each is written, and no trace of what did not begin."""
    for seed, one in runs.items():
        place = folder_of(folder, seed)
        if (place / SETTINGS).exists():
            with suppress(InputError), RunFolder(place, asdict(one)) as record:
                if record.recorded:
                    remark(f"seed {seed}: {leave(record, summary_of(one), one.evaluations).strip()}")
                elif isinstance(error, InputError):
                    record.withdraw()
        if isinstance(error, InputError) and place.is_dir():
            remove_parts(place)  # it may have been ended before it wrote its settings
            with suppress(OSError):  # there is more than that
                place.rmdir()
