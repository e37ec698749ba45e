"""Many evaluations at once, against one after another.

    python benchmarks/many.py [--quick]

Interleaved rounds in one run: each evaluates the same random plans one after another in this process, then with
workers, then looks them up on disk. The outcomes are compared, all of them. The workers are warm; what it takes to
start them is told apart, and so is their memory: PSS, which counts a page that several processes share in parts.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro

import dsfp_env
from agents.reporting.baselines import random_plans


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    task: str = "digits"
    """Any task."""
    workers: int = 2
    """How many."""
    plans: int = 40
    """Evaluations in a round, each way."""
    rounds: int = 9
    """How many."""
    quick: bool = False
    """Three rounds of 10 plans."""


def main() -> None:
    """Measure, compare, print."""
    settings = tyro.cli(Settings, description=__doc__)
    rounds, number = (3, 10) if settings.quick else (settings.rounds, settings.plans)
    torch.set_num_threads(1)
    task = dsfp_env.load_task(settings.task, device="cpu")
    fingerprint, _ = timed(lambda: task.fingerprint)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["DSFP_ENV_CACHE"] = cache
        one, store = dsfp_env.Evaluator(task, store=False), dsfp_env.Evaluator(task)
        with dsfp_env.Evaluator(task) as many:
            rng = np.random.default_rng(0)
            some = random_plans(one, settings.workers, "box", rng)
            alone, _ = timed(one.evaluate_many, some, 99, 1)
            start, _ = timed(many.evaluate_many, some, 99, settings.workers)
            times = []
            for seed in range(rounds):
                plans = random_plans(one, number, "box", rng)
                first, expected = timed(one.evaluate_many, plans, seed, 1)
                second, outcomes = timed(many.evaluate_many, plans, seed, settings.workers)
                third, found = timed(store.evaluate_many, plans, seed, 1)
                assert outcomes == found == expected
                times.append((first, second, third))
            memory = [memory_of(child.pid) for child in multiprocessing.active_children()]
    print(f"{settings.task}: {rounds} rounds of {number} plans; all outcomes equal")
    print(f"one after another:  {spread([number / first for first, _, _ in times])} evaluations a second")
    print(f"{settings.workers} workers:          {spread([number / second for _, second, _ in times])}")
    print(f"ratio:              {spread([first / second for first, second, _ in times])}")
    print(f"found on disk:      {spread([1e3 * third / number for _, _, third in times])} ms each")
    print(f"fingerprint of the task: {1e3 * fingerprint:.0f} ms")
    print(f"starting the workers: {start - alone / settings.workers:.1f} s")
    print(f"memory of this process: {memory_of(os.getpid())}; of each worker: {'; '.join(memory)}")


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds, and the result."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def spread(values: list[float]) -> str:
    """Least, median and greatest."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


def memory_of(process: int) -> str:
    """MB: PSS, and what no other process shares."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return f"{sizes['Pss']:.0f} MB (private {sizes['Private_Clean'] + sizes['Private_Dirty']:.0f})"


if __name__ == "__main__":
    main()
