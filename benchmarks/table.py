"""How many joint actions a second a table answers, beside others that know the same.

    python benchmarks/table.py [--table NAME or FOLDER] [--quick]

First lookups alone: `Table.query` of N joint actions at once, levels as int64 and as int8, beside a plain
dictionary from tuples of levels to the same five numbers, asked one after another. Then the environment:
`TableVectorEnv`, with all infos and with those of the team only, beside Gymnasium's `SyncVectorEnv` of
`JointActionEnv` and a plain loop over `parallel_env`, both of the same table. Actions are levels, drawn before.
Episodes have 4 steps; the steps that reset take time, but are not counted. The peers share one evaluator, which
makes every outcome once. Observations, rewards and answers are compared before times are taken.

Every round runs all ways, one after another, on one core. Rates are medians over rounds; ratios are of one round.
Time is the processor's, so that others who use it count for less.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import tyro
from gymnasium.vector import SyncVectorEnv, VectorEnv

import dsfp_env
from dsfp_env.tables.evaluator import TableEvaluator
from dsfp_env.tables.table import Table
from dsfp_env.wrappers import JointActionEnv, TableVectorEnv

HORIZON = 4
Way = Callable[[], int]  # does some work; how many joint actions it was


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    table: str = "digits"
    """A name, or a folder."""
    rounds: int = 7
    """After one that is not counted."""
    queries: tuple[int, ...] = (1, 1000, 1_000_000)
    """Joint actions at once."""
    num_envs: tuple[int, ...] = (1, 64, 1024, 16384)
    """Environments in a vector."""
    seconds: float = 0.2
    """That each way has, at least, in a round."""
    quick: bool = False
    """Two rounds of little work."""


def main(settings: Settings) -> None:
    if settings.quick:
        settings = Settings(settings.table, 2, (1, 1000), (1, 64), 0.01)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core
    torch.set_num_threads(1)
    table = dsfp_env.load_table(settings.table)
    print(f"{table}; {settings.rounds} rounds; NumPy {np.__version__}\n")
    print(f"joint actions a second, looked up\n\n{head('N')}")
    for number in settings.queries:
        print_row(f"{number:,}", lookups(table, number), settings)
    print(f"\njoint actions a second, in environments\n\n{head('num_envs')}")
    for number in settings.num_envs:
        print_row(f"{number:,}", environments(table, number), settings)


def lookups(table: Table, number: int) -> dict[str, Way]:
    """Ways to look so many joint actions up; the last is the peer."""
    levels = np.random.default_rng(0).integers(len(table.levels), size=(number, len(table.agents)))
    short = levels.astype(np.int8)
    rows = table.levels_of(np.arange(len(table)))
    every = table.query(rows)
    known = dict(
        zip(map(tuple, rows.tolist()), zip(*(column.tolist() for column in every), strict=True), strict=True)
    )
    asked = [tuple(one) for one in levels.tolist()]
    found = table.query(short[:1000])
    assert [known[one] for one in asked[:1000]] == list(zip(*(column.tolist() for column in found), strict=True))

    def query(what: np.ndarray) -> int:
        table.query(what)
        return number

    def look() -> int:
        _ = [known[one] for one in asked]
        return number

    return {"query, int64": lambda: query(levels), "query, int8": lambda: query(short), "dictionary": look}


def environments(table: Table, number: int) -> dict[str, Way]:
    """Ways to step so many environments; the last two are the peers."""
    kwargs: dict[str, Any] = {"evaluator": TableEvaluator(table), "actions": "levels", "horizon": HORIZON}
    ours, lean = TableVectorEnv(number, **kwargs), TableVectorEnv(number, agent_infos=False, **kwargs)
    theirs = SyncVectorEnv([lambda: JointActionEnv(**kwargs)] * number)
    loop = [dsfp_env.parallel_env(**kwargs) for _ in range(number)]
    rng = np.random.default_rng(0)
    shape = (HORIZON, number, len(table.agents))
    actions = rng.integers(len(table.levels), size=shape)
    told = [[dict(zip(table.agents, one, strict=True)) for one in joint] for joint in actions.tolist()]
    compare([ours, lean, theirs], actions)

    def stepped(env: VectorEnv) -> Way:
        env.reset(seed=0)

        def work() -> int:
            for joint in actions:
                env.step(joint)
            env.step(actions[0])  # the next episodes begin
            return HORIZON * number

        return work

    def looped() -> int:
        for env in loop:
            env.reset()
        for joint in told:
            for env, one in zip(loop, joint, strict=True):
                env.step(one)
        return HORIZON * number

    for place, env in enumerate(loop):
        env.reset(seed=place)
    return {
        "TableVectorEnv": stepped(ours),
        "of the team": stepped(lean),
        "SyncVectorEnv": stepped(theirs),
        "parallel_env": looped,
    }


def compare(envs: Sequence[VectorEnv], actions: np.ndarray) -> None:
    """Refuse to time environments that do not do the same."""
    first = copy.deepcopy(envs[0].reset(seed=0)[0])
    assert all((env.reset(seed=0)[0] == first).all() for env in envs)
    for joint in actions:
        expected, *others = (env.step(joint) for env in envs)
        for other in others:
            assert all((one == two).all() for one, two in zip(expected[:4], other[:4], strict=True))


def print_row(name: str, ways: dict[str, Way], settings: Settings) -> None:
    """Time the ways round by round, and print what was found."""
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(settings.rounds + 1):
        for way, work in ways.items():
            rate = rate_of(work, settings.seconds)
            if number:
                rates[way].append(rate)
    ours = next(iter(rates.values()))
    for way, column in rates.items():
        ratios = sorted(a / b for a, b in zip(ours, column, strict=True))
        spread = " / ".join(f"{one:.3g}" for one in (ratios[0], statistics.median(ratios), ratios[-1]))
        print(f"| {name} | {way} | {statistics.median(column):,.0f} | {spread} |", flush=True)


def rate_of(work: Way, least: float) -> float:
    """Joint actions a second, over so many seconds at least."""
    done, start = 0, time.process_time()
    while (spent := time.process_time() - start) < least or not done:
        done += work()
    return done / spent


def head(what: str) -> str:
    ratio = "first way / this: min / median / max"
    return f"| {what} | way | a second, median | {ratio} |\n|---|---|---|---|"


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
