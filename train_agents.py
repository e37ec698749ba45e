"""Learn a pruning ratio for every convolution of a network.

Loads (or trains) the original network of a task, lets agents choose ratios for a budget of evaluations, compares
the best and the greedy joint action with uniform pruning and random search, prints a table, and writes a folder
with the result, every evaluation, the pruned network and a picture.

With --backend table nothing is measured: learners are judged on a table of all joint actions
(`agents.leaderboard`).
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import agents
import dsfp_env
from agents.leaderboard import runs as leaderboard
from agents.registry import choose_agent, in_batches
from agents.reporting import run_report
from agents.reporting.default_folder import default_folder
from agents.reporting.finals import Baselines, choose_best, measure, measure_original, measuring_seeds
from agents.reporting.fronts import front_of, volume_of
from agents.reporting.journal import NotThisRun
from agents.reporting.resuming import go_on, leave
from agents.reporting.run_folder import SUMMARY, RunFolder, check_same, goes_on_in, write_json
from agents.reporting.seeds import parse_seeds
from agents.trial import check_learners
from dsfp_env.common import command_line
from dsfp_env.common.choices import choose
from dsfp_env.common.devices import MOST_THREADS, choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import named
from dsfp_env.common.progress import Progress
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.saying import remark, say
from dsfp_env.criteria.scoring import parse_criterion
from dsfp_env.environment.backends import BACKENDS
from dsfp_env.environment.credit import compared_plans
from dsfp_env.environment.rules import Rules
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.chosen import WHERE, ExecutorSettings, said
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import LOWEST, Plan
from dsfp_env.evaluation.rewards import needs_time
from dsfp_env.evaluation.workers import available_cores
from dsfp_env.tasks.loading import TaskOptions

WITH_A_TABLE = (  # settings that mean something there
    *("task", "agent", "backend", "evaluations", "batch", "seed", "seeds"),
    *("reward", "macs_budget", "out"),
    *WHERE,
)


@dataclass(frozen=True)
class RunSettings(ExecutorSettings, TaskOptions):
    """What is learned, by whom, and for how long."""

    agent: str = "q_learning"
    """The learner: q_learning (tabular, DSFP section III-C), regression_bandit (DSFP section III-B),
    joint_thompson, coordinate_search, ppo, sac, random_search, ... (docs/agents.md lists and compares them), with
    options as in 'q_learning(step_size=0.5)'; or package.module:Class of your own. With --backend table, all
    stands for every one."""
    backend: str = "live"
    """live measures; table looks up what was measured once of every joint action, and makes a leaderboard instead
    of a report: the learner, or all, with every seed. --task is then digits, or the folder of another table."""
    evaluations: int = 300
    """Joint actions that the agents may try. Each is one pruning, one fine-tuning and one measurement."""
    batch: int = 1
    """Joint actions that are chosen before the agents learn from them, and evaluated at once by the workers. More
    cost some of what is learned for each evaluation; results depend on it."""
    seed: int = 0
    """Of the agents, of the fine-tuning, of the split of the data and of the original network."""
    seeds: str | None = None
    """Several runs instead of one, for example 0-4 or 0,3,7; each has its folder, and a summary is added."""
    reward: str | None = None
    """accuracy_x_saving = a * (1 - f), budget = a * min(1, F0 / f), accuracy_x_speed = a * (1 - t), or
    package.module:function of (outcome, original); a is the validation accuracy, f the relative MACs, F0 the
    budget, t the relative time of a forward pass. Unless given: budget if there is a --macs-budget, else
    accuracy_x_saving."""
    macs_budget: float | None = None
    """Relative MACs allowed, in (0, 1), for example 0.3."""
    horizon: int = 1
    """Steps in an episode: 1 is the paper's one-shot decision; with more, agents revise their ratios."""
    credit: str = "shared"
    """Whose merit a score is: shared by all, or difference (of each agent its own part, measured by one more
    evaluation for every agent and step)."""
    observation: str = "layers"
    """What an agent sees: layers (features of its layer and the last outcome) or context (the paper's scalar)."""
    criterion: str = "dsfp"
    """Which filters go first: dsfp, taylor, taylor_activation, fisher, l1, random, ... (docs/criteria.md has
    them all), with options as in 'dsfp(kl=fisher, end=highest)', or package.module:function."""
    kd_batches: int | None = None
    """Batches of knowledge distillation in an evaluation; the task's own number unless given."""
    precision: str | None = None
    """Of an evaluation: float32 (exact), bfloat16 (fast), or auto (bfloat16 where device and network suit it); the
    task's own unless given."""
    kernels: str | None = None
    """Of batch normalisation in bfloat16 on the CPU: compiled (on first use), torch, or auto (compiled where there
    is a C compiler)."""
    min_filters: int = 1
    """Filters that every layer keeps at least."""
    round_to: int = 1
    """Layers that lose filters keep a multiple of this, for hardware."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    threads: int = 1
    """CPU threads of each process; an evaluation of the digits uses 1. Results can differ in the last digits
    between numbers of threads."""
    store: bool = True
    """Take outcomes that an earlier run has measured from the user's cache directory, and keep new ones there.
    With --no-store everything is evaluated anew. Results do not depend on it."""
    out: str | None = None
    """The folder to write; runs/TASK-AGENT-seedSEED (runs/TASK-table with --backend table), or the next free name
    like it, unless given."""


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
            write_json(folder / SUMMARY, {"seeds": seeds, "summary": run_report.summary(results)})
    say(f"\n{run_report.summary_table(results)}\n\nwritten to {folder}")
    return 0


def train_one(settings: RunSettings, folder: Path) -> dict[str, Any]:
    """One seed, begun, gone on with, or only printed if it is finished; returns the result. Raises as `train`."""
    with RunFolder(folder, asdict(settings)) as record:
        if record.result is not None:
            say(f"\n{folder} is finished, nothing is left to do\n\n{run_report.table(record.result)}")
            return record.result
        try:
            env = make_env(settings)
            agents.check_budget(env, settings.evaluations)
            team = make_team(settings, env)
            agents.check_batch(team, settings.batch)
        except InputError:
            record.withdraw()
            raise
        try:
            return run(settings, env, team, record)
        except NotThisRun:
            raise
        except BaseException as error:
            left = leave(record, summary_of(settings), settings.evaluations)
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(left) from error
            remark(left)
            raise


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
    given = settings.reward is not None or settings.macs_budget is not None
    budget = "" if settings.macs_budget is None else f"(macs_budget={settings.macs_budget})"
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
    for name in ("evaluations", "batch", "horizon", "threads", "min_filters", "round_to"):
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
    settings.check()
    parse_criterion(settings.criterion)
    check_learners([in_batches(settings.agent, settings.batch)], settings.evaluations)
    Rules(
        choose_agent(settings.agent).actions,
        reward_name(settings),
        settings.macs_budget,
        settings.horizon,
        None,
        settings.observation,
        LOWEST,
        settings.credit,
    )
    fidelity_of(settings, dsfp_env.Fidelity())
    _check_place(settings)
    seeds = [settings.seed] if settings.seeds is None else parse_seeds(settings.seeds)
    if min(seeds) < 0:
        raise InputError(f"The seed {min(seeds)} is negative: expected 0 or more.")
    check_seed(max(seeds))
    folder = free_folder(settings) if settings.out is None else named(settings.out)
    check_same(folder, asdict(settings))
    return seeds, folder


def make_env(settings: RunSettings) -> dsfp_env.LayerPruningEnv:
    """The environment that the settings describe."""
    task = settings.load(settings.device, settings.seed)
    return dsfp_env.parallel_env(
        task=task,
        actions=choose_agent(settings.agent).actions,
        reward=reward_name(settings),
        macs_budget=settings.macs_budget,
        horizon=settings.horizon,
        credit=settings.credit,
        observation=settings.observation,
        criterion=settings.criterion,
        fidelity=fidelity_of(settings, task.fidelity),
        min_filters=settings.min_filters,
        round_to=settings.round_to,
        store=settings.store,
        executor=place(settings),
    )


def fidelity_of(settings: RunSettings, usual: dsfp_env.Fidelity) -> dsfp_env.Fidelity:
    """The work of an evaluation: as usual, but for what the settings say."""
    said = {"batches": settings.kd_batches, "precision": settings.precision, "kernels": settings.kernels}
    changes: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    return dataclasses.replace(usual, **changes)


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
    settings: RunSettings, env: dsfp_env.LayerPruningEnv, team: agents.MultiAgent, record: RunFolder
) -> dict[str, Any]:
    """One seed: learn, compare, print, write; returns the result."""
    evaluator, score, actions = measuring(env), env.score, choose_agent(settings.agent).actions
    journal = go_on(record, evaluator, settings.evaluations)
    mask = env.action_mask if settings.macs_budget is not None and actions == "levels" else None
    alone = evaluator.latency is not None or evaluator.task.device.type != "cpu"  # times want an idle machine
    here = 1 if alone and settings.executor != "ray" else None
    evaluator.workers = here

    def start_many(plans: Sequence[Plan], seed: int) -> Iterator[Outcome]:
        return journal.noting(plans, seed, evaluator.start_many(plans, seed, here))

    def compared() -> Baselines:
        return Baselines(evaluator, start_many, settings.evaluations, actions, score, settings.seed, mask)

    with evaluator:
        background = compared() if settings.batch == 1 else None  # else the workers are for the learners first
        learn(settings, env, team, record, here)
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
        "original": measure_original(evaluator, score),
        "best": measured(best),
        "greedy": measured(greedy),
        "baselines": {name: measured(plan) for name, plan in plans.items()},
        **fronts(record, baselines),
    }
    write(record, result, env, baselines)
    what = f"{settings.task}, {settings.agent}, seed {settings.seed}, {settings.evaluations} evaluations"
    say(f"\n{what}\n\n{run_report.table(result)}\n\nwritten to {record.folder}")
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
        )
    finally:
        progress.close()
    record.check_all_came()


def write(record: RunFolder, result: dict[str, Any], env: dsfp_env.LayerPruningEnv, baselines: Baselines) -> None:
    """Fill the run folder; the result comes last, so that a folder with a result is whole."""
    evaluator, ratios, seed = measuring(env), result["best"]["ratios"], measuring_seeds(result["seed"])[0]
    network = evaluator.build(ratios, seed)
    about = {"ratios": ratios, "fine_tuning_seed": seed, "agent": result["agent"], "seed": result["seed"]}
    path = record.folder / "pruned.safetensors"
    dsfp_env.save_pruned(path, network, evaluator.keep(ratios), evaluator.task, about)
    random_scores = [env.score(outcome) for outcome in baselines.random_outcomes]
    run_report.draw(
        record.folder / "summary.png", result, record.evaluations, random_scores, baselines.uniform_outcomes
    )
    record.write_result(result)


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
    return "accuracy_x_saving" if settings.macs_budget is None else "budget"


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
