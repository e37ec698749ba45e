"""What it costs to choose k joint actions before learning from them, and what it wins: exact regrets on tables.

    python benchmarks/batches.py --out runs/batches

Every learner that is quick itself, with every k in `BATCHES`, on every table that comes with the package and both
default rewards; a leaderboard (`agents.leaderboard`) for each table, so what was stopped goes on. In Markdown, for
each table and reward:

- **At equal evaluations**: the mean normalised regret of the best joint action after all of them, and by how much
  that is more than with k = 1, with its 95 % interval over seeds (pairs of runs of one seed).
- **At equal time**, if k are evaluated in the time of one: rounds until the mean regret is below a bound.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import dsfp_env
from agents.leaderboard import runs as leaderboard
from agents.leaderboard.boards import TableBoard
from agents.leaderboard.forms import parse_form
from agents.leaderboard.regret import after_each, bands
from agents.registry import AGENTS, in_batches
from agents.reporting.markdown_tables import markdown_table
from agents.reporting.seeds import parse_seeds
from dsfp_env.common import command_line
from dsfp_env.common.saying import say
from dsfp_env.evaluation.workers import available_cores

REWARDS = {"small-vgg-16px": ("accuracy_x_saving", "budget(macs_budget=0.3)")}  # no joint action meets 0.1 there


@dataclass(frozen=True)
class Settings:
    """On which tables, and how often."""

    tables: tuple[str, ...] = ("digits", "small-vgg-16px")
    """As for the leaderboard."""
    batches: tuple[int, ...] = (1, 4, 16, 64)
    """Joint actions at once; the first is what the others are compared with."""
    seeds: str = "0-29"
    """For example 0-29 or 0,3,7."""
    evaluations: int = 300
    """Of each run."""
    bound: float = 0.05
    """Normalised regret that counts as found, for the number of rounds."""
    workers: int = available_cores()
    """Processes. Results do not depend on it."""
    out: str = "runs/batches"
    """The folder; what it holds is not made again."""


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(Settings, compare, __doc__)


def compare(settings: Settings) -> None:
    """Make the runs that are left, then print the tables."""
    learners = [name for name, entry in AGENTS.items() if not entry.slow]
    parts = []
    for name in settings.tables:
        asked = leaderboard.LeaderboardSettings(
            agents=tuple(in_batches(one, batch) for one in learners for batch in settings.batches),
            table=name,
            rewards=REWARDS.get(name, leaderboard.FORMS),
            seeds=settings.seeds,
            evaluations=settings.evaluations,
            workers=settings.workers,
            out=str(Path(settings.out) / name),
        )
        leaderboard.leaderboard(asked)
        parts += [table_of(asked, form["reward"], learners, settings) for form in board(asked)["forms"]]
    say("\n\n".join(parts))


def board(asked: leaderboard.LeaderboardSettings) -> dict[str, Any]:
    """What a leaderboard has written."""
    return json.loads((Path(asked.out) / leaderboard.BOARD).read_text())


def table_of(
    asked: leaderboard.LeaderboardSettings, reward: str, learners: Sequence[str], settings: Settings
) -> str:
    """Markdown, a row for each learner."""
    names = [f"k = {batch}" for batch in settings.batches]
    rows = {}
    for learner in learners:
        curves = [curves_of(asked, reward, in_batches(learner, batch)) for batch in settings.batches]
        if all(curve is not None for curve in curves):
            rows[learner] = row_of([curve for curve in curves if curve is not None], settings)
    heading = ["", *names, *(f"rounds, {name}" for name in names)]
    lines = [[learner, *cells] for learner, cells in rows.items()]
    return f"### {asked.table}, {reward}\n\n{markdown_table(heading, lines)}"


def row_of(curves: Sequence[np.ndarray], settings: Settings) -> list[str]:
    """The cells of one learner.

    Args:
        curves: For each k, the regret of the best so far ``[seeds, evaluations]``.
        settings: The bound and what k are.
    """
    first, cells = curves[0][:, -1:], [f"{curves[0][:, -1].mean():.3f}"]
    for curve in curves[1:]:
        more, low, high = (float(one[0]) for one in bands(curve[:, -1:] - first))
        cells.append(f"{curve[:, -1].mean():.3f} ({more:+.3f} [{low:+.3f}, {high:+.3f}])")
    return cells + [
        rounds_to(curve, batch, settings.bound) for curve, batch in zip(curves, settings.batches, strict=True)
    ]


def rounds_to(curve: np.ndarray, batch: int, bound: float) -> str:
    """Batches until the mean regret is at most the bound; a dash if it never is."""
    below = np.flatnonzero(curve.mean(0) <= bound)
    return str(-(-int(below[0] + 1) // batch)) if len(below) else "-"


def curves_of(asked: leaderboard.LeaderboardSettings, reward: str, contestant: str) -> np.ndarray | None:
    """The regret of the best so far ``[seeds, evaluations]``; None if the learner could not be run here."""
    board, form = TableBoard(dsfp_env.load_table(asked.table)), parse_form(reward)
    known = leaderboard.runs_in(leaderboard.piece(Path(asked.out), form, contestant), board)
    if not known:
        return None
    runs = [known[seed] for seed in parse_seeds(asked.seeds)]
    curves = [after_each(board.regrets(form, run).best, run["evaluations"], asked.evaluations) for run in runs]
    return np.array(curves)


if __name__ == "__main__":
    sys.exit(main())
