"""How regret grows with the number of agents: a picture of leaderboards, one for each network.

    python -m agents.leaderboard --table digits --seeds 0-19 --rewards accuracy_x_saving --out runs/4
    python -m agents.leaderboard --surrogate resnet20 --seeds 0-19 --rewards accuracy_x_saving --out runs/19
    python benchmarks/regret_by_agents.py runs/4 runs/19 --out docs/regret.png

Normalised regret (0: the best joint action known, 1: one drawn at random) of the best joint action that was seen,
and of the one that is played in the end, after all evaluations; means over seeds with 95 % bootstrap intervals.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import tyro

WHAT = {"best": "best seen", "greedy": "played in the end"}


@dataclass(frozen=True)
class Settings:
    """What is drawn."""

    boards: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of leaderboards with the same reward."""
    agents: tuple[str, ...] = (
        "random_search",
        "uniform",
        "q_learning",
        "regression_bandit",
        "linucb",
        "gp_search",
    )
    """Learners, as the leaderboards name them."""
    out: Path = Path("regret.png")
    """The picture."""


def main() -> None:
    """Draw, and print what is drawn."""
    settings = tyro.cli(Settings, description=__doc__)
    boards = sorted((read(folder) for folder in settings.boards), key=number_of_agents)
    counts = [number_of_agents(board) for board in boards]
    figure, axes = plt.subplots(1, len(WHAT), figsize=(10, 3.4), sharey=True, layout="constrained")
    for axis, (what, title) in zip(axes, WHAT.items(), strict=True):
        for agent in settings.agents:
            rows = [interval(board, agent, what) for board in boards]
            print(
                f"{title}, {agent}: "
                + ", ".join(f"{n}: {row[0]:.3f}" for n, row in zip(counts, rows, strict=True))
            )
            means, lows, highs = zip(*rows, strict=True)
            below = [mean - low for mean, low in zip(means, lows, strict=True)]
            above = [high - mean for mean, high in zip(means, highs, strict=True)]
            axis.errorbar(counts, means, (below, above), marker="o", capsize=3, label=short(agent))
        axis.set(title=title, xlabel="agents", xticks=counts)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("normalised regret")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(settings.out, dpi=110)


def short(agent: str) -> str:
    """A learner's name, with its options if they are few."""
    return agent if agent.count("=") < 3 else f"{agent.partition('(')[0]}(...)"


def read(folder: Path) -> dict[str, Any]:
    """What a leaderboard found."""
    found: dict[str, Any] = json.loads((folder / "leaderboard.json").read_text())
    return found


def number_of_agents(board: dict[str, Any]) -> int:
    """Of the network that it is about."""
    return len(board["forms"][0]["optima"][0]["ratios"])


def interval(board: dict[str, Any], agent: str, what: str) -> tuple[float, float, float]:
    """Mean regret of a learner after all evaluations, and the ends of its interval."""
    (row,) = (one for one in board["forms"][0]["learners"] if one["agent"] == agent)
    ends = [row[what][name] for name in ("mean", "low", "high")]
    mean, low, high = (end[-1] if isinstance(end, list) else end for end in ends)
    return mean, low, high


if __name__ == "__main__":
    main()
