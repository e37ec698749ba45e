"""What the settings of the main command ask for: environment, learners, folder; what is refused before work."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import agents
import dsfp_env
from agents.contests import begun
from agents.registry import choose_agent, in_batches
from agents.reporting.budget_options import budget_of, measured_as, measuring
from agents.reporting.default_folder import default_folder
from agents.reporting.finish_options import check_finish, left_of, parts_of
from agents.reporting.run_folder import check_same, goes_on_in
from agents.reporting.seeds import parse_seeds
from agents.reporting.trackers import check_tracker
from agents.run_settings import RunSettings
from agents.trial import check_learners, check_warm_start
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import named
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.ranges import MOST_THREADS
from dsfp_env.environment.rules import Rules
from dsfp_env.evaluation.allocation import allocate
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.plans import LOWEST
from dsfp_env.evaluation.rewards import needs_time
from dsfp_env.evaluation.workers import available_cores


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
    rules_of(settings)
    _check_place(settings)
    seeds = [settings.seed] if settings.seeds is None else parse_seeds(settings.seeds)
    if min(seeds) < 0:
        raise InputError(f"The seed {min(seeds)} is negative: expected 0 or more.")
    check_seed(max(seeds))
    folder = free_folder(settings) if settings.out is None else named(settings.out)
    check_same(folder, asdict(settings))
    return seeds, folder


def make_env(
    settings: RunSettings, folder: Path | None = None, executor: Executor | None = None
) -> dsfp_env.LayerPruningEnv:
    """The environment that the settings describe.

    Args:
        settings: Of one seed.
        folder: Of a run, for what it knows of times.
        executor: Where many at once are measured; `place` unless given.
    """
    task = settings.load(settings.device, settings.seed)
    return dsfp_env.parallel_env(
        task=task,
        actions=choose_agent(settings.agent).actions,
        reward=reward_name(settings),
        macs_budget=budget_of(settings),
        fill_budget=settings.fill_budget,
        horizon=settings.horizon,
        credit=settings.credit,
        observation=settings.observation,
        **measured_as(settings, task, folder),
        store=settings.store,
        executor=executor or place(settings),
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


def make_team(settings: RunSettings, env: dsfp_env.LayerPruningEnv) -> agents.MultiAgent:
    """The learners that the settings name; they begin with the plans of rules, if that is asked."""
    team = choose_agent(settings.agent).make(env, settings.seed, settings.evaluations)
    share = settings.macs_budget
    plans = (
        [] if share is None else [allocate(measuring(env), rule, macs_budget=share) for rule in rules_of(settings)]
    )
    return begun(team, env, plans, left_of(settings))


def rules_of(settings: RunSettings) -> list[str]:
    """The rules whose plans are tried first.

    Raises:
        InputError: If one is unknown, or there is no budget that they could meet, or the learner cannot do so.
    """
    if settings.warm_start is None:
        return []
    if settings.macs_budget is None:
        raise InputError("--warm-start begins with plans that meet a budget: expected --macs-budget with it.")
    rules = parts_of(settings.warm_start)
    check_warm_start(rules, [settings.agent], left_of(settings))
    return rules


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
    if settings.warm_start is not None:
        shown["warm_start"] = settings.warm_start
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
