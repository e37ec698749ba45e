"""What a table says about its network: where the optima are, what equal MACs are worth, how hard the game is.

    python benchmarks/landscape.py --table digits

Everything is exact but for the noise of the fine-tuning seeds: all joint actions are looked up, none is sampled.
Scores are means over the seeds of the table, on the validation split unless it says test. In Markdown:

- **Optima** of several rewards, beside uniform pruning with the best reward.
- **Equal MACs**: the share of joint actions with MACs within 5 % of uniform pruning's that are more accurate, and
  the most accurate one with at most its MACs.
- **The game**: a joint action is an *equilibrium* if no agent alone can improve the score by another level (a pure
  Nash equilibrium of the common reward); learners who change one ratio at a time stop there.
- **Parts of the variance** of the score over all joint actions (functional ANOVA, exact on a full table): what
  each agent's level explains by itself, all of these together (what an additive model, as of value decomposition,
  can know), and pairs of agents besides.
- **Ranking**: Spearman's correlation of one measurement's accuracies with the mean over the *other* seeds after
  distillation, on the test split: over all joint actions, and at equal MACs (bands of 5 % to either side).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import dsfp_env
from agents.reporting.markdown_tables import markdown_table
from dsfp_env.common import command_line


@dataclass(frozen=True)
class Settings:
    """Which table, and what is asked of it."""

    table: str = "digits"
    """One that comes with the package, or the folder of another."""
    budgets: tuple[float, ...] = (0.3, 0.2, 0.1, 0.05)
    """Relative MACs, for the reward budget and for the bands of equal MACs."""
    width: float = 0.05
    """A band reaches so far to either side of its middle, as a share of it."""


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(Settings, describe, __doc__)


def describe(settings: Settings) -> None:
    """Print all of it."""
    table = dsfp_env.load_table(settings.table)
    whole = table.original("test")
    print(f"{table}: original network {whole.accuracy:.1%} test accuracy, {whole.macs:,} MACs\n")
    rewards: list[dict[str, Any]] = [{"reward": "accuracy_x_saving"}]
    rewards += [{"reward": "budget", "macs_budget": budget} for budget in settings.budgets]
    for title, rows in (
        ("Optima", optima(table, rewards)),
        ("Equal MACs", equal_macs(table, settings.width)),
        ("The game", game(table, rewards)),
        ("Ranking", ranking(table, settings)),
    ):
        print(f"## {title}\n\n{markdown_table(list(rows[0]), [list(row.values()) for row in rows])}\n")


def optima(table: dsfp_env.Table, rewards: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The best joint action of each reward, and the best uniform one."""
    lines = []
    for reward in rewards:
        scores = table.scores(**reward)
        for name, rows in (("optimum", np.arange(len(table))), ("uniform", uniform(table))):
            row = int(rows[np.argmax(scores[rows])])
            answer = table.query(table.levels_of([row]))
            lines.append(
                {
                    "reward": written(reward),
                    "": name,
                    "ratios, %": ratios(table, row),
                    "score": f"{scores[row]:.4f}",
                    "validation": f"{answer.accuracy[0]:.1%}",
                    "test": f"{table.accuracies(split='test')[row]:.1%}",
                    "MACs": f"{answer.relative_macs[0]:.1%}",
                }
            )
    return lines


def equal_macs(table: dsfp_env.Table, width: float) -> list[dict[str, str]]:
    """Uniform pruning, level by level, beside the others of its size."""
    known = table.query(table.levels_of(np.arange(len(table))))
    test = table.accuracies(split="test")
    lines = []
    for row in uniform(table):
        macs = known.relative_macs[row]
        alike = np.abs(known.relative_macs / macs - 1) <= width
        better = known.accuracy[alike] > known.accuracy[row]
        within = np.flatnonzero(known.macs <= known.macs[row])
        best = int(within[np.argmax(known.accuracy[within])])
        lines.append(
            {
                "uniform, %": f"{table.ratios_of(row)[table.agents[0]]:.0f}",
                "MACs": f"{macs:.1%}",
                "validation": f"{known.accuracy[row]:.1%}",
                "test": f"{test[row]:.1%}",
                "better at equal MACs": f"{better.mean():.0%} of {alike.sum()}",
                "best with at most its MACs": ratios(table, best),
                "its validation": f"{known.accuracy[best]:.1%}",
                "its test": f"{test[best]:.1%}",
            }
        )
    return lines


def game(table: dsfp_env.Table, rewards: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """How hard it is to find the optimum."""
    lines = []
    for reward in rewards:
        scores = table.scores(**reward).reshape((len(table.levels),) * len(table.agents))
        stable = equilibria(scores)
        parts = explained(scores)
        alone = {agent: parts[(place,)] for place, agent in enumerate(table.agents)}
        pairs = sum(part for agents, part in parts.items() if len(agents) == 2)
        lines.append(
            {
                "reward": written(reward),
                "equilibria": str(int(stable.sum())),
                "scores of equilibria": f"{scores[stable].min():.4f} to {scores[stable].max():.4f}",
                "within 0.01 of the optimum": f"{(scores >= scores.max() - 0.01).sum()} of {scores.size}",
                **{f"{agent}": f"{part:.1%}" for agent, part in alone.items()},
                "alone, together": f"{sum(alone.values()):.1%}",
                "pairs": f"{pairs:.1%}",
            }
        )
    return lines


def ranking(table: dsfp_env.Table, settings: Settings) -> list[dict[str, str]]:
    """How well one measurement ranks joint actions as the other seeds do after distillation."""
    macs = table.query(table.levels_of(np.arange(len(table)))).relative_macs
    groups = {"all": np.ones(len(table), bool)}
    for budget in settings.budgets:
        groups[f"MACs {budget:.0%}"] = np.abs(macs / budget - 1) <= settings.width
    groups = {name: group for name, group in groups.items() if group.sum() > 2}
    predictors: dict[str, Any] = {
        "MACs": lambda seed: macs,
        "recalibrated": lambda seed: table.accuracies(seed, fidelity="recalibrated"),
        "distilled, one seed": lambda seed: table.accuracies(seed),
    }
    lines = []
    for name, predictor in predictors.items():
        line = {"": name}
        for title, group in groups.items():
            found = [
                spearmanr(predictor(seed)[group], others(table, seed)[group]).statistic for seed in table.seeds
            ]
            line[f"{title} ({group.sum()})"] = f"{np.mean(found):.2f}"
        lines.append(line)
    return lines


def others(table: dsfp_env.Table, seed: int) -> np.ndarray:
    """Test accuracies after distillation, mean over all seeds but one; of that one, if there is no other."""
    rest = [one for one in table.seeds if one != seed] or [seed]
    return np.mean([table.accuracies(one, "test") for one in rest], axis=0)


def equilibria(scores: np.ndarray) -> np.ndarray:
    """Where no agent alone can improve, ``[levels, ...]`` bool; an axis for each agent."""
    best = [scores == scores.max(agent, keepdims=True) for agent in range(scores.ndim)]
    stable: np.ndarray = np.logical_and.reduce(best)
    return stable


def explained(scores: np.ndarray) -> dict[tuple[int, ...], float]:
    """Parts of the variance that agents, and pairs of agents, explain; an axis for each agent."""
    agents = range(scores.ndim)
    effects: dict[tuple[int, ...], np.ndarray] = {(): scores.mean(keepdims=True)}
    for size in (1, 2):
        for some in combinations(agents, size):
            rest = tuple(agent for agent in agents if agent not in some)
            smaller = [effect for part, effect in effects.items() if set(part) < set(some)]
            effects[some] = scores.mean(rest, keepdims=True) - sum(smaller)
    return {some: float((effect**2).mean() / scores.var()) for some, effect in effects.items() if some}


def uniform(table: dsfp_env.Table) -> np.ndarray:
    """The rows in which all levels are equal."""
    return table.rows(np.repeat(np.arange(len(table.levels))[:, None], len(table.agents), axis=1))


def ratios(table: dsfp_env.Table, row: int) -> str:
    """As they are written in tables."""
    return " ".join(f"{ratio:.0f}" for ratio in table.ratios_of(row).values())


def written(reward: Mapping[str, Any]) -> str:
    """A reward's name, with its budget."""
    budget = reward.get("macs_budget")
    return reward["reward"] if budget is None else f"{reward['reward']}, {budget:.0%}"


if __name__ == "__main__":
    sys.exit(main())
