"""The runs of a leaderboard: made here or by workers, kept in files, then judged."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

import agents
import dsfp_env
from agents.contests import held_contest
from agents.leaderboard.boards import Board, Run, SurrogateBoard, TableBoard
from agents.leaderboard.forms import Form, parse_form
from agents.leaderboard.regret import judged
from agents.leaderboard.report import draw, tables
from agents.leaderboard.settings import DESCRIPTION, LeaderboardSettings
from agents.leaderboard.settings import FORMS as FORMS
from agents.registry import choose_agent, contestant, expanded, say_left_out
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
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.options import WHERE
from dsfp_env.evaluation.interface import AnyEvaluator

BOARD = "leaderboard.json"
CHUNK = 25  # seeds that a process takes at a time


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
    board, forms = check(settings)
    folder = named(settings.out)
    same = {board.kind: board.task, "checksum": board.checksum, "evaluations": settings.evaluations}
    with claimed(folder, "runs", same, asdict(settings)):
        _fill(settings, board, forms, folder, start)


def _fill(settings: LeaderboardSettings, board: Board, forms: Sequence[Form], folder: Path, start: float) -> None:
    """Make the runs that are left, then print and write the tables and the picture."""
    contestants = expanded(settings.agents)
    jobs = _left(settings, board, forms, folder)
    if jobs:
        check_claimed_versions(folder, "the leaderboard")
    _run(settings, board, jobs, folder)
    runs = {
        (form.text, agent): found
        for form in forms
        for agent in contestants
        if (found := _known(folder, board, form, agent, _seeds_of(agent, settings)))
    }
    if not runs:
        raise InputError("No run could be made, for the reasons above: expected at least one.")
    results = {
        "board": {"kind": board.kind, "task": board.task, "checksum": board.checksum},
        "settings": {
            name: value
            for name, value in asdict(settings).items()
            if name not in ("table", "surrogate", "out", *WHERE)
        },
        "versions": claimed_versions(folder),
        "forms": [judged(board, form, runs, settings.evaluations) for form in forms],
        "runs": sum(map(len, runs.values())),
        "live_seconds": board.live_seconds(runs.values()),
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


def check(settings: LeaderboardSettings) -> tuple[Board, list[Form]]:
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
    say_left_out(settings.agents)
    check_learners(expanded(settings.agents), settings.evaluations)
    folder = named(settings.out)
    if (folder / SETTINGS).exists():
        check_writable(folder)
    else:
        check_free(folder)
    forms = [parse_form(text) for text in dict.fromkeys(settings.rewards)]
    board = _board(settings)
    for form in forms:
        board.check(form)
    return board, forms


def _board(settings: LeaderboardSettings) -> Board:
    if settings.surrogate is None:
        return TableBoard(dsfp_env.load_table(settings.table))
    if settings.table != LeaderboardSettings.table:
        raise InputError(
            f"--table is {settings.table!r} and --surrogate is {settings.surrogate!r}: expected one of them."
        )
    return SurrogateBoard(dsfp_env.load_surrogate(settings.surrogate))


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


def _left(settings: LeaderboardSettings, board: Board, forms: Iterable[Form], folder: Path) -> list[Job]:
    """The runs that no file has, the slow ones first and one by one, so that all processes end together."""
    jobs = []
    for one in expanded(settings.agents):
        size = 1 if _is_slow(one) else CHUNK
        for form in forms:
            known = runs_in(piece(folder, form, one), board)
            missing = [seed for seed in _seeds_of(one, settings) if seed not in known]
            for first in range(0, len(missing), size):
                jobs.append(Job(one, form, tuple(missing[first : first + size])))
    return sorted(jobs, key=lambda job: not _is_slow(job.agent))


def _run(settings: LeaderboardSettings, board: Board, jobs: Sequence[Job], folder: Path) -> None:
    """Make runs, and put each into its file; say who cannot be run here, and why."""
    progress, refused = Progress("runs", sum(len(job.seeds) for job in jobs)), set[tuple[str, str]]()
    work = partial(make_runs, board, evaluations=settings.evaluations)
    for job, made in as_done(work, {job: job for job in jobs}, settings.place()):
        if isinstance(made, str):
            if (job.agent, made) not in refused:
                remark(f"{job.agent}: {made}")
            refused.add((job.agent, made))
        else:
            path = piece(folder, job.form, job.agent)
            _write(path, runs_in(path, board) | {run["seed"]: run for run in made})
        for _ in job.seeds:
            progress.advance()
    progress.close()


def make_runs(board: Board, job: Job, evaluations: int) -> list[Run] | str:
    """The runs of a job, or why its learner cannot be run here."""
    try:
        with threads_set(1):
            return [make_run(board, job.agent, job.form, seed, evaluations) for seed in job.seeds]
    except InputError as error:
        return str(error)


@cache
def _evaluator(board: Any) -> AnyEvaluator:
    """One for all learners of a process."""
    evaluator: AnyEvaluator = board.evaluator()
    return evaluator


@cache
def _env(board: Any, form: Form, actions: str, credit: str) -> dsfp_env.LayerPruningEnv:
    """One for all runs of a process that are alike: what its masks know of costs is worked out once."""
    return dsfp_env.parallel_env(
        evaluator=_evaluator(board),
        actions=actions,
        reward=form.reward,
        macs_budget=form.macs_budget,
        credit=credit,
    )


def make_run(board: Board, text: str, form: Form, seed: int, evaluations: int) -> Run:
    """Let one learner learn; returns what the board keeps of it."""
    env, team, history = held_contest(text, partial(_env, cast(Any, board), form), evaluations, seed)
    return board.kept(form, seed, history, agents.play(env, team).ratios)


def piece(folder: Path, form: Form, contestant: str) -> Path:
    """The file of the runs of one learner with one reward, a line for each seed."""
    return folder / RUNS / f"{as_file_name(f'{form.text}--{contestant}')}.jsonl"


def runs_in(path: Path, board: Board) -> dict[int, Run]:
    """Runs by seed; none, if there is no file.

    Raises:
        InputError: If it is no file of runs on this board.
    """
    otherwise, runs = f"remove {path}, and its runs are made anew", {}
    for number, line in enumerate(lines_of(path, otherwise), start=1):
        run = read_line(line, number, path, board.line, otherwise)
        rising = run["evaluations"] == sorted(run["evaluations"])
        if not rising or not board.fits(run) or run["seed"] in runs:
            raise InputError(f"Line {number} of {path} is no run on this {board.kind}: {otherwise}.")
        runs[run["seed"]] = run
    return runs


def _known(folder: Path, board: Board, form: Form, contestant: str, seeds: Iterable[int]) -> list[Run]:
    known = runs_in(piece(folder, form, contestant), board)
    return [known[seed] for seed in seeds if seed in known]


def _write(path: Path, runs: Mapping[int, Run]) -> None:
    text = "".join(f"{json.dumps(runs[seed])}\n" for seed in sorted(runs))
    write_whole(path, lambda file: file.write(text.encode()))
