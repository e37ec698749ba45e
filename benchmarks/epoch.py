"""How long an epoch of training takes, in every precision, with the fast ways of a step and without them.

    python benchmarks/epoch.py [--networks vgg16-bn resnet20] [--quick]

The recipe ``fast`` (batches of 128, shifts and mirror images) on random images of CIFAR's size and an untrained
network, which does not matter for times. ``plain`` is autocast to bfloat16 and channels last, as recipes were
before they took the fast ways. Each way's time for 45,000 images, and how many times as fast as ``plain`` it is in
the same round: least, median and greatest.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from unittest import mock

import torch
import tyro
from torch import nn

from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.networks import make_network
from dsfp_env.speed.precision import chosen
from dsfp_env.training import epochs
from dsfp_env.training.recipes import PRETRAINING

WHOLE = 45_000  # images of an epoch


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    networks: tuple[str, ...] = ("vgg16-bn", "resnet20")
    """For CIFAR-10."""
    images: int = 2560
    """Of an epoch here."""
    rounds: int = 5
    """In turn."""
    threads: int = 0
    """Of the CPU; 0: all."""
    quick: bool = False
    """Two rounds of two batches."""


def main() -> None:
    """Measure, print."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.quick:
        settings = replace(settings, networks=("resnet20",), images=256, rounds=2)
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    rng = torch.Generator().manual_seed(0)
    images = LabelledImages(
        torch.randn(settings.images, 3, 32, 32, generator=rng),
        torch.randint(10, (settings.images,), generator=rng),
    )
    auto = chosen("auto", torch.device("cpu"))
    ways = {"plain": ("bfloat16", False), "fast float32": ("fast_float32", True), f"auto, {auto}": (auto, True)}
    for name in settings.networks:
        network = make_network(name, 10)
        times: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(settings.rounds + 1):
            for way, (precision, hastened) in ways.items():
                spent = seconds(network, images, precision, hastened)
                if number:
                    times[way].append(spent * WHOLE / settings.images)
        print(f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads, {settings.rounds} rounds")
        for way, column in times.items():
            first = times[next(iter(ways))]
            ratios = sorted(a / b for a, b in zip(first, column, strict=True))
            spread = " / ".join(f"{ratio:.2f}" for ratio in (ratios[0], statistics.median(ratios), ratios[-1]))
            print(f"{way:22} {statistics.median(column):7.1f} s an epoch; {spread}")


def seconds(network: nn.Module, images: LabelledImages, precision: str, hastened: bool) -> float:
    """Of one epoch."""
    recipe = replace(PRETRAINING["fast"], epochs=1, precision=precision, shift=4, flip=True)
    without = mock.patch.object(epochs, "hastened", return_value=nullcontext())
    with nullcontext() if hastened else without:
        start = time.perf_counter()
        epochs.train(network, images, recipe, seed=0)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
