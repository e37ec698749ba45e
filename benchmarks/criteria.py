"""Which filters should go first? Every criterion, at equal ratios, with equal fine-tuning.

    python benchmarks/criteria.py --task digits
    python benchmarks/criteria.py --task imagefolder:PATH --network resnet20 --weights FILE
    python benchmarks/criteria.py --task imagefolder:PATH --network alexnet --weights FILE --criteria dsfp l1

All layers lose the same share of their filters; then accuracy on the test split is measured at once, after
recalibration of the normalisation, after a short distillation, and after a longer one. A seed chooses the images
that the scores are computed from, the batches of both distillations, and what ``random`` takes. Results are
appended to a file, line by line; started again it goes on, also with more criteria, ratios and seeds. Criteria
that look at batch normalisation are left out where there is none.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dsfp_env
from agents.reporting.markdown_tables import markdown_table
from dsfp_env.common import command_line
from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import append_line
from dsfp_env.common.json_files import lines_of, read_line
from dsfp_env.common.random_numbers import check_seed
from dsfp_env.common.ranges import MOST_THREADS
from dsfp_env.common.schemas import Name, Natural, Share, Strict
from dsfp_env.criteria.dsfp import SIGNS, fuse, rank, unchanged
from dsfp_env.criteria.scoring import Scores
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.distillation import Fidelity, fine_tune, recalibrate

STAGES = ("one_shot", "recalibrated", "short", "longer")
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


class Line(Strict):
    """Of the file: what came of a criterion."""

    criterion: Name
    ratio: Natural
    seed: Natural
    one_shot: Share
    recalibrated: Share
    short: Share
    longer: Share
    relative_macs: Share
    measured: dict[Name, int | float | str]  # of what, and how


def compare(settings: Settings) -> None:
    """Measure what is missing, then print the table."""
    check(settings)
    torch.set_num_threads(settings.threads)
    options = {name: value for name in ("network", "weights") if (value := getattr(settings, name))}
    task = dsfp_env.load_task(settings.task, **options)
    names = [one for one in dict.fromkeys(settings.criteria) if task.graph.norms or one not in OF_NORMS]
    if not names:
        raise InputError(
            f"--criteria {' '.join(settings.criteria)}: they look at batch normalisation, and there is none."
        )
    rng = torch.Generator().manual_seed(1)  # the files of an image tree are sorted by class
    some = torch.randperm(len(task.test.labels), generator=rng)[: settings.test_images]
    test = LabelledImages(task.test.images[some], task.test.labels[some])
    measured = {
        "task": str(task.fingerprint),
        "short": settings.short,
        "longer": settings.longer,
        "longer_rate": settings.longer_rate or task.fidelity.learning_rate,
        "test_images": len(test.labels),
    }
    known = {(line["criterion"], line["ratio"], line["seed"]): line for line in read(settings.out, measured)}
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    for seed in settings.seeds:
        missing = [
            (name, ratio) for ratio in settings.ratios for name in names if (name, ratio, seed) not in known
        ]
        scores = all_scores(task, names, seed) if missing else {}
        for name, ratio in dict.fromkeys(missing):
            found = measure(task, test, scores[name], ratio, seed, settings)
            line = {"criterion": name, "ratio": ratio, "seed": seed, **found, "measured": measured}
            print(f"{name}, {ratio} %, seed {seed}: {100 * line['longer']:.1f}", file=sys.stderr, flush=True)
            append_line(settings.out, json.dumps(line))
            known[name, ratio, seed] = line
    print(f"original: {100 * measure_accuracy(task.network, test):.1f} % of {len(test.labels)} test images\n")
    print(table(known, names, settings))


def check(settings: Settings) -> None:
    """Refuse what cannot be compared, before anything is loaded.

    Raises:
        InputError: If so.
    """
    for name in settings.criteria:
        choose("criterion", name, dict.fromkeys((*FUSED, *ALONE)))
    for name in ("criteria", "ratios", "seeds"):
        if not getattr(settings, name):
            raise InputError(f"--{name} has nothing: expected one or more.")
    if not all(0 < ratio < 100 for ratio in settings.ratios):
        raise InputError(f"--ratios are {settings.ratios}: expected percentages between 0 and 100.")
    for name, most in (("short", 10**6), ("longer", 10**6), ("test_images", 10**9), ("threads", MOST_THREADS)):
        if not 1 <= (value := getattr(settings, name)) <= most:
            raise InputError(f"--{name.replace('_', '-')} is {value}: expected from 1 to {most}.")
    if settings.longer_rate is not None and not 0 < settings.longer_rate < 1:
        raise InputError(f"--longer-rate is {settings.longer_rate}: expected a rate between 0 and 1.")
    for seed in settings.seeds:
        check_seed(seed, "One of --seeds")


def read(file: Path, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier run appended.

    Raises:
        InputError: If a line is of other settings, or is none of this command's.
    """
    otherwise = "name another file with --out"
    found = [
        read_line(line, number, file, Line, otherwise) for number, line in enumerate(lines_of(file, otherwise), 1)
    ]
    for number, line in enumerate(found, 1):
        if line["measured"] != measured:
            raise InputError(
                f"Line {number} of {file} was measured as {line['measured']}, and this is {measured}: {otherwise}."
            )
    return found


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
    found = {"one_shot": measure_accuracy(network, test)}
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


def table(known: dict[tuple[str, int, int], dict[str, Any]], names: list[str], settings: Settings) -> str:
    """Markdown: the mean over seeds by stage, and the standard deviation of the last."""
    stages = " / ".join(STAGES).replace("_", "-")
    ratios, seeds = dict.fromkeys(settings.ratios), dict.fromkeys(settings.seeds)
    rows = []
    for name in names:
        cells = []
        for ratio in ratios:
            found = [known[name, ratio, seed] for seed in seeds]
            means = (100 * np.mean([line[stage] for line in found]) for stage in STAGES)
            spread = f" ± {100 * np.std([line['longer'] for line in found], ddof=1):.1f}" if len(found) > 1 else ""
            cells.append(" / ".join(f"{mean:.1f}" for mean in means) + spread)
        rows.append([f"`{name}`", *cells])
    return markdown_table(["criterion", *(f"{ratio} %: {stages}" for ratio in ratios)], rows)


if __name__ == "__main__":
    sys.exit(command_line.run(Settings, compare, __doc__))
