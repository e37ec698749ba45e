"""What a Ray cluster costs, and how far one driver carries.

    python benchmarks/cluster.py [--quick] [--only overhead sleeping ...]

A cluster in this machine. Each part alternates between ways in one run:

- overhead: evaluations of the digits in this process, by one worker of a cluster and of this machine, and by two.
- sleeping: the same with work that sleeps, which needs no core: what is left is the way there and back.
- empty: how many jobs that do nothing the driver gets done in a second.
- memory: what a worker has of its own, and what it maps, with images of the size of CIFAR's.
- waiting: what a job that waits costs the driver.
- workers: 10, 100 and 1,000 workers that sleep a second for every job. There is no room for so many processes: a
  few actors stand for them, each of which sleeps for many at once; all that the driver does is as it would be.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import tyro

import dsfp_env
from agents.reporting.baselines import random_plans
from dsfp_env.evaluation.executors import Crew, Executor
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.ray_cluster import Ray
from dsfp_env.evaluation.executors.ray_crew import RayCrew
from dsfp_env.evaluation.executors.ray_worker import Reply
from dsfp_env.evaluation.worker_process import message_of
from dsfp_env.evaluation.workers import Workers

PARTS = ("overhead", "sleeping", "empty", "memory", "waiting", "workers")


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    only: tuple[str, ...] = PARTS
    """Parts."""
    seconds: float = 0.25
    """About how long a job takes, in the parts "overhead" and "sleeping"."""
    rounds: int = 7
    """Of alternating ways."""
    jobs: int = 16
    """In a round of these parts."""
    quick: bool = False
    """Two rounds of few jobs."""


def main() -> None:
    """Measure, print."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    for part in settings.only:
        {
            "overhead": overhead,
            "sleeping": sleeping,
            "empty": empty,
            "memory": memory,
            "waiting": waiting,
            "workers": workers,
        }[part](settings)


def overhead(settings: Settings) -> None:
    """The same evaluations in several ways, in turn."""
    task = dsfp_env.load_task("digits", device="cpu")
    evaluator = dsfp_env.Evaluator(task, store=False)
    plans = random_plans(evaluator, settings.jobs, "box", np.random.default_rng(0))
    evaluator.evaluate(plans[0])
    one = min(timed(evaluator.evaluate, plan) for plan in plans[1:4])
    batches = max(1, round(task.fidelity.batches * settings.seconds / one))
    fidelity = dsfp_env.Fidelity(**{**vars(task.fidelity), "batches": batches})
    evaluator = dsfp_env.Evaluator(task, fidelity=fidelity, store=False)
    measurement = evaluator.measurement
    measurement.prepare()
    questions = [measurement.question(evaluator.keep(plan), 0) for plan in plans]
    print(f"digits, {batches} batches of distillation an evaluation")
    in_turn(settings, measurement.answer, questions)


def sleeping(settings: Settings) -> None:
    """Work that needs no core: what is left is the way there and back."""
    print(f"sleeping {settings.seconds} s")
    in_turn(settings, doze, [settings.seconds] * settings.jobs)


def doze(seconds: float) -> float:
    """Sleep."""
    time.sleep(seconds)
    return seconds


def in_turn(settings: Settings, work: Callable[[Any], Any], jobs: Sequence[Any]) -> None:
    """The same jobs here, by processes and by a cluster, in turn."""
    rounds, jobs = (2, jobs[:4]) if settings.quick else (settings.rounds, jobs)
    expected = [work(job) for job in jobs]
    with begun(Ray(2), work, 1) as cluster_one, begun(Ray(2), work, 2) as cluster_two:
        here_one, here_two = Workers(work, 1), Workers(work, 2)
        ways: dict[str, Callable[[], Any]] = {
            "in this process": lambda: [work(job) for job in jobs],
            "1 process": lambda: answers(here_one, jobs),
            "1 worker of a cluster": lambda: answers(cluster_one, jobs),
            "2 processes": lambda: answers(here_two, jobs),
            "2 workers of a cluster": lambda: answers(cluster_two, jobs),
        }
        for way in ways.values():
            assert way() == expected  # and all are warm
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            names = list(ways) if number % 2 == 0 else list(ways)[::-1]
            for name in names:
                times[name].append(timed(ways[name]))
        here_one.stop()
        here_two.stop()
    print(f"{len(jobs)} jobs a round, {rounds} rounds; all outcomes equal; least, median and greatest speed-up")
    alone = times["in this process"]
    for name, seconds in times.items():
        ratios = [a / b for a, b in zip(alone, seconds, strict=True)]
        print(f"{name:24} {1e3 * statistics.median(seconds) / len(jobs):7.1f} ms each; {spread(ratios)}")


def answers(crew: Crew, questions: Sequence[Any]) -> list[Any]:
    return [future.result() for future in [crew.submit(question) for question in questions]]


def nothing(number: int) -> int:
    """Empty work."""
    return number


def empty(settings: Settings) -> None:
    """Jobs that do nothing."""
    number = 3_000 if settings.quick else 20_000
    with begun(Ray(), nothing) as crew:
        answers(crew, range(200))
        rates = []
        for _ in range(2 if settings.quick else settings.rounds):
            rates.append(number / timed(answers, crew, range(number)))
    print(f"empty work, {os.cpu_count()} cores: {spread(rates, 0)} jobs a second")


class Holder:
    """Work that holds images."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __call__(self, number: int) -> tuple[int, str]:
        """Touch them all; tell what that takes."""
        total = float(self.images.sum())
        time.sleep(0.5)
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
        own = sizes["Private_Clean"] + sizes["Private_Dirty"]
        return os.getpid(), f"RSS {sizes['Rss']:.0f}, PSS {sizes['Pss']:.0f}, its own {own:.0f} MB ({total:.0f})"


def memory(settings: Settings) -> None:
    """What workers take."""
    images = torch.ones(1_000 if settings.quick else 45_000, 3, 32, 32)
    found = dict(answer for _, answer in as_done(Holder(images), dict.fromkeys(range(8), 0), Ray(2)))
    print(f"images of {images.nbytes / 2**20:.0f} MB, {len(found)} workers on a node: {'; '.join(found.values())}")


def waiting(settings: Settings) -> None:
    """Jobs that wait in the driver."""
    number = 10_000 if settings.quick else 200_000
    with begun(Ray(), time.sleep) as crew:
        crew.submit(0).result()
        before = resident()
        futures = [crew.submit(1.0) for _ in range(number)]
        grown = resident() - before
        under_way = len(crew._sender._under_way)
        crew.stop(at_once=True)
    print(f"{number} jobs wait: {1024 * grown / number:.2f} kB each in the driver; {under_way} are in the cluster")
    del futures


def workers(settings: Settings) -> None:
    """Very many, simulated."""
    executor = Ray()
    executor.begin(nothing).stop()  # connects
    for count in (10, 100) if settings.quick else (10, 100, 1_000):
        sleepers = [Sleeper.options(max_concurrency=count).remote() for _ in range(min(4, count))]
        ray.get([sleeper.do.remote([pickle.dumps((1,))]) for sleeper in sleepers])
        turn = iter(range(10**9))

        def send(jobs: list[bytes], sleepers: list[Any] = sleepers, turn: Iterator[int] = turn) -> Any:
            return sleepers[next(turn) % len(sleepers)].do.remote(jobs)

        crew = RayCrew(send, ray.cancel, lambda count=count: count, count)
        number = 5 * count
        seconds = timed(answers, crew, range(number))
        crew.stop()
        print(
            f"{count:5} workers, a second each: {number / seconds:7.1f} evaluations a second, "
            f"{100 * number / seconds / count:.0f} % of what they could do"
        )
        for sleeper in sleepers:
            ray.kill(sleeper)
    executor.stop()


@ray.remote(num_cpus=0)
class Sleeper:
    """Stands for many workers."""

    async def do(self, jobs: list[bytes]) -> Reply:
        """A second for each job."""
        start = time.perf_counter()
        await asyncio.sleep(len(jobs) * 1.0)
        messages = tuple(message_of(nothing, job) for job in jobs)
        return Reply("", "", None, time.perf_counter() - start, messages)


@contextmanager
def begun(executor: Executor, work: Callable[..., Any], count: int | None = None) -> Iterator[Any]:
    """A crew, and its end."""
    crew = executor.begin(work, count)
    try:
        yield crew
    finally:
        crew.stop()
        executor.stop()


def timed(function: Callable[..., Any], *arguments: Any) -> float:
    """Seconds."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def resident() -> float:
    """MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Least, median and greatest."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


if __name__ == "__main__":
    main()
