"""Deciding in turn against choosing at once: exact regrets on a table, and how long a turn takes.

    python benchmarks/turns.py --evaluations 300 --out runs/turns-300

Learners that choose at once beside those that do the same in turn, in a leaderboard (`agents.leaderboard`), so
what was stopped goes on. In Markdown, for each reward: by how much the normalised regret is more in turn, of the
best joint action after 30, 100, 300 and 1000 evaluations, and of the one that is played in the end; with its 95 %
interval over seeds (pairs of runs of one seed).

Then turns a second, of episodes of one round: of the environment in which agents take turns, of PettingZoo's
`parallel_to_aec` of the parallel one (where they choose at once, one call after another), and of the Gymnasium
one. One after another in every round; the round with the least time of the processor counts.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pettingzoo import AECEnv
from pettingzoo.utils import parallel_to_aec

import dsfp_env
from agents.leaderboard import runs as leaderboard
from agents.leaderboard.boards import TableBoard
from agents.leaderboard.forms import parse_form
from agents.leaderboard.regret import after_each, bands
from dsfp_env.common import command_line
from dsfp_env.common.saying import say
from dsfp_env.evaluation.workers import available_cores
from dsfp_env.wrappers import LayerByLayerEnv

IN_TURN = {  # who chooses at once -> the same in turn
    "ppo": "ppo(view=in_turn)",
    "maskable_ppo": "maskable_ppo(view=in_turn)",
    "maskable_ppo(view=joint)": "maskable_ppo(view=in_turn)",
    "q_learning": "sequential_q_learning",
}
MARKS = (30, 100, 300, 1000)  # evaluations
EPISODES = 50  # of a round


@dataclass(frozen=True)
class Settings:
    """Who is compared, and how often."""

    at_once: tuple[str, ...] = tuple(IN_TURN)
    """Learners that choose at once, of those in IN_TURN."""
    seeds: str = "0-99"
    """For example 0-99 or 0,3,7."""
    slow_seeds: int = 10
    """Learners that are slow themselves take only so many of them."""
    evaluations: int = 300
    """Of each run."""
    workers: int = available_cores()
    """Processes. Regrets do not depend on it."""
    out: str = "runs/turns-300"
    """The folder; what it holds is not made again."""
    rounds: int = 20
    """In which times are taken."""


def main() -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(Settings, compare, __doc__)


def compare(settings: Settings) -> None:
    """Make the runs that are left, then print the tables."""
    pairs = {one: IN_TURN[one] for one in settings.at_once}
    asked = leaderboard.LeaderboardSettings(
        agents=tuple(dict.fromkeys([*pairs, *pairs.values()])),
        seeds=settings.seeds,
        slow_seeds=settings.slow_seeds,
        evaluations=settings.evaluations,
        workers=settings.workers,
        out=settings.out,
    )
    leaderboard.leaderboard(asked)
    for reward in asked.rewards:
        say(f"\n### {reward}\n\n{differences(asked, reward, pairs)}")
    say(f"\n{speed(settings.rounds)}")


def differences(asked: leaderboard.LeaderboardSettings, reward: str, pairs: dict[str, str]) -> str:
    """Markdown, a row for each pair."""
    marks = [mark for mark in MARKS if mark <= asked.evaluations]
    rows = [["in turn, less at once", *(f"best, {mark}" for mark in marks), "greedy", "seeds"]]
    for at_once, in_turn in pairs.items():
        first, second = (regrets(asked, reward, one, marks) for one in (at_once, in_turn))
        seeds = sorted(first.keys() & second.keys())
        numbers = zip(*bands(np.array([second[seed] - first[seed] for seed in seeds])), strict=True)
        cells = [f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]" for mean, low, high in numbers]
        rows.append([f"{in_turn}, {at_once}", *cells, str(len(seeds))])
    return table_of(rows)


def regrets(
    asked: leaderboard.LeaderboardSettings, reward: str, contestant: str, marks: list[int]
) -> dict[int, np.ndarray]:
    """Seed -> the regret of the best so far at the marks, and of what is played in the end."""
    board, form = TableBoard(dsfp_env.load_table(asked.table)), parse_form(reward)
    found = {}
    for seed, run in leaderboard.runs_in(leaderboard.piece(Path(asked.out), form, contestant), board).items():
        known = board.regrets(form, run)
        best = after_each(known.best, run["evaluations"], asked.evaluations)
        found[seed] = np.append(best[np.array(marks) - 1], known.greedy)
    return found


def speed(rounds: int) -> str:
    """Markdown: turns a second."""
    torch.set_num_threads(1)
    rows = [["turns a second", "levels", "levels within a budget", "box"]]
    games: list[dict[str, Any]] = [
        {"actions": "levels"},
        {"actions": "levels", "macs_budget": 0.1},
        {"actions": "box"},
    ]
    rates = [rates_of(game, rounds) for game in games]
    rows += [[way, *(f"{one[way]:,.0f}" for one in rates)] for way in rates[0]]
    return table_of(rows)


def rates_of(game: dict[str, Any], rounds: int) -> dict[str, float]:
    """Turns a second of each way, by the processor's time, in the shortest of the rounds after the first."""
    game = {"task": "digits", "backend": "table", **game}
    in_turn, at_once = dsfp_env.raw_env(**game), parallel_to_aec(dsfp_env.parallel_env(**game))
    gymnasium_env = LayerByLayerEnv(**game)
    levels = game["actions"] == "levels"
    ratio, centred = (7 if levels else np.array([one], np.float32) for one in (70, 0.5))
    ways: dict[str, Callable[[], None]] = {
        "`raw_env`": lambda: play(in_turn, ratio),
        "`parallel_to_aec`": lambda: play(at_once, ratio),
        "`LayerByLayerEnv`": lambda: play_gymnasium(gymnasium_env, centred),
    }
    shortest = dict.fromkeys(ways, float("inf"))
    for number in range(rounds + 1):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if number:
                shortest[name] = min(shortest[name], time.process_time() - began)
    return {name: EPISODES * len(in_turn.possible_agents) / seconds for name, seconds in shortest.items()}


def play(env: AECEnv[str, Any, Any], action: Any) -> None:
    """Episodes, as PettingZoo's documentation plays them."""
    for _ in range(EPISODES):
        env.reset()
        for _ in env.agent_iter():
            _, _, terminated, _, _ = env.last()
            env.step(None if terminated else action)


def play_gymnasium(env: LayerByLayerEnv, action: Any) -> None:
    """Episodes."""
    for _ in range(EPISODES):
        env.reset()
        terminated = False
        while not terminated:
            _, _, terminated, _, _ = env.step(action)


def table_of(rows: list[list[str]]) -> str:
    """Markdown; the first row is the head."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
