"""One seed of the main command: learn, compare with baselines, finish, write; begun, or gone on with."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import agents
import dsfp_env
from agents.callbacks import Callback, EvaluationsOnly
from agents.main_job.asked import make_env, make_team, summary_of
from agents.registry import choose_agent
from agents.reporting import run_report
from agents.reporting.budget_options import kept_in, measuring, told
from agents.reporting.criteria_choice import Choice, choose_criterion
from agents.reporting.exported import export_all
from agents.reporting.finals import (
    Baselines,
    choose_best,
    measure,
    measure_original,
    measuring_seeds,
    metric_of,
)
from agents.reporting.finish_options import criteria_of, formats_of, left_of
from agents.reporting.fronts import front_of, volume_of
from agents.reporting.html_report import HTML, write_run
from agents.reporting.journal import NotThisRun
from agents.reporting.long_fine_tune import LongFineTune, remove_states
from agents.reporting.report_data import read_run, write_more
from agents.reporting.resuming import go_on, leave
from agents.reporting.run_folder import RunFolder
from agents.reporting.trackers import Tracking
from agents.run_settings import RunSettings
from dsfp_env.common.config_files import write_config
from dsfp_env.common.errors import InputError
from dsfp_env.common.progress import Progress
from dsfp_env.common.saying import remark, say
from dsfp_env.evaluation.budgets import MACS
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import Plan


def train_one(settings: RunSettings, folder: Path, executor: Executor | None = None) -> dict[str, Any]:
    """One seed, begun, gone on with, or only printed if it is finished.

    Args:
        settings: Of one seed.
        folder: Of the run.
        executor: Where what is evaluated many at once is measured; as the settings say, unless given.

    Returns:
        The result.

    Raises:
        InputError: If a setting cannot be used, nothing is written then; or if the folder is of another run.
        KeyboardInterrupt: After Ctrl-C, with a sentence that says what was kept.
    """
    with RunFolder(folder, asdict(settings)) as record:
        if record.result is not None:
            remove_states(folder)
            say(f"\n{folder} is finished, nothing is left to do\n\n{run_report.tables(record.result)}")
            return record.result
        try:
            first = dataclasses.replace(settings, criterion=[*criteria_of(settings), settings.criterion][0])
            env = make_env(first, folder, executor)
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
                result = run_with_best_criterion(settings, record, follower, executor)
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


def run_with_best_criterion(
    settings: RunSettings, record: RunFolder, follower: Callback, executor: Executor | None
) -> dict[str, Any]:
    """One seed, where the criterion is chosen first; returns the result."""

    def of(criterion: str) -> RunSettings:
        return dataclasses.replace(settings, criterion=criterion, criteria=None)

    choice = choose_criterion(
        criteria_of(settings),
        lambda criterion: make_env(of(criterion), record.folder, executor),
        choose_agent(settings.agent).actions,
        settings.evaluations,
        settings.seed,
        record.journal,
    )
    chosen = dataclasses.replace(of(choice.best), evaluations=left_of(settings))
    env = make_env(chosen, record.folder, executor)
    return run(chosen, env, make_team(chosen, env), record, follower, choice)


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
    filled = None if env.at_budget is None else env.at_budget.filled
    mask = env.action_mask if env.budget is not None and actions == "levels" and filled is None else None
    alone = evaluator.timed or evaluator.task.device.type != "cpu"  # times want an idle machine
    here = 1 if alone and settings.executor != "ray" else None
    evaluator.workers = here

    def start_many(plans: Sequence[Plan], seed: int) -> Iterator[Outcome]:
        return journal.noting(plans, seed, evaluator.start_many(plans, seed, here))

    def compared() -> Baselines:
        of = MACS if env.budget is None else env.budget.of
        return Baselines(evaluator, start_many, total, actions, score, settings.seed, mask, of, filled)

    with evaluator:
        background = compared() if settings.batch == 1 else None  # else the workers are for the learners first
        learn(settings, env, team, record, here, follower)
        baselines = background or compared()
        tried = [line["ratios"] for line in record.evaluations]
        rewards = [line["reward"] for line in record.evaluations]
        best = choose_best(tried, rewards, score, start_many, settings.seed, evaluator.keep)
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
        for plan in env.plans_of(env.ratios_of(evaluation.actions)):
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
