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

import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from dsfp_env.common import command_line
from dsfp_env.surveys.settings import SurveySettings

if __name__ == "__main__":  # help, and an option that is wrong, before torch is imported, which takes seconds
    command_line.answer_early(SurveySettings, __doc__)

import numpy as np

from dsfp_env.channels.cost_tables import CostTables
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import named
from dsfp_env.common.parts import part_of
from dsfp_env.common.progress import Progress
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.saying import say
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.surveys import files
from dsfp_env.surveys.designs import Asked, design
from dsfp_env.surveys.merging import merge
from dsfp_env.surveys.opening import check_folder, check_surveyed, note_machine, opened, surveyed_task, surveyor_of
from dsfp_env.surveys.surveyor import Surveyor
from dsfp_env.tasks.task import Task


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


if __name__ == "__main__":  # by its own name: workers know what is in there under that, and under no other
    from dsfp_env import survey as by_name

    sys.exit(by_name.main())
