"""How the time of a step grows: with filters kept, batches of distillation, layers, and the size of images.

    python benchmarks/growth.py --out docs/growth.png

Random images and untrained networks for CIFAR-10, 20 batches of 128 and 2,000 validation images unless varied. All
points are measured in every round, one after the other; the median over the rounds is drawn.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from step import random_task, ready_step, seconds  # the benchmark beside this one

from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity


@dataclass(frozen=True)
class Settings:
    """What is measured, and where the picture goes."""

    out: Path = Path("growth.png")
    """The picture."""
    rounds: int = 3
    """After one that is not counted."""
    threads: int = 0
    """Of the CPU; 0: all."""
    validation: int = 2000
    """Images."""
    quick: bool = False
    """A few points of small networks, to see that all of it works."""


class Point(NamedTuple):
    """One measurement."""

    x: float
    ready: Callable[[], Callable[[], object]]  # what is timed, made ready


Curves = dict[str, dict[str, list[Point]]]  # what varies -> network -> points


def main(settings: Settings) -> None:
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    curves = quick_curves(settings) if settings.quick else all_curves(settings)
    points = [point for lines in curves.values() for line in lines.values() for point in line]
    times: list[list[float]] = [[] for _ in points]
    for number in range(settings.rounds + 1):
        for point, column in zip(points, times, strict=True):
            spent = seconds(point.ready())
            if number:
                column.append(spent)
    medians = iter(map(statistics.median, times))
    figure, axes = plt.subplots(1, len(curves), figsize=(3.6 * len(curves), 3.2), constrained_layout=True)
    for axis, (what, lines) in zip(np.atleast_1d(axes), curves.items(), strict=True):
        for name, line in lines.items():
            column = [next(medians) for _ in line]
            print(
                f"{what}, {name}: " + ", ".join(f"{p.x:g}: {y:.2f} s" for p, y in zip(line, column, strict=True))
            )
            axis.plot([point.x for point in line], column, marker="o", label=name)
        axis.set(xlabel=what, ylim=(0, None))
        axis.legend()
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("a step, s")
    figure.savefig(settings.out, dpi=110)
    print(f"written to {settings.out}")


def all_curves(settings: Settings) -> Curves:
    vgg, resnet = (random_task(name, settings.validation) for name in ("vgg16-bn", "resnet20"))
    pair = {"VGG-16-BN": vgg, "ResNet-20": resnet}
    resnets = {f"resnet{layers}": random_task(f"resnet{layers}", settings.validation) for layers in (32, 56)}
    by_layers = {20: resnet, 32: resnets["resnet32"], 56: resnets["resnet56"]}
    by_size = {32: resnet} | {s: random_task("resnet20", settings.validation, size=s) for s in (16, 24, 48, 64)}
    return {
        "filters kept, %": {
            name: [Point(100 - ratio, ready(task, ratio)) for ratio in range(10, 91, 20)]
            for name, task in pair.items()
        },
        "batches": {
            name: [Point(batches, ready(task, batches=batches)) for batches in (0, 10, 20, 40)]
            for name, task in pair.items()
        },
        "layers": {"ResNet": [Point(layers, ready(task)) for layers, task in by_layers.items()]},
        "image size, pixels": {"ResNet-20": [Point(size, ready(by_size[size])) for size in sorted(by_size)]},
    }


def quick_curves(settings: Settings) -> Curves:
    task = random_task("resnet20", 100, size=16)
    return {"batches": {"ResNet-20": [Point(batches, ready(task, batches=batches)) for batches in (0, 1)]}}


def ready(task: Task, ratio: float = 50, batches: int = 20) -> Callable[[], Callable[[], object]]:
    """Makes an environment that is about to take a step it has not taken before."""
    return partial(ready_step, task, Fidelity(batches=batches), dict.fromkeys(task.agents, ratio))


if __name__ == "__main__":
    main(tyro.cli(Settings))
