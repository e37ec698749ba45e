"""How long a study will take: a few batches and evaluations are timed where it will run, the rest is counted.

Scores of filters, and reading the data, are not in it; what is known already makes it shorter.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from agents.reporting.finals import CHOOSING_SEEDS, FINALISTS
from agents.reproduce.targets import Target
from dsfp_env.common.devices import finish
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.plans import LEVELS, Plan
from dsfp_env.tasks.task import Task
from dsfp_env.training import epochs
from dsfp_env.training.fine_tuning import TeacherMemory, distil
from dsfp_env.training.recipes import Recipe

_BATCHES = {"cpu": (1, 3), "cuda": (4, 12)}  # timed: where batches are launched as one, that is tried with four


@dataclass(frozen=True)
class Work:
    """What pieces consist of, as far as it takes long.

    Attributes:
        base: Epochs of training the original network.
        passes: Over the validation split, for a sweep of single layers.
        evaluations: Of searches, by target.
        epochs: Of fine-tuning, by target.
        answers: Epochs in which the original network answers for images; those of rows with one seed are kept.
    """

    base: int
    passes: int
    evaluations: Mapping[Target, int]
    epochs: Mapping[Target, int]
    answers: int


@dataclass(frozen=True)
class Seconds:
    """What one of each takes; as for `Work`."""

    base: float
    passes: float
    evaluations: Mapping[Target, float]
    epochs: Mapping[Target, float]
    answers: float

    def of(self, work: Work) -> dict[str, float]:
        """Seconds of work, by what it is."""
        searches = sum(self.evaluations[target] * count for target, count in work.evaluations.items())
        tuning = sum(self.epochs[target] * count for target, count in work.epochs.items())
        return {
            "original network": self.base * work.base,
            "one layer at a time": self.passes * work.passes,
            "searches": searches,
            "fine-tuning": tuning + self.answers * work.answers,
        }


def of_search(evaluations: int, finalist_epochs: int | None, first: int = 0) -> tuple[int, int]:
    """The evaluations of a search and its epochs of fine-tuning, those that choose of its finalists included.

    Args:
        evaluations: That it may make.
        finalist_epochs: Of each finalist; None: they are evaluated again.
        first: Plans that are finalists whatever comes of them.
    """
    finalists = min(evaluations, FINALISTS + first)
    if finalist_epochs is None:
        return evaluations + finalists * CHOOSING_SEEDS, 0
    return evaluations, finalists * finalist_epochs


def passes_of_sweep(task: Task) -> int:
    """Over the validation split."""
    return len(task.control.agents) * len(LEVELS)


def measured(
    task: Task,
    evaluator: Evaluator,
    plan_of: Callable[[Evaluator, Target], Plan],
    work: Work,
    base: Recipe | None,
    tuning: Recipe,
) -> Seconds:
    """Time one of everything that work consists of.

    Args:
        task: With the original network, trained or not.
        evaluator: Of the task, of which an evaluation is timed at each target.
        plan_of: Such an evaluation.
        work: What is asked for; nothing else is timed.
        base: How the original network is trained.
        tuning: Of the long fine-tune.
    """
    plans = {target: plan_of(evaluator, target) for target in work.evaluations.keys() | work.epochs.keys()}

    def evaluation(target: Target) -> float:
        evaluator.evaluate(plans[target], 0)  # what comes first takes longer
        return _timed(task, partial(evaluator.evaluate, plans[target], 1))

    def epoch(target: Target, answers: float) -> float:
        slim = task.graph.slim(task.network, evaluator.keep(plans[target]))
        suited = task.suited(tuning)

        def train(network: nn.Module, images: LabelledImages, recipe: Recipe) -> object:
            return distil(
                network, task.network, images, task.validation.some(1), recipe, 0, objective=task.objective
            )

        validation = _timed(task, partial(evaluator.measurement.accuracies, slim, task.validation))
        return max(0.0, _epoch(task, slim, suited, train) - answers) + validation

    def train_base(network: nn.Module, images: LabelledImages, recipe: Recipe) -> object:
        return epochs.train(network, images, recipe, 0)

    answers = _epoch_of_answers(task, tuning) if work.epochs else 0.0
    validate = partial(evaluator.measurement.accuracies, task.network, evaluator.task.validation)
    return Seconds(
        base=_epoch(task, task.network, base, train_base) if work.base and base else 0.0,
        passes=_timed(task, validate) if work.passes else 0.0,
        evaluations={target: evaluation(target) for target in work.evaluations},
        epochs={target: epoch(target, answers) for target in work.epochs},
        answers=answers,
    )


def told(seconds: Mapping[str, float], workers: int) -> str:
    """An estimate in a sentence."""
    parts = ", ".join(f"{what} {in_words(long)}" for what, long in seconds.items() if long)
    total = sum(seconds.values())
    if not parts:
        return "this will take no time to speak of"
    several = f"; {workers} at a time, if they do not slow each other: {in_words(total / workers)}"
    return (
        f"about {in_words(total)} of work ({parts}), as a few batches tell; scoring filters is not in it"
        f"{several if workers > 1 else ''}"
    )


def in_words(seconds: float) -> str:
    """A time, roughly."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.0f} h"


def counted(targets: Iterable[Target], each: Iterable[int]) -> dict[Target, int]:
    """So many for every mention of a target, added; without those that have none."""
    counts = Counter[Target]()
    for target, count in zip(targets, each, strict=True):
        counts[target] += count
    return dict(+counts)


def _epoch(
    task: Task,
    network: nn.Module,
    recipe: Recipe,
    train: Callable[[nn.Module, LabelledImages, Recipe], object],
) -> float:
    """Seconds of an epoch of training; a copy is trained on a few batches, and on more."""
    images, one = task.train, replace(recipe, epochs=1)
    size = min(recipe.batch_size, len(images.labels))
    batches = len(images.labels) // size

    def run(count: int) -> float:
        few = LabelledImages(images.images[: count * size], images.labels[: count * size])
        return _timed(task, partial(train, copy.deepcopy(network), few, one))

    less, more = _BATCHES["cpu" if task.device.type == "cpu" else "cuda"]
    if batches <= more:
        run(batches)
        return run(batches)
    run(less)  # what comes first takes longer
    short, long = run(less), run(more)
    each = (
        (long - short) / (more - less) if long > short else long / more
    )  # on a busy machine it may not be longer
    return each * batches


def _epoch_of_answers(task: Task, recipe: Recipe) -> float:
    """Seconds in which the original network answers for the images of an epoch."""
    size = min(recipe.batch_size, len(task.train.labels))
    teacher, images = TeacherMemory(task.network, recipe), task.train.images[:size]
    teacher(images, 0, 0)  # what comes first takes longer
    return _timed(task, partial(teacher, images, 0, 0)) * (len(task.train.labels) // size)


def _timed(task: Task, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    finish(task.device)
    return time.perf_counter() - start
