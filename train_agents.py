"""Learn a pruning ratio for every convolution of a network.

Loads (or trains) the original network of a task, lets agents choose ratios for a budget of evaluations, compares
the best and the greedy joint action with uniform pruning and random search, prints a table, and writes a folder
with a report, the result, every evaluation, the pruned network and a picture.

With --backend table nothing is measured: learners are judged on a table of all joint actions
(`agents.leaderboard`).
"""

from __future__ import annotations

import dataclasses
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from agents.run_settings import RunSettings
from dsfp_env.common import command_line

if __name__ == "__main__":  # help, and an option that is wrong, before torch is imported, which takes seconds
    from agents.learner_help import learner_help

    command_line.answer_early(RunSettings, __doc__, learner_help)

import torch

import agents
import dsfp_env
from agents.callbacks import Callback, EvaluationsOnly
from agents.leaderboard import runs as leaderboard
from agents.registry import choose_agent, in_batches
from agents.reporting import run_report
from agents.reporting.budget_options import budget_of, kept_in, measured_as, told
from agents.reporting.criteria_choice import Choice, choose_criterion
from agents.reporting.default_folder import default_folder
from agents.reporting.exported import export_all
from agents.reporting.finals import (
    Baselines,
    choose_best,
    measure,
    measure_original,
    measuring_seeds,
    metric_of,
)
from agents.reporting.finish_options import check_finish, criteria_of, formats_of, left_of
from agents.reporting.fronts import front_of, volume_of
from agents.reporting.html_report import HTML, write_comparison, write_run
from agents.reporting.journal import NotThisRun
from agents.reporting.long_fine_tune import LongFineTune, remove_states
from agents.reporting.report_data import read_run, write_more
from agents.reporting.resuming import go_on, leave
from agents.reporting.run_folder import SUMMARY, RunFolder, check_same, goes_on_in, write_json
from agents.reporting.seeds import parse_seeds
from agents.reporting.trackers import Tracking, check_tracker
from agents.trial import check_learners
from dsfp_env.common.choices import choose
from dsfp_env.common.config_files import write_config
from dsfp_env.common.devices import MOST_THREADS, choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import named
from dsfp_env.common.progress import Progress
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.saying import remark, say
from dsfp_env.environment.backends import BACKENDS
from dsfp_env.environment.credit import compared_plans
from dsfp_env.environment.rules import Rules
from dsfp_env.evaluation.budgets import MACS
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.options import WHERE, said
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import LOWEST, Plan
from dsfp_env.evaluation.rewards import needs_time
from dsfp_env.evaluation.workers import available_cores

WITH_A_TABLE = (  # settings that mean something there
    *("task", "agent", "backend", "evaluations", "batch", "seed", "seeds"),
    *("reward", "macs_budget", "params_budget", "out"),
    *WHERE,
)


def main() -> int:
    """Run from the command line; returns the exit status."""
    nothing = "ended before the first evaluation of a run; the same command goes on from here"
    return command_line.run(RunSettings, train, __doc__, stopped=nothing)


def train(settings: RunSettings) -> int:
    """Run all seeds, or go on with those that a folder holds; returns 0.

    Raises:
        InputError: If a setting cannot be used, nothing is written then; or if the folder is of another run.
        KeyboardInterrupt: After Ctrl-C, with a sentence that says what was kept.
    """
    choose("backend", settings.backend, dict.fromkeys(BACKENDS))
    if settings.config is not None:
        raise InputError("config is read from the command line: elsewhere, use dsfp_env.common.config_files.")
    if settings.backend == "table":
        judge(settings)
        return 0
    seeds, folder = check(settings)
    torch.set_num_threads(settings.threads)
    if settings.seeds is None:
        train_one(settings, folder)
        return 0
    with RunFolder(folder, asdict(settings)) as record:
        try:
            ones = [dataclasses.replace(settings, seed=seed, seeds=None) for seed in seeds]
            results = [train_one(one, folder / f"seed-{one.seed}") for one in ones]
        except InputError:
            record.withdraw()
            raise
        if not (folder / SUMMARY).exists():
            write_config(folder, asdict(settings))
            write_comparison([folder / f"seed-{seed}" for seed in seeds], folder / HTML)
            write_json(folder / SUMMARY, {"seeds": seeds, "summary": run_report.summary(results)})
    say(f"\n{run_report.summary_table(results)}\n\nwritten to {folder}")
    return 0


def train_one(settings: RunSettings, folder: Path) -> dict[str, Any]:
    """One seed, begun, gone on with, or only printed if it is finished; returns the result. Raises as `train`."""
    with RunFolder(folder, asdict(settings)) as record:
        if record.result is not None:
            remove_states(folder)
            say(f"\n{folder} is finished, nothing is left to do\n\n{run_report.tables(record.result)}")
            return record.result
        try:
            first = dataclasses.replace(settings, criterion=[*criteria_of(settings), settings.criterion][0])
            env = make_env(first, folder)
            agents.check_budget(env, left_of(settings))
            team = make_team(settings, env)
            agents.check_batch(team, settings.batch)
        except InputError:
            record.withdraw()
            raise
        write_config(folder, asdict(settings))
        follower = Tracking(settings.track, folder) if settings.track else Callback()
        follower.on_start(asdict(settings))
        result = None
        try:
            if settings.criteria is None:
                result = run(settings, env, team, record, follower)
            else:
                result = run_with_best_criterion(settings, record, follower)
            return result
        except NotThisRun:
            raise
        except BaseException as error:
            left = leave(record, summary_of(settings), settings.evaluations)
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(left) from error
            remark(left)
            raise
        finally:
            follower.on_end(result)


def run_with_best_criterion(settings: RunSettings, record: RunFolder, follower: Callback) -> dict[str, Any]:
    """One seed, where the criterion is chosen first; returns the result."""

    def of(criterion: str) -> RunSettings:
        return dataclasses.replace(settings, criterion=criterion, criteria=None)

    choice = choose_criterion(
        criteria_of(settings),
        lambda criterion: make_env(of(criterion), record.folder),
        choose_agent(settings.agent).actions,
        settings.evaluations,
        settings.seed,
        record.journal,
    )
    chosen = dataclasses.replace(of(choice.best), evaluations=left_of(settings))
    env = make_env(chosen, record.folder)
    return run(chosen, env, make_team(chosen, env), record, follower, choice)


def judge(settings: RunSettings) -> None:
    """Make a leaderboard on a table.

    Raises:
        InputError: If a setting cannot be used.
    """
    asked = board_settings(settings)
    try:
        leaderboard.leaderboard(asked)
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(f"stopped; the same command goes on from here, in {asked.out}") from error


def board_settings(settings: RunSettings) -> leaderboard.LeaderboardSettings:
    """Those of the leaderboard that is asked for.

    Raises:
        InputError: If a setting means nothing there.
    """
    for field in dataclasses.fields(RunSettings):
        value = getattr(settings, field.name)
        if field.name not in WITH_A_TABLE and value != field.default:
            raise InputError(
                f"--{field.name.replace('_', '-')} is {value!r}, which --backend table cannot do: expected "
                f"{field.default!r} with it."
            )
    asked_budget = budget_of(settings)
    given = settings.reward is not None or asked_budget is not None
    budget = "" if asked_budget is None else f"({asked_budget.of}_budget={asked_budget.share})"
    asked = leaderboard.LeaderboardSettings(
        agents=(in_batches(settings.agent, settings.batch),),
        table=settings.task,
        rewards=(f"{reward_name(settings)}{budget}",) if given else leaderboard.FORMS,
        seeds=settings.seeds or str(settings.seed),
        evaluations=settings.evaluations,
        **said(settings),
    )
    same = {name: value for name, value in asdict(asked).items() if name not in ("out", *WHERE)}
    unfinished = partial(leaderboard.goes_on_in, settings=same)
    out = str(default_folder(folder_name(settings), unfinished)) if settings.out is None else settings.out
    return dataclasses.replace(asked, out=out)


def check(settings: RunSettings) -> tuple[list[int], Path]:
    """Refuse what cannot be used before anything is loaded or written.

    Returns:
        The seeds, and the folder to write.

    Raises:
        InputError: If a setting cannot be used.
    """
    for name in ("evaluations", "batch", "horizon", "threads"):
        if (value := getattr(settings, name)) < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}: expected 1 or more.")
    if settings.horizon > settings.evaluations:
        raise InputError(
            f"--horizon is {settings.horizon}, and --evaluations is {settings.evaluations}: expected as many "
            "evaluations as an episode has steps, or more."
        )
    if settings.threads > MOST_THREADS:
        raise InputError(f"--threads is {settings.threads}: expected from 1 to {MOST_THREADS}.")
    if settings.agent == "all":
        raise InputError(
            "--agent is all, which is for --backend table: expected one learner. `python -m agents.compare` "
            "compares several live."
        )
    check_tracker(settings.track)
    settings.check()
    settings.check_evaluation()
    settings.check_widths()
    check_learners([in_batches(settings.agent, settings.batch)], left_of(settings))
    Rules(
        choose_agent(settings.agent).actions,
        reward_name(settings),
        budget_of(settings),
        settings.horizon,
        None,
        settings.observation,
        LOWEST,
        settings.credit,
    )
    check_finish(settings)
    _check_place(settings)
    seeds = [settings.seed] if settings.seeds is None else parse_seeds(settings.seeds)
    if min(seeds) < 0:
        raise InputError(f"The seed {min(seeds)} is negative: expected 0 or more.")
    check_seed(max(seeds))
    folder = free_folder(settings) if settings.out is None else named(settings.out)
    check_same(folder, asdict(settings))
    return seeds, folder


def make_env(settings: RunSettings, folder: Path | None = None) -> dsfp_env.LayerPruningEnv:
    """The environment that the settings describe; with what the run folder knows of times."""
    task = settings.load(settings.device, settings.seed)
    return dsfp_env.parallel_env(
        task=task,
        actions=choose_agent(settings.agent).actions,
        reward=reward_name(settings),
        macs_budget=budget_of(settings),
        horizon=settings.horizon,
        credit=settings.credit,
        observation=settings.observation,
        **measured_as(settings, task, folder),
        store=settings.store,
        executor=place(settings),
    )


def place(settings: RunSettings) -> Executor:
    """Where baselines, and whatever else is evaluated many at once, are measured; no more than 8 processes."""
    if settings.executor == "processes" and settings.workers is None:
        return Processes(min(8, available_cores()))
    return settings.place()


def _check_place(settings: RunSettings) -> None:
    """Refuse a device, or a place, that cannot be used.

    Raises:
        InputError: If so.
    """
    device = choose_device(settings.device)
    settings.place().check(device)
    if settings.executor == "ray" and needs_time(reward_name(settings)):
        raise InputError(
            f"--reward {reward_name(settings)} measures times on this machine: leave --executor ray out."
        )


def measuring(env: dsfp_env.LayerPruningEnv) -> dsfp_env.Evaluator:
    """The evaluator of `make_env`'s environment."""
    assert isinstance(env.evaluator, dsfp_env.Evaluator)
    return env.evaluator


def make_team(settings: RunSettings, env: dsfp_env.LayerPruningEnv) -> agents.MultiAgent:
    """The learners that the settings name."""
    return choose_agent(settings.agent).make(env, settings.seed, settings.evaluations)


def run(
    settings: RunSettings,
    env: dsfp_env.LayerPruningEnv,
    team: agents.MultiAgent,
    record: RunFolder,
    follower: Callback,
    choice: Choice | None = None,
) -> dict[str, Any]:
    """One seed: learn, compare, finish, print, write; returns the result."""
    total = settings.evaluations + (choice.spent if choice else 0)  # what random search may make
    evaluator, score, actions = measuring(env), env.score, choose_agent(settings.agent).actions
    journal = go_on(record, evaluator, settings.evaluations)
    kept_in(record.folder, evaluator)
    mask = env.action_mask if env.budget is not None and actions == "levels" else None
    alone = evaluator.timed or evaluator.task.device.type != "cpu"  # times want an idle machine
    here = 1 if alone and settings.executor != "ray" else None
    evaluator.workers = here

    def start_many(plans: Sequence[Plan], seed: int) -> Iterator[Outcome]:
        return journal.noting(plans, seed, evaluator.start_many(plans, seed, here))

    def compared() -> Baselines:
        of = MACS if env.budget is None else env.budget.of
        return Baselines(evaluator, start_many, total, actions, score, settings.seed, mask, of)

    with evaluator:
        background = compared() if settings.batch == 1 else None  # else the workers are for the learners first
        learn(settings, env, team, record, here, follower)
        baselines = background or compared()
        tried = [line["ratios"] for line in record.evaluations]
        rewards = [line["reward"] for line in record.evaluations]
        best = choose_best(tried, rewards, score, start_many, settings.seed)
        greedy = agents.play(env, team).ratios
        plans = baselines.finish(best, greedy)
    seeds = measuring_seeds(settings.seed)

    def measured(plan: Plan) -> dict[str, Any]:
        return journal.once(["final", plan, seeds], lambda: measure(evaluator, plan, score, seeds))

    result = {
        **summary_of(settings),
        **(choice.told(total) if choice else {}),
        **told(settings, evaluator),
        **metric_of(evaluator),
        "original": journal.once(["original"], lambda: measure_original(evaluator, score)),
        "best": measured(best),
        "greedy": measured(greedy),
        "baselines": {name: measured(plan) for name, plan in plans.items()},
        **fronts(record, baselines),
    }
    finish = (
        LongFineTune(record.folder, evaluator, settings.fine_tune, settings.seed) if settings.fine_tune else None
    )
    if finish:
        result["fine_tuned"] = finish.results(result, journal)
    write(settings, record, result, env, baselines, finish)
    what = f"{settings.task}, {settings.agent}, seed {settings.seed}, {total} evaluations"
    say(f"\n{what}\n\n{run_report.tables(result)}\n\nwritten to {record.folder}")
    return result


def fronts(record: RunFolder, baselines: Baselines) -> dict[str, Any]:
    """What was tried, as accuracy against MACs, whatever the reward was."""
    lines, found = record.evaluations, baselines.random_outcomes
    volumes = {
        "tried": volume_of(*([line[name] for line in lines] for name in ("validation_accuracy", "relative_macs"))),
        "random_search": volume_of(*([getattr(o, name) for o in found] for name in ("accuracy", "relative_macs"))),
    }
    return {"hypervolume": volumes, "pareto": front_of(lines)}


def learn(
    settings: RunSettings,
    env: dsfp_env.LayerPruningEnv,
    team: agents.MultiAgent,
    record: RunFolder,
    workers: int | None,
    follower: Callback,
) -> None:
    """Spend the budget of evaluations, writing each one down."""
    progress = Progress(f"{settings.agent}, seed {settings.seed}", settings.evaluations)

    def note(evaluation: agents.Evaluation) -> None:
        seed = env.evaluation_seed
        for plan in (evaluation.ratios, *compared_plans(evaluation.ratios, settings.credit, env.default_plan)):
            record.journal.note_outcome(plan, seed, measuring(env).evaluate(plan, seed))  # known by now
        record.add(evaluation)
        progress.advance(evaluation.score)

    try:
        agents.train(
            env,
            team,
            settings.evaluations,
            batch=settings.batch,
            workers=workers,
            seed=settings.seed,
            on_evaluation=note,
            callbacks=[EvaluationsOnly([follower])],
        )
    finally:
        progress.close()
    record.check_all_came()


def write(
    settings: RunSettings,
    record: RunFolder,
    result: dict[str, Any],
    env: dsfp_env.LayerPruningEnv,
    baselines: Baselines,
    finish: LongFineTune | None,
) -> None:
    """Fill the run folder; the result comes last, so that a folder with a result is whole."""
    evaluator, ratios, seed = measuring(env), result["best"]["ratios"], measuring_seeds(result["seed"])[0]
    task = evaluator.task
    if finish:
        network, seed = finish.network(ratios)[0], settings.seed
    else:
        network = evaluator.build(ratios, seed)
    about = {"ratios": ratios, "fine_tuning_seed": seed, "agent": result["agent"], "seed": result["seed"]}
    about |= {"fine_tune": settings.fine_tune} if finish else {}
    path = record.folder / "pruned.safetensors"
    dsfp_env.save_pruned(path, network, evaluator.keep(ratios), task, about)
    random_outcomes = baselines.random_outcomes
    random_scores = [env.score(outcome) for outcome in random_outcomes]
    run_report.draw(
        record.folder / "summary.png", result, record.evaluations, random_scores, baselines.uniform_outcomes
    )
    if formats := formats_of(settings):
        result["exported"] = export_all(record.folder, formats, network, task.test, task.metric)
    try:
        write_more(record.folder, task, network, env.score, random_outcomes, baselines.uniform_outcomes)
        write_run(read_run(record.folder, result), record.folder / HTML)
    except OSError:  # as of a full disk: the same command goes on when there is room
        raise
    except Exception as error:  # a result is not lost for a picture
        warnings.warn(
            f"No report could be made ({type(error).__name__}: {error}); the result is whole.", stacklevel=1
        )
    record.write_result(result)
    remove_states(record.folder)


def summary_of(settings: RunSettings) -> dict[str, Any]:
    """The settings that a result depends on and names."""
    names = (
        "task",
        "agent",
        "seed",
        "evaluations",
        "horizon",
        "credit",
        "observation",
        "criterion",
        "macs_budget",
        "kd_batches",
        "min_filters",
        "round_to",
        "network",
        "image_size",
        "weights",
        "recipe",
        "layers",
        "tie",
        "agents_per",
    )
    shown = {name: getattr(settings, name) for name in names}
    if settings.batch > 1:
        shown["batch"] = settings.batch
    return {**shown, "reward": reward_name(settings), "task_seed": settings.seed_of_task(settings.seed)}


def reward_name(settings: RunSettings) -> str:
    """The reward that was asked for, or the one that fits the budget."""
    if settings.reward is not None:
        return settings.reward
    return "accuracy_x_saving" if budget_of(settings) is None else "budget"


def free_folder(settings: RunSettings) -> Path:
    """The first folder below ``runs`` that does not exist, or holds an unfinished run with these settings."""
    timed = needs_time(reward_name(settings))  # such a run cannot go on
    return default_folder(folder_name(settings), lambda folder: not timed and goes_on_in(folder, asdict(settings)))


def folder_name(settings: RunSettings) -> str:
    """Of the folder that is written if none is named."""
    seeds = f"seed{settings.seed}" if settings.seeds is None else f"seeds{settings.seeds}"
    return f"{settings.task}-{'table' if settings.backend == 'table' else f'{settings.agent}-{seeds}'}"


if __name__ == "__main__":
    sys.exit(main())
