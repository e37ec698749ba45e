"""The runs of learners that are added to a survey: made here or by workers, each kept in a file."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import dsfp_env
from agents.contests import held_contest
from agents.leaderboard.forms import Form, parse_form
from agents.registry import expanded, say_left_out
from agents.reporting.run_folder import RUNS, as_file_name, write_json
from agents.reporting.seeds import parse_seeds
from agents.survey.settings import DESCRIPTION, LearnersSurveySettings
from agents.trial import check_learners
from dsfp_env.common import command_line
from dsfp_env.common.devices import threads_set
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import named
from dsfp_env.common.json_files import read_file
from dsfp_env.common.progress import Progress
from dsfp_env.common.saying import remark, say
from dsfp_env.common.schemas import Name, Natural, Positive, Share, Strict
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.surveys import files
from dsfp_env.surveys.opening import check_folder, check_surveyed, note_machine, opened, surveyed_task, surveyor_of
from dsfp_env.surveys.surveyor import Surveyor


class LiveRun(Strict):
    """The file that a run leaves; lists are in the order of what was tried."""

    agent: Name
    reward: Name
    seed: Natural
    evaluations: list[Positive]  # spent, when each was known
    scores: list[float]
    accuracies: list[Share]


class Job(NamedTuple):
    """A run: one learner with one reward and one seed."""

    agent: str
    form: Form
    seed: int
    evaluations: int


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(LearnersSurveySettings, survey_learners, DESCRIPTION)


def survey_learners(settings: LearnersSurveySettings) -> None:
    """Make the runs that are left, and add what they try to the survey.

    Raises:
        InputError: If a setting cannot be used, or the folder is of another survey.
    """
    folder = named(settings.out)
    jobs = check(settings, folder)
    surveyor = surveyor_of(settings, surveyed_task(settings))
    with opened(folder, settings, surveyor):
        known = {files.key_of(row) for row in files.read_rows(folder, len(surveyor.task.agents))}
        left = {job: job for job in jobs if not piece(folder, job).exists()}
        progress, refused = Progress("runs of learners", len(left)), set[tuple[str, str]]()
        heard = partial(note_machine, folder, surveyor.task)
        with closing(progress):
            for job, made in as_done(partial(_make, surveyor), left, settings.place(), heard):
                if isinstance(made, str):
                    if (job.agent, made) not in refused:
                        remark(f"{job.agent}: {made}")
                    refused.add((job.agent, made))
                else:
                    _keep(folder, job, *made, known)
                progress.advance()
        say(f"{folder} has {len(known)} rows, {len(read_runs(folder))} runs of learners")


def check(settings: LearnersSurveySettings, folder: Path) -> list[Job]:
    """Refuse what cannot be used before anything is loaded or written.

    Returns:
        All runs that are asked for.

    Raises:
        InputError: If a setting cannot be used.
    """
    if settings.evaluations < 1:
        raise InputError(f"--evaluations is {settings.evaluations}: expected 1 or more.")
    contestants, forms = expanded(settings.agents), [parse_form(text) for text in dict.fromkeys(settings.rewards)]
    say_left_out(settings.agents)
    check_learners(contestants, settings.evaluations)
    check_surveyed(settings)
    check_folder(folder)
    seeds = parse_seeds(settings.seeds)
    return [
        Job(agent, form, seed, settings.evaluations) for seed, form, agent in product(seeds, forms, contestants)
    ]


def _make(surveyor: Surveyor, job: Job) -> tuple[list[dict[str, Any]], dict[str, Any]] | str:
    """The rows of a run, and what its file says; or why it cannot be made."""
    surveyor.forget()
    surveyor.source = f"{job.agent}, {job.form.text}, seed {job.seed}"
    env_of = partial(
        dsfp_env.parallel_env, evaluator=surveyor, reward=job.form.reward, macs_budget=job.form.macs_budget
    )
    try:
        with threads_set(1):
            history = held_contest(job.agent, env_of, job.evaluations, job.seed).history
    except InputError as error:
        return str(error)
    return list(surveyor.rows), {
        "agent": job.agent,
        "reward": job.form.text,
        "seed": job.seed,
        "evaluations": [one.number for one in history],
        "scores": [one.score for one in history],
        "accuracies": [next(iter(one.infos.values()))["accuracy"] for one in history],
    }


def _keep(
    folder: Path, job: Job, rows: list[dict[str, Any]], run: dict[str, Any], known: set[tuple[Any, ...]]
) -> None:
    """Add the rows of a run that nobody has measured, and then its file."""
    for row in rows:
        if files.key_of(row) not in known:
            files.append_row(folder, row)
            known.add(files.key_of(row))
    write_json(piece(folder, job), run)


def piece(folder: Path, job: Job) -> Path:
    """The file of one run."""
    name = f"{as_file_name(job.agent)}-{as_file_name(job.form.text)}-{job.evaluations}-seed{job.seed}.json"
    return folder / RUNS / name


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """All runs of a survey.

    Raises:
        InputError: If the file of one is not what a run leaves.
    """
    paths = sorted((folder / RUNS).glob("*.json"))
    return [read_file(path, LiveRun, f"remove {path}, and the run is made anew") for path in paths]
