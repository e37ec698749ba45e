"""What is it worth to begin with the plan of a rule? Learners on a surrogate, at a budget, with and without.

    python benchmarks/warm_start.py vgg16-bn docs/reproduction-vgg16-bn.json --seeds 0-19

Every joint action is brought to the budget (`AtBudget`). The plan is that of a row of a study of the same network,
`sensitivity` unless another is named. Judged is what the model expects, without the noise of a fine-tuning, of the
highest score that was seen: accuracies in percent, means over seeds with 95 % intervals, and how many percent of
the runs end above the plan that they could begin with.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from at_budget import accuracy, told

import agents
import dsfp_env
from agents.contests import held_contest
from agents.reporting.seeds import parse_seeds
from agents.reproduce.results import read_results
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.plans import Plan


@dataclass(frozen=True)
class Settings:
    """What is run."""

    surrogate: Annotated[str, tyro.conf.Positional]
    """By name."""
    study: Annotated[str, tyro.conf.Positional]
    """A results.json with the row."""
    row: str = "sensitivity"
    """Whose plan is begun with."""
    macs_budget: float = 0.25
    """Relative MACs allowed; the study must have it."""
    agents: tuple[str, ...] = (
        "random_search",
        "local_search",
        "q_learning(explorers=2, smoothing=0.6, step_size=0.5, negative_step_size=0.1)",
        "regression_bandit(warm_up=0, epsilon=1, recent=35, window=20, final_window=6, ridge=0.01)",
        "linucb",
    )
    """Learners by name, with options."""
    seeds: str = "0-19"
    """For example 0-19."""
    evaluations: int = 150
    """Of each run."""
    workers: int = 2
    """Processes."""


def main() -> None:
    """Print a table."""
    settings = tyro.cli(Settings)
    seeds, plan = parse_seeds(settings.seeds), plan_of(settings)
    begun = accuracy(settings.surrogate, settings.macs_budget, plan)
    uniform = accuracy(settings.surrogate, settings.macs_budget, dict.fromkeys(plan, 50.0))
    print(f"{settings.surrogate}: {settings.row} {100 * begun:.1f} %, uniform pruning {100 * uniform:.1f} %\n")
    print(f"| | from nothing | above {settings.row} | from {settings.row} | above it |\n|---|---|---|---|---|")
    with ProcessPoolExecutor(settings.workers, get_context("spawn")) as pool:
        for agent in settings.agents:
            cells = []
            for first in ((), (plan,)):
                found = np.array(list(pool.map(partial(best_of, settings, agent, first), seeds)))
                cells += [told(found), f"{(found > begun + 1e-6).mean():.0%}"]
            print(f"| `{agent}` | {' | '.join(cells)} |", flush=True)


def plan_of(settings: Settings) -> Plan:
    """The ratios of the row, of its first seed."""
    target = f"{settings.row}-macs{100 * settings.macs_budget:g}-seed"
    for name, row in read_results(Path(settings.study))["rows"].items():
        if name.startswith(target):
            return dict(row["ratios"])
    raise InputError(f"{settings.study} has no row {target}*: expected one, of a study with this budget.")


def best_of(settings: Settings, agent: str, first: tuple[Plan, ...], seed: int) -> float:
    """The accuracy that the model expects of the best joint action seen."""
    env_of = partial(
        dsfp_env.parallel_env,
        settings.surrogate,
        backend="surrogate",
        reward="budget",
        macs_budget=settings.macs_budget,
        fill_budget=True,
    )
    history = held_contest(agent, env_of, settings.evaluations, seed, first=first).history
    return accuracy(settings.surrogate, settings.macs_budget, agents.best(history).ratios)


if __name__ == "__main__":
    main()
