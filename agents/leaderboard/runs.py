"""The runs of a leaderboard: made here or by workers, kept in files, then judged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from msgspec import Meta

import agents
import dsfp_env
from agents.leaderboard.regret import Form, Run, judged, live_seconds, parse_form
from agents.leaderboard.report import draw, tables
from agents.leaderboard.settings import DESCRIPTION, LeaderboardSettings
from agents.leaderboard.settings import FORMS as FORMS
from agents.registry import choose_agent, contestant, expanded
from agents.reporting.run_folder import (
    RUNS,
    SETTINGS,
    as_file_name,
    check_claimed_versions,
    check_free,
    claimed,
    claimed_versions,
    read_settings,
    write_json,
)
from agents.reporting.seeds import parse_seeds
from agents.trial import check_learners
from dsfp_env.common import command_line
from dsfp_env.common.devices import threads_set
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.folders import check_writable, is_held, named
from dsfp_env.common.json_files import lines_of, read_line
from dsfp_env.common.progress import Progress
from dsfp_env.common.saying import remark, say
from dsfp_env.common.schemas import Natural, Positive, Strict
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.options import WHERE
from dsfp_env.tables.travelling import TravellingTable

BOARD = "leaderboard.json"
CHUNK = 25  # seeds that a process takes at a time


class Line(Strict):
    """A run in its file; rows are places of joint actions in the table."""

    seed: Natural
    rows: Annotated[list[Natural], Meta(min_length=1)]
    evaluations: Annotated[list[Positive], Meta(min_length=1)]  # spent, when each was known
    greedy: Natural


class Job(NamedTuple):
    """Some runs of one learner."""

    agent: str
    form: Form
    seeds: tuple[int, ...]


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(LeaderboardSettings, leaderboard, DESCRIPTION)


def leaderboard(settings: LeaderboardSettings) -> None:
    """Make the runs that are left, then print and write the tables and the picture.

    Raises:
        InputError: If a setting cannot be used, or the folder is of another table or number of evaluations.
    """
    start = time.monotonic()
    table, forms = check(settings)
    folder = named(settings.out)
    same = {"table": table.task, "checksum": table.meta["checksum"], "evaluations": settings.evaluations}
    with claimed(folder, "runs", same, asdict(settings)):
        _fill(settings, table, forms, folder, start)


def _fill(
    settings: LeaderboardSettings, table: dsfp_env.Table, forms: Sequence[Form], folder: Path, start: float
) -> None:
    """Make the runs that are left, then print and write the tables and the picture."""
    contestants = expanded(settings.agents)
    jobs = _left(settings, table, forms, folder)
    if jobs:
        check_claimed_versions(folder, "the leaderboard")
    _run(settings, table, jobs, folder)
    runs = {
        (form.text, agent): found
        for form in forms
        for agent in contestants
        if (found := _known(folder, table, form, agent, _seeds_of(agent, settings)))
    }
    if not runs:
        raise InputError("No run could be made, for the reasons above: expected at least one.")
    results = {
        "table": {"task": table.task, "checksum": table.meta["checksum"], "seeds": table.seeds},
        "settings": {
            name: value for name, value in asdict(settings).items() if name not in ("table", "out", *WHERE)
        },
        "versions": claimed_versions(folder),
        "forms": [judged(table, form, runs, settings.evaluations) for form in forms],
        "runs": sum(map(len, runs.values())),
        "live_seconds": round(live_seconds(table, runs.values()), 1),
        "this_call": {
            "runs": sum(len(job.seeds) for job in jobs),
            "seconds": round(time.monotonic() - start, 1),
        },
    }
    text = tables(results)
    write_whole(folder / "leaderboard.md", lambda file: file.write(text.encode()))
    draw(folder / "leaderboard.png", results)
    write_json(folder / BOARD, results)  # last: a folder with it is whole
    say(f"{text}\nwritten to {folder}")


def check(settings: LeaderboardSettings) -> tuple[dsfp_env.Table, list[Form]]:
    """Refuse what cannot be used before anything is run or written.

    Raises:
        InputError: If a setting cannot be used.
    """
    for name, least in (("evaluations", 1), ("slow_seeds", 0)):
        if (value := getattr(settings, name)) < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}: expected {least} or more.")
    if min(settings.at, default=1) < 1:
        raise InputError(f"--at is {settings.at}: expected numbers of evaluations, 1 or more.")
    if not settings.rewards:
        raise InputError("--rewards names none: expected one or more, such as accuracy_x_saving.")
    settings.place().check(torch.device("cpu"))
    parse_seeds(settings.seeds)
    check_learners(expanded(settings.agents), settings.evaluations)
    folder = named(settings.out)
    if (folder / SETTINGS).exists():
        check_writable(folder)
    else:
        check_free(folder)
    forms = [parse_form(text) for text in dict.fromkeys(settings.rewards)]
    table = dsfp_env.load_table(settings.table)
    for form in forms:
        table.scores(form.reward, form.macs_budget)
    return table, forms


def goes_on_in(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder holds a leaderboard that was begun with these settings, and is not at its end.

    Nobody is at it, and the versions are those of today.
    """
    if not (folder / SETTINGS).exists() or (folder / BOARD).exists() or is_held(folder):
        return False
    try:
        before = read_settings(folder)["settings"]
        check_claimed_versions(folder, "the leaderboard")
    except InputError:
        return False
    return all(before.get(name) == value for name, value in json.loads(json.dumps(dict(settings))).items())


def _seeds_of(contestant: str, settings: LeaderboardSettings) -> list[int]:
    """The seeds that a learner takes."""
    seeds = parse_seeds(settings.seeds)
    return seeds[: settings.slow_seeds] if _is_slow(contestant) and settings.slow_seeds else seeds


def _is_slow(text: str) -> bool:
    return choose_agent(contestant(text).agent).slow


def _left(settings: LeaderboardSettings, table: dsfp_env.Table, forms: Iterable[Form], folder: Path) -> list[Job]:
    """The runs that no file has, the slow ones first and one by one, so that all processes end together."""
    jobs = []
    for one in expanded(settings.agents):
        size = 1 if _is_slow(one) else CHUNK
        for form in forms:
            known = runs_in(piece(folder, form, one), table)
            missing = [seed for seed in _seeds_of(one, settings) if seed not in known]
            for first in range(0, len(missing), size):
                jobs.append(Job(one, form, tuple(missing[first : first + size])))
    return sorted(jobs, key=lambda job: not _is_slow(job.agent))


def _run(settings: LeaderboardSettings, table: dsfp_env.Table, jobs: Sequence[Job], folder: Path) -> None:
    """Make runs, and put each into its file; say who cannot be run here, and why."""
    progress, refused = Progress("runs", sum(len(job.seeds) for job in jobs)), set[tuple[str, str]]()
    work = partial(make_runs, TravellingTable(table), evaluations=settings.evaluations)
    for job, made in as_done(work, {job: job for job in jobs}, settings.place()):
        if isinstance(made, str):
            if (job.agent, made) not in refused:
                remark(f"{job.agent}: {made}")
            refused.add((job.agent, made))
        else:
            path = piece(folder, job.form, job.agent)
            _write(path, runs_in(path, table) | {run["seed"]: run for run in made})
        for _ in job.seeds:
            progress.advance()
    progress.close()


def make_runs(table: TravellingTable, job: Job, evaluations: int) -> list[Run] | str:
    """The runs of a job, or why its learner cannot be run here."""
    try:
        with threads_set(1):
            return [make_run(_evaluator(table), job.agent, job.form, seed, evaluations) for seed in job.seeds]
    except InputError as error:
        return str(error)


@cache
def _evaluator(table: TravellingTable) -> dsfp_env.TableEvaluator:
    """One for all learners of a process."""
    return dsfp_env.TableEvaluator(table.table)


@cache
def _env(evaluator: dsfp_env.TableEvaluator, form: Form, actions: str, credit: str) -> dsfp_env.LayerPruningEnv:
    """One for all runs of a process that are alike: what its masks know of costs is worked out once."""
    return dsfp_env.parallel_env(
        evaluator=evaluator, actions=actions, reward=form.reward, macs_budget=form.macs_budget, credit=credit
    )


def make_run(evaluator: dsfp_env.TableEvaluator, text: str, form: Form, seed: int, evaluations: int) -> Run:
    """Let one learner learn; returns the rows of the table that it tried, and the one that it plays in the end."""
    name, credit, batch = contestant(text)
    entry, row_of = choose_agent(name), evaluator.table.row_of
    env = _env(evaluator, form, entry.actions, credit)
    team = entry.make(env, seed, evaluations)
    history = agents.train(env, team, evaluations, batch=batch, seed=seed)
    return {
        "seed": seed,
        "rows": [row_of(evaluation.ratios) for evaluation in history],
        "evaluations": [evaluation.number for evaluation in history],
        "greedy": row_of(agents.play(env, team).ratios),
    }


def piece(folder: Path, form: Form, contestant: str) -> Path:
    """The file of the runs of one learner with one reward, a line for each seed."""
    return folder / RUNS / f"{as_file_name(f'{form.text}--{contestant}')}.jsonl"


def runs_in(path: Path, table: dsfp_env.Table) -> dict[int, Run]:
    """Runs by seed; none, if there is no file.

    Raises:
        InputError: If it is no file of runs on this table.
    """
    otherwise, runs = f"remove {path}, and its runs are made anew", {}
    for number, line in enumerate(lines_of(path, otherwise), start=1):
        run = read_line(line, number, path, Line, otherwise)
        rising = run["evaluations"] == sorted(run["evaluations"])
        fits = len(run["rows"]) == len(run["evaluations"]) and max(*run["rows"], run["greedy"]) < len(table)
        if not rising or not fits or run["seed"] in runs:
            raise InputError(f"Line {number} of {path} is no run on this table: {otherwise}.")
        runs[run["seed"]] = run
    return runs


def _known(folder: Path, table: dsfp_env.Table, form: Form, contestant: str, seeds: Iterable[int]) -> list[Run]:
    known = runs_in(piece(folder, form, contestant), table)
    return [known[seed] for seed in seeds if seed in known]


def _write(path: Path, runs: Mapping[int, Run]) -> None:
    text = "".join(f"{json.dumps(runs[seed])}\n" for seed in sorted(runs))
    write_whole(path, lambda file: file.write(text.encode()))
