"""Learners within a budget: by masks and the reward alone, and with every joint action brought to it (`AtBudget`).

    python benchmarks/at_budget.py --surrogates resnet20 vgg16-bn --seeds 0-19

Both learn with the reward ``"budget"`` on a surrogate. Judged is what the model says, without the noise of a
fine-tuning, of ratios brought to the budget: of the highest score that was seen, and of what is played in the end.
Accuracies in percent, means over seeds with 95 % intervals. Uniform pruning is brought to the budget too.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context

import numpy as np
import tyro

import agents
import dsfp_env
from agents.contests import held_contest
from agents.reporting.seeds import parse_seeds
from agents.reporting.statistics import interval, mean

OPTIONS = {  # docs/agents.md, many agents
    "q_learning": "uniform_first=1, epsilon=0.25, final_epsilon=0.01, negative_step_size=0.1, smoothing=0.6, "
    "step_size=0.5",
    "regression_bandit": "uniform_first=1, warm_up=0, epsilon=1, recent=35, window=35, final_window=12, "
    "ridge=0.01",
}
MANY = tuple(f"{name}({options})" for name, options in OPTIONS.items())


@dataclass(frozen=True)
class Settings:
    """What is run."""

    surrogates: tuple[str, ...] = ("resnet20", "vgg16-bn")
    """By name."""
    macs_budget: float = 0.25
    """Relative MACs allowed."""
    agents: tuple[str, ...] = ("random_search", "q_learning", "regression_bandit", *MANY, "linucb")
    """Learners by name, with options."""
    seeds: str = "0-19"
    """For example 0-19."""
    evaluations: int = 300
    """Of each run."""
    workers: int = 2
    """Processes."""


def main() -> None:
    """Print a table for every surrogate."""
    settings = tyro.cli(Settings)
    seeds = parse_seeds(settings.seeds)
    with ProcessPoolExecutor(settings.workers, get_context("spawn")) as pool:
        for name in settings.surrogates:
            middle = dict.fromkeys(judge(name, settings.macs_budget).task.agents, 50.0)
            uniform = accuracy(name, settings.macs_budget, middle)
            print(f"\n### {name}, {settings.macs_budget:.0%} of the MACs: uniform pruning {100 * uniform:.1f} %\n")
            print("| | masks: best seen | played | within | at the budget: best seen | played |")
            print("|---|---|---|---|---|---|")
            for agent in settings.agents:
                cells = []
                for fill in (False, True):
                    work = partial(one_run, name, settings.macs_budget, agent, fill, settings.evaluations)
                    seen, played, within = np.array(list(pool.map(work, seeds))).T
                    cells += [told(seen), told(played), *([f"{within.mean():.0%}"] * (not fill))]
                print(f"| `{agent}` | {' | '.join(cells)} |", flush=True)


def one_run(
    surrogate: str, budget: float, agent: str, fill: bool, evaluations: int, seed: int
) -> tuple[float, float, float]:
    """Accuracies of what was best and of what is played in the end; the share of evaluations within the budget."""
    env_of = partial(
        dsfp_env.parallel_env,
        surrogate,
        backend="surrogate",
        reward="budget",
        macs_budget=budget,
        fill_budget=fill,
    )
    env, team, history = held_contest(agent, env_of, evaluations, seed)
    within = [next(iter(one.infos.values()))["relative_macs"] <= budget for one in history]
    best, played = agents.best(history).ratios, agents.play(env, team).ratios
    return accuracy(surrogate, budget, best), accuracy(surrogate, budget, played), float(np.mean(within))


def accuracy(surrogate: str, budget: float, ratios: dict[str, float]) -> float:
    """Of ratios brought to the budget, as the model expects it."""
    filled = judge(surrogate, budget).filled(ratios)
    return float(dsfp_env.load_surrogate(surrogate).query(np.array([list(filled.values())])).accuracy[0])


@cache
def judge(surrogate: str, budget: float) -> dsfp_env.AtBudget:
    """It brings ratios to the budget."""
    return dsfp_env.AtBudget(dsfp_env.SurrogateEvaluator(dsfp_env.load_surrogate(surrogate)), budget)


def told(values: np.ndarray) -> str:
    """Percent, with an interval."""
    middle, low, high = interval(100 * values, statistic=mean, rng=np.random.default_rng(0))
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
