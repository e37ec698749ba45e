"""The runs of a comparison: made here or by workers, each kept in a file, then compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import agents
import dsfp_env
from agents.compare.report import draw, draw_fronts, table
from agents.compare.settings import DESCRIPTION, ComparisonSettings
from agents.contests import held_contest
from agents.registry import expanded, say_left_out
from agents.reporting.budget_options import budget_of, kept_in, measured_as
from agents.reporting.finals import measure, measuring_seeds
from agents.reporting.fronts import volume_of
from agents.reporting.records import Entry, RelativeMacs
from agents.reporting.run_folder import (
    RUNS,
    as_file_name,
    check_claim,
    check_claimed_versions,
    claimed,
    write_json,
)
from agents.reporting.seeds import parse_seeds
from agents.trial import check_learners
from dsfp_env.common import command_line
from dsfp_env.common.devices import choose_device, threads_set
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.folders import named
from dsfp_env.common.json_files import read_file
from dsfp_env.common.progress import Progress
from dsfp_env.common.saying import remark, say
from dsfp_env.common.schemas import Name, Natural, Positive, Share, Strict
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.options import WHERE
from dsfp_env.evaluation.rewards import reward_function

ALWAYS = ("task", "reward", "macs_budget")  # of a folder, what must be the same; with all else that is unusual
MORE = ("agents", "budgets", "seeds", "data_root", "download", "out", *WHERE)  # what may change between starts


class Run(Strict):
    """The file that a run leaves; lists are in the order of what was tried."""

    agent: Name
    budget: Positive
    seed: Natural
    best: Entry
    greedy: Entry
    hypervolume: Share
    evaluations: list[Positive]  # spent, when each was known
    scores: list[float]
    accuracies: list[Share]
    relative_macs: list[RelativeMacs]


class Job(NamedTuple):
    """A run: one learner with one seed and one budget."""

    agent: str
    seed: int
    budget: int


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(ComparisonSettings, compare, DESCRIPTION)


def compare(settings: ComparisonSettings) -> None:
    """Make the runs that are left, then print and write the tables and the picture.

    Raises:
        InputError: If a setting cannot be used, or the folder is of another task or reward.
    """
    contestants, seeds, folder = check(settings)
    with claimed(folder, "a comparison", same(settings), asdict(settings)):
        _fill(settings, contestants, seeds, folder)


def check(settings: ComparisonSettings) -> tuple[list[str], list[int], Path]:
    """Refuse what cannot be used before anything is loaded or written.

    Returns:
        The learners, the seeds and the folder.

    Raises:
        InputError: If a setting cannot be used.
    """
    if not settings.budgets or min(settings.budgets) < 1:
        raise InputError(f"--budgets are {settings.budgets}: expected one or more, each 1 or more.")
    settings.place().check(choose_device(settings.device))
    contestants, seeds, folder = expanded(settings.agents), parse_seeds(settings.seeds), named(settings.out)
    say_left_out(settings.agents)
    check_learners(contestants, max(settings.budgets))
    reward_function(settings.reward, budget_of(settings))
    settings.check()
    settings.check_evaluation()
    settings.check_widths()
    check_claim(folder, "a comparison", same(settings))
    read_runs(settings, contestants, seeds, folder)
    return contestants, seeds, folder


def same(settings: ComparisonSettings) -> dict[str, Any]:
    """What must be equal for work in a folder to go on."""
    said = {field.name: (getattr(settings, field.name), field.default) for field in fields(settings)}
    return {
        name: value
        for name, (value, usual) in said.items()
        if name in ALWAYS or (name not in MORE and value != usual)
    }


def _fill(settings: ComparisonSettings, contestants: Sequence[str], seeds: Sequence[int], folder: Path) -> None:
    """Make the runs that are left, then print and write the tables and the picture."""
    left = [
        Job(contestant, seed, budget)
        for seed in seeds
        for contestant in contestants
        for budget in settings.budgets
        if not piece(folder, contestant, budget, seed).exists()
    ]
    if left:
        check_claimed_versions(folder, "the comparison")
    _run(settings, left, folder)
    runs = read_runs(settings, contestants, seeds, folder)
    if not runs:
        raise InputError("No run could be made, for the reasons above: expected at least one.")
    text = table(runs)
    write_whole(folder / "comparison.md", lambda file: file.write(text.encode()))
    draw(folder / "comparison.png", runs)
    draw_fronts(folder / "fronts.png", runs)
    say(text)


def read_runs(
    settings: ComparisonSettings, contestants: Sequence[str], seeds: Sequence[int], folder: Path
) -> list[dict[str, Any]]:
    """The runs that are there.

    Raises:
        InputError: If the file of one is not what a run leaves.
    """
    runs = []
    for one, budget, seed in product(contestants, settings.budgets, seeds):
        path = piece(folder, one, budget, seed)
        if path.exists():
            run = read_file(path, Run, f"remove {path}, and the run is made anew")
            lengths = {len(run[name]) for name in ("evaluations", "scores", "accuracies", "relative_macs")}
            if (run["agent"], run["budget"], run["seed"]) != (one, budget, seed) or len(lengths) > 1:
                raise InputError(
                    f"{path} is not of {one} with {budget} evaluations and seed {seed}, or was changed: "
                    "remove it, and the run is made anew."
                )
            runs.append(run)
    return runs


def _run(settings: ComparisonSettings, jobs: Sequence[Job], folder: Path) -> None:
    """Make runs, and write each into its file; say who cannot be run here, and why."""
    # Trained here once, not by every worker; and nobody else needs the data.
    tasks = {seed: settings.load(settings.device, seed) for seed in sorted({job.seed for job in jobs})}
    for task in tasks.values():
        settings.place().check(task.device)
        asked = dsfp_env.Evaluator(task, **measured_as(settings, task, folder), executor="serial")
        kept_in(folder, asked)  # the model of times, which is fitted once for all
    measured = {seed: measured_as(settings, task, folder) for seed, task in tasks.items()}
    progress, refused = Progress("runs", len(jobs)), set[tuple[str, str]]()
    for job, run in as_done(Runner(settings, tasks, measured).make, {job: job for job in jobs}, settings.place()):
        if not isinstance(run, str):
            write_json(piece(folder, job.agent, job.budget, job.seed), run)
        elif (job.agent, run) not in refused:
            remark(f"{job.agent}: {run}")
            refused.add((job.agent, run))
        progress.advance()
    progress.close()


class Runner:
    """Makes runs, one evaluator for all that have one seed.

    Args:
        settings: What is compared.
        tasks: By seed.
        measured: By seed, the arguments of the evaluator of its task.
    """

    def __init__(
        self,
        settings: ComparisonSettings,
        tasks: Mapping[int, dsfp_env.Task],
        measured: Mapping[int, Mapping[str, Any]],
    ) -> None:
        self._settings, self._tasks, self._measured = settings, tasks, measured
        self._evaluators: dict[int, dsfp_env.Evaluator] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_evaluators": {}}

    def make(self, job: Job) -> dict[str, Any] | str:
        """A run, or why it cannot be made."""
        if job.seed not in self._evaluators:
            self._evaluators[job.seed] = dsfp_env.Evaluator(
                self._tasks[job.seed], **self._measured[job.seed], executor="serial"
            )
        try:
            with threads_set(1):
                return make_run(self._evaluators[job.seed], self._settings, job.agent, job.budget, job.seed)
        except InputError as error:
            return str(error)


def make_run(
    evaluator: dsfp_env.Evaluator, settings: ComparisonSettings, text: str, budget: int, seed: int
) -> dict[str, Any]:
    """Let one learner learn; returns what it tried, and its best and its greedy joint action measured anew."""
    game: dict[str, Any] = {"evaluator": evaluator, "reward": settings.reward, "macs_budget": budget_of(settings)}
    game["fill_budget"] = settings.fill_budget
    env, team, history = held_contest(text, partial(dsfp_env.parallel_env, **game), budget, seed)
    greedy = agents.play(env, team)
    infos = [next(iter(evaluation.infos.values())) for evaluation in history]
    accuracies, macs = [info["accuracy"] for info in infos], [info["relative_macs"] for info in infos]
    measured = {
        which: measure(evaluator, evaluation.ratios, env.score, measuring_seeds(seed), idle=False)
        for which, evaluation in (("best", agents.best(history)), ("greedy", greedy))
    }
    return {
        "agent": text,
        "budget": budget,
        "seed": seed,
        **measured,
        "hypervolume": volume_of(accuracies, macs),
        "evaluations": [evaluation.number for evaluation in history],
        "scores": [evaluation.score for evaluation in history],
        "accuracies": accuracies,
        "relative_macs": macs,
    }


def piece(folder: Path, contestant: str, budget: int, seed: int) -> Path:
    """The file of one run."""
    return folder / RUNS / f"{as_file_name(contestant)}-{budget}-seed{seed}.json"
