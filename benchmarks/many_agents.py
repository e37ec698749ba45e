"""Learners where there are many agents: on chains of 13, 19 and 55 layers (`dsfp_env.chain`), nothing measured.

    python benchmarks/many_agents.py --agents random_search q_learning 'q_learning(explorers=1)' --seeds 0-19

The normalised regret (0: the best joint action known, 1: one drawn at random) of the best that was seen after so
many evaluations, and of the one that is played in the end, without the noise of the scores: its mean over seeds,
and the standard error of that. A seed is a chain and a learner.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import tyro

import agents
from agents.registry import choose_agent, contestant
from agents.reporting.seeds import parse_seeds
from dsfp_env.chain import ChainEnv

LEVELS = np.linspace(10, 90, 9)


@dataclass(frozen=True)
class Settings:
    """What is run."""

    agents: tuple[str, ...] = ("random_search", "q_learning", "regression_bandit", "coordinate_search", "linucb")
    """Learners by name, with options; @batch=4 is a batch."""
    layers: tuple[int, ...] = (13, 19, 55)
    """Numbers of agents."""
    seeds: str = "0-19"
    """For example 0-19."""
    at: tuple[int, ...] = (50, 150, 300)
    """Evaluations after which the best is judged; a run ends with the last."""
    macs_budget: float | None = None
    """Relative MACs allowed."""
    workers: int = 2
    """Processes."""


def main() -> None:
    """Print a table for every number of layers."""
    settings = tyro.cli(Settings)
    seeds = parse_seeds(settings.seeds)
    with ProcessPoolExecutor(settings.workers, get_context("spawn")) as pool:
        for layers in settings.layers:
            budget = "" if settings.macs_budget is None else f", {settings.macs_budget:.0%} of the MACs"
            print(f"\n### {layers} agents{budget}\n")
            print("| |" + "".join(f" best, {number} |" for number in settings.at) + " greedy |")
            print("|---|" + "---|" * (len(settings.at) + 1))
            for agent in settings.agents:
                work = partial(one_run, agent, layers, settings.at, settings.macs_budget)
                regrets = np.array(list(pool.map(work, seeds)))
                errors = regrets.std(0) / np.sqrt(max(len(seeds) - 1, 1))
                pairs = zip(regrets.mean(0), errors, strict=True)
                cells = (f" {mean:.3f} ± {error:.3f} |" for mean, error in pairs)
                print(f"| `{agent}` |" + "".join(cells), flush=True)


def one_run(agent: str, layers: int, at: tuple[int, ...], macs_budget: float | None, seed: int) -> list[float]:
    """Normalised regrets, of the best after so many evaluations, and of the greedy joint action."""
    name, _, batch = contestant(agent)
    entry = choose_agent(name)
    env = ChainEnv(layers, entry.actions, macs_budget=macs_budget, seed=seed)
    team = entry.make(env, seed, max(at))
    history = agents.train(env, team, max(at), batch=batch, seed=seed)
    best = [agents.best([one for one in history if one.number <= number]) for number in at]
    return [regret_of(layers, macs_budget, seed, one.ratios) for one in (*best, agents.play(env, team))]


def regret_of(layers: int, macs_budget: float | None, seed: int, ratios: dict[str, Any]) -> float:
    """The normalised regret of ratios."""
    env = ChainEnv(layers, seed=seed)
    best, mean = yardsticks(layers, macs_budget, seed)
    return (best - env.expected(np.array(list(ratios.values())))) / (best - mean)


@cache
def yardsticks(layers: int, macs_budget: float | None, seed: int) -> tuple[float, float]:
    """The expected score of the best joint action that climbing finds, and the mean of random ones."""
    rng = np.random.default_rng(0)
    env = ChainEnv(layers, macs_budget=macs_budget, seed=seed)

    def worth(values: np.ndarray) -> float:
        plan = dict(zip(env.possible_agents, values, strict=True))
        within = macs_budget is None or env.relative_macs(plan) <= macs_budget
        return env.expected(values) if within else -1.0

    starts = [np.full(layers, level) for level in LEVELS]
    return (
        max(climbed(start, worth, rng) for start in starts if worth(start) > 0),
        float(np.mean([env.expected(rng.choice(LEVELS, layers)) for _ in range(2000)])),
    )


def climbed(values: np.ndarray, worth: Any, rng: np.random.Generator) -> float:
    """From there, one layer at a time, or two that change by a level, until nothing is better."""
    values, best = values.copy(), worth(values)
    while True:
        before = best
        for place in rng.permutation(len(values)):
            for level in LEVELS:
                tried = values.copy()
                tried[place] = level
                if (found := worth(tried)) > best:
                    values, best = tried, found
        if best > before:
            continue
        for one, other in rng.permutation(
            [(i, j) for i in range(len(values)) for j in range(len(values)) if i != j]
        ):
            tried = values.copy()
            tried[one], tried[other] = max(10, tried[one] - 10), min(90, tried[other] + 10)
            if (found := worth(tried)) > best:
                values, best = tried, found
        if best <= before:
            return best


if __name__ == "__main__":
    main()
