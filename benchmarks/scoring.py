"""What do scores cost, and how well do the cheap ones rank? Exact output KL, its approximation, Grad and Taylor.

    python benchmarks/scoring.py --quick
    python benchmarks/scoring.py --task imagefolder:PATH --network resnet20 --weights FILE

Times of the short computations are medians of interleaved rounds; the exact scores may take minutes, and run once.
Units: a forward pass of the same images in float32, and a training step (forward, backward, SGD) of one batch.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import tyro
from scipy.stats import spearmanr
from torch.nn import functional as F

import dsfp_env
from agents.reporting.markdown_tables import markdown_table
from dsfp_env.criteria.criterion import Evidence, Scores
from dsfp_env.criteria.divergences import fisher_kl, output_kl
from dsfp_env.criteria.gradients import mean_gradient, of_gradients, summed_effect
from dsfp_env.training.accuracy import compute_logits

EXACT, COARSE, FISHER, BOTH = "exact, float32", "exact, bfloat16", "Fisher", "Grad and Taylor"


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    task: str = "digits"
    """As for train_agents.py."""
    network: str | None = None
    """Of an image folder."""
    weights: str | None = None
    """Of the original network."""
    images: int = 256
    """Training images that scores are computed from; rounded down to whole batches."""
    batch_size: int = 128
    """Of a training step, and of the passes of Fisher, Grad and Taylor."""
    rounds: int = 5
    """Of the short computations."""
    threads: int = 1
    """CPU threads."""
    quick: bool = False
    """A small run: one batch, two rounds."""


def main() -> None:
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(settings.threads)
    options = {name: value for name in ("network", "weights") if (value := getattr(settings, name))}
    task = dsfp_env.load_task(settings.task, **options)
    batches = 1 if settings.quick else max(1, settings.images // settings.batch_size)
    evidence = find_evidence(task, batches, settings.batch_size)
    seconds, scores = measure(evidence, rounds=2 if settings.quick else settings.rounds)
    num_images = sum(len(batch.labels) for batch in evidence.batches)
    num_filters = sum(layer.out_channels for layer in task.graph.layers.values())
    print(f"{task.name}: {num_filters} filters, {num_images} images, {settings.threads} thread(s)\n")
    print(costs(seconds), end="\n\n")
    print(agreement(scores))


def find_evidence(task: dsfp_env.Task, num_batches: int, batch_size: int) -> Evidence:
    """What a criterion of the task looks at."""
    found: list[Evidence] = []

    def look(evidence: Evidence) -> Scores:
        found.append(evidence)
        return {path: torch.zeros(layer.out_channels) for path, layer in evidence.layers.items()}

    dsfp_env.score_filters(task, look, num_batches=num_batches, batch_size=batch_size)
    return found[0]


def measure(evidence: Evidence, rounds: int) -> tuple[dict[str, float], dict[str, Scores]]:
    """Seconds and scores by name; two of the names are units and have no scores."""
    images = torch.cat([batch.images for batch in evidence.batches])
    student = copy.deepcopy(evidence.network).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.0, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(student(evidence.batches[0].images), evidence.batches[0].labels).backward()
        optimizer.step()

    short: dict[str, Callable[[], object]] = {
        "forward pass": lambda: compute_logits(evidence.network, images, len(evidence.batches[0].labels)),
        "training step": step,
        FISHER: lambda: fisher_kl(evidence),
        BOTH: lambda: of_gradients(evidence, mean_gradient, summed_effect),
    }
    long = {
        EXACT: lambda: output_kl(evidence, num_images=len(images)),
        COARSE: lambda: output_kl(evidence, num_images=len(images), precision="bfloat16"),
    }
    answers = {name: function() for name, function in short.items()}  # warm
    times: dict[str, list[float]] = {name: [] for name in short}
    for _ in range(rounds):
        for name, function in short.items():
            times[name].append(timed(function)[0])
    seconds = {name: statistics.median(column) for name, column in times.items()}
    for name, function in long.items():
        seconds[name], answers[name] = timed(function)
    gradients, effects = answers.pop(BOTH)
    scores = {EXACT: answers[EXACT], COARSE: answers[COARSE], FISHER: answers[FISHER]}
    return seconds, {**scores, "Taylor": effects, "Grad": gradients}


def timed(function: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    answer = function()
    return time.perf_counter() - start, answer


def costs(seconds: dict[str, float]) -> str:
    """Markdown: what each took, in seconds and in both units."""
    rows = ["| | seconds | forward passes | training steps |", "|---|---|---|---|"]
    for name, took in seconds.items():
        passes, steps = took / seconds["forward pass"], took / seconds["training step"]
        rows.append(f"| {name} | {took:.3g} | {passes:.1f} | {steps:.1f} |")
    return "\n".join(rows)


def agreement(scores: dict[str, Scores]) -> str:
    """Markdown: Spearman correlation with the exact scores by layer, and mean and least of the layers."""
    others = [name for name in scores if name != EXACT]
    by_layer = {
        path: [float(spearmanr(scores[name][path], exact)[0]) for name in others]
        for path, exact in scores[EXACT].items()
        if len(exact) > 1
    }
    columns = list(zip(*by_layer.values(), strict=True))
    by_layer["**mean**"] = [statistics.fmean(column) for column in columns]
    by_layer["**least**"] = [min(column) for column in columns]
    rows = [[path, *(f"{value:.3f}" for value in row)] for path, row in by_layer.items()]
    return markdown_table([f"Spearman with {EXACT}", *others], rows)


if __name__ == "__main__":
    main()
