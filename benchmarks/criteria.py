"""Which filters should go first? Every criterion, at equal ratios, with equal fine-tuning.

    python benchmarks/criteria.py --task digits
    python benchmarks/criteria.py --task imagefolder:PATH --network resnet20 --weights FILE
    python benchmarks/criteria.py --task imagefolder:PATH --network alexnet --weights FILE --criteria dsfp l1

All layers lose the same share of their filters; then accuracy on the test split is measured at once, after
recalibration of the normalisation, after a short distillation, and after a longer one. A seed chooses the images
that the scores are computed from, the batches of both distillations, and what ``random`` takes. Results are
appended to a file, line by line; started again it goes on. Criteria that look at batch normalisation are left out
where there is none.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import dsfp_env
from dsfp_env.common import command_line
from dsfp_env.common.choices import choose
from dsfp_env.criteria.dsfp import SIGNS, fuse, rank, unchanged
from dsfp_env.criteria.scoring import Scores
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.distillation import Fidelity, fine_tune, recalibrate

STAGES = ("one-shot", "recalibrated", "short", "longer")
ALONE = (
    *("taylor", "taylor_activation", "taylor_bn", "fisher", "output_kl"),
    *("l1", "bn_scale", "fpgm", "dcff", "random"),
)
OF_NORMS = ("taylor_bn", "bn_scale")
FUSED = {  # criterion -> divergence, normalisation, end
    "dsfp": ("output_kl", unchanged, "lowest"),
    "dsfp(end=highest)": ("output_kl", unchanged, "highest"),
    "dsfp(kl=fisher)": ("fisher_kl", unchanged, "lowest"),
    "dsfp(kl=activation)": ("activation_kl", unchanged, "lowest"),
    "dsfp(normalisation=rank)": ("output_kl", rank, "lowest"),
}


@dataclass(frozen=True)
class Settings:
    """What is compared, on what."""

    task: str = "digits"
    """As for train_agents.py."""
    network: str | None = None
    """Of an image folder."""
    weights: str | None = None
    """Of the original network."""
    criteria: tuple[str, ...] = (*FUSED, *ALONE)
    """Which are compared."""
    ratios: tuple[int, ...] = (30, 50, 70)
    """Percent of the filters of every layer."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of scores and fine-tuning."""
    short: int = 20
    """Batches of the short distillation."""
    longer: int = 200
    """Batches of the longer one."""
    longer_rate: float | None = None
    """Learning rate of the longer one; the short one's unless given."""
    test_images: int = 100_000
    """How many test images are used, at random, if there are more."""
    out: Path = Path("runs/criteria.jsonl")
    """Where results are appended."""
    threads: int = 1
    """CPU threads."""


def compare(settings: Settings) -> None:
    """Measure what is missing, then print the table."""
    for name in settings.criteria:
        choose("criterion", name, dict.fromkeys((*FUSED, *ALONE)))
    torch.set_num_threads(settings.threads)
    options = {name: value for name in ("network", "weights") if (value := getattr(settings, name))}
    task = dsfp_env.load_task(settings.task, **options)
    names = [name for name in settings.criteria if task.graph.norms or name not in OF_NORMS]
    rng = torch.Generator().manual_seed(1)  # the files of an image tree are sorted by class
    some = torch.randperm(len(task.test.labels), generator=rng)[: settings.test_images]
    test = LabelledImages(task.test.images[some], task.test.labels[some])
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in settings.out.read_text().splitlines()] if settings.out.exists() else []
    done = {(line["criterion"], line["ratio"], line["seed"]) for line in lines}
    for seed in settings.seeds:
        missing = [(name, ratio) for ratio in settings.ratios for name in names if (name, ratio, seed) not in done]
        scores = all_scores(task, names, seed) if missing else {}
        for name, ratio in missing:
            line = measure(task, test, scores[name], ratio, seed, settings)
            lines.append({"criterion": name, "ratio": ratio, "seed": seed, **line})
            print(lines[-1], file=sys.stderr, flush=True)
            with open(settings.out, "a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    print(f"original: {100 * measure_accuracy(task.network, test):.1f} % of {len(test.labels)} test images\n")
    print(table(lines, names, settings))


def all_scores(task: dsfp_env.Task, names: list[str], seed: int) -> dict[str, Scores]:
    """Scores by criterion; the readings of DSFP share their terms."""
    start = time.monotonic()
    fused = [name for name in names if name in FUSED]
    terms = {name: ("grad", "taylor", FUSED[name][0]) for name in fused}
    alone = (*(name for name in names if name in ALONE), *(term for name in fused for term in terms[name]))
    known = {name: dsfp_env.score_filters(task, name, seed=seed) for name in dict.fromkeys(alone)}
    for name in fused:
        _, normalise, end = FUSED[name]
        known[name] = {
            path: SIGNS[end] * fuse(*(normalise(known[term][path]) for term in terms[name]))
            for path in task.graph.layers
        }
    print(f"scores with seed {seed}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return known


def measure(
    task: dsfp_env.Task, test: LabelledImages, scores: Scores, ratio: int, seed: int, settings: Settings
) -> dict[str, float]:
    """Test accuracies by stage, and the MACs that are left."""
    keep = task.graph.keep(dict.fromkeys(task.graph.layers, ratio / 100), scores)
    network = task.graph.slim(task.network, keep)
    found = {"one-shot": measure_accuracy(network, test)}
    recalibrate(network, task.train.images[: task.fidelity.recalibration_images])
    found["recalibrated"] = measure_accuracy(network, test)
    short = replace(task.fidelity, batches=settings.short)
    rate = settings.longer_rate or short.learning_rate
    for stage, fidelity in (
        ("short", short),
        ("longer", replace(short, batches=settings.longer, learning_rate=rate)),
    ):
        found[stage] = after(network, task, fidelity, seed, lambda tuned: measure_accuracy(tuned, test))
    return {**found, "relative_macs": task.graph.costs(keep).macs / task.graph.costs().macs}


def after(
    network: torch.nn.Module,
    task: dsfp_env.Task,
    fidelity: Fidelity,
    seed: int,
    measured: Callable[[torch.nn.Module], float],
) -> float:
    """Fine-tune a copy, and measure it."""
    tuned = copy.deepcopy(network)
    fine_tune(tuned, task.train, task.transfer_set(fidelity, seed), fidelity, seed)
    return measured(tuned)


def table(lines: list[dict], names: list[str], settings: Settings) -> str:
    """Markdown: the mean over seeds by stage, and the standard deviation of the last."""
    header = [f"{ratio} %: {' / '.join(STAGES)}" for ratio in settings.ratios]
    rows = [["criterion", *header], ["---"] * (1 + len(header))]
    for name in names:
        cells = []
        for ratio in settings.ratios:
            found = [line for line in lines if line["criterion"] == name and line["ratio"] == ratio]
            means = [100 * np.mean([line[stage] for line in found]) for stage in STAGES] if found else []
            spread = 100 * np.std([line["longer"] for line in found], ddof=1) if len(found) > 1 else float("nan")
            cells.append(f"{' / '.join(f'{mean:.1f}' for mean in means)} ± {spread:.1f}")
        rows.append([f"`{name}`", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.exit(command_line.run(Settings, compare, __doc__))
