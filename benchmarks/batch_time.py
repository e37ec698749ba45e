"""What choosing k joint actions at a time wins in time: the same learner, live, with k = 1 and more, in turn.

    python benchmarks/batch_time.py [--quick]

Every round trains a fresh team with every k, on networks that are really pruned, distilled and measured; nothing
is taken from a store. k = 1 measures in this process, as `agents.train` does; more are measured by the workers.
Each way's speed-up over k = 1 in the same round: least, median and greatest.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace

import torch
import tyro

import agents
import dsfp_env
from agents.registry import choose_agent
from dsfp_env.evaluation.workers import available_cores


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    agent: str = "q_learning"
    """The learner."""
    batches: tuple[int, ...] = (1, 2, 4, 16)
    """Joint actions at a time; the first is what the others are compared with."""
    evaluations: int = 48
    """Of each run."""
    rounds: int = 5
    """In turn."""
    workers: int = available_cores()
    """Processes that measure."""
    quick: bool = False
    """One round of 8 evaluations, with the first two batches."""


def main() -> None:
    """Measure, print."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.quick:
        settings = replace(settings, batches=settings.batches[:2], evaluations=8, rounds=1)
    evaluations, rounds = settings.evaluations, settings.rounds
    torch.set_num_threads(1)
    task = dsfp_env.load_task("digits", device="cpu")
    evaluators = {k: dsfp_env.Evaluator(task, store=False) for k in settings.batches}
    times: dict[int, list[float]] = {k: [] for k in settings.batches}
    for number in range(rounds + 1):  # the first warms up, and starts the workers
        for k in settings.batches if number % 2 else settings.batches[::-1]:
            seconds = run(evaluators[k], settings, k, evaluations, seed=number)
            if number:
                times[k].append(seconds)
    print(f"{settings.agent}, {evaluations} evaluations, {settings.workers} workers, {rounds} rounds in turn")
    for k, taken in times.items():
        ratios = [one / many for one, many in zip(times[settings.batches[0]], taken, strict=True)]
        spread = " / ".join(f"{value:.2f}" for value in (min(ratios), statistics.median(ratios), max(ratios)))
        print(f"k = {k:3}: {1e3 * statistics.median(taken) / evaluations:6.0f} ms an evaluation; {spread}")


def run(evaluator: dsfp_env.Evaluator, settings: Settings, batch: int, evaluations: int, seed: int) -> float:
    """Seconds of one training; a seed of its own, so that nothing is known from the round before."""
    entry = choose_agent(settings.agent)
    env = dsfp_env.parallel_env(evaluator=evaluator, actions=entry.actions)
    team = entry.make(env, seed, evaluations)
    start = time.perf_counter()
    agents.train(env, team, evaluations, batch=batch, workers=settings.workers, seed=seed)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
