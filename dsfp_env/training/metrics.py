"""What a network is judged by: one number of a whole split, which has a name, a range and a direction.

Range and direction are two numbers, the worst value and the best: an accuracy goes from 0 to 1, a squared error
from what a constant answer gets down to 0. On that scale every metric is a number in [0, 1], higher is better,
which is what rewards and observations are made of:

    scaled = (value - worst) / (best - worst), at least 0 and at most 1

A metric may look at all answers at once (a function), or take them batch by batch (an object with ``update``,
``compute`` and ``reset``, as those of torchmetrics), which spares the memory for them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch

from dsfp_env.common.choices import choose
from dsfp_env.common.devices import in_double
from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine

_TOP = 5
_ROUNDED = 1e-6  # of the range
_VERBS = ("update", "compute", "reset")


@dataclass(frozen=True)
class Metric:
    """What is maximised.

    Args:
        function: Of the answers ``[N, ...]`` (float32) and the targets ``[N, ...]`` of a whole split, a number; or
            an object with ``update(outputs, targets)``, ``compute()`` and ``reset()``, copied for every use.
        name: For tables and files.
        worst: The value that counts 0.
        best: The value that counts 1; below ``worst``, if lower is better.

    Raises:
        InputError: If the function is neither, or the range is none.
    """

    function: Any
    name: str
    worst: float = 0.0
    best: float = 1.0

    def __post_init__(self) -> None:
        if not callable(self.function) and not is_running(self.function):
            raise InputError(
                f"The metric {self.name!r} is of type {type(self.function).__name__}: expected a function of "
                "(outputs, targets), or an object with update, compute and reset."
            )
        if not (math.isfinite(self.worst) and math.isfinite(self.best)) or self.worst == self.best:
            raise InputError(
                f"The metric {self.name!r} goes from worst={self.worst} to best={self.best}: expected two "
                "different finite numbers, such as worst=4.0, best=0.0 for an error of 4 where nothing is learned."
            )

    def scaled(self, value: float) -> float:
        """A value on the scale from 0 (worst, and whatever is worse) to 1 (best)."""
        return min(1.0, max(0.0, (value - self.worst) / (self.best - self.worst)))

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of right answers, one for each image."""
        return self.function is accuracy

    def begin(self) -> Running:
        """What takes the answers of one split, batch by batch."""
        return Running(self)


class Running:
    """A metric on its way through a split."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._object = copy.deepcopy(metric.function) if is_running(metric.function) else None
        self._outputs: list[torch.Tensor] = []
        self._targets: list[torch.Tensor] = []

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Take the answers to a batch, and its targets, both ``[N, ...]``."""
        if self._object is None:
            self._outputs.append(outputs)
            self._targets.append(targets.to(outputs.device))
            return
        if not self._outputs:  # the first batch
            self._outputs.append(outputs[:0])
            if hasattr(self._object, "to"):
                self._object = self._object.to(outputs.device)
            self._object.reset()
        self._tried(self._object.update, outputs.float(), targets.to(outputs.device))

    def value(self) -> float:
        """The value on all that came.

        Raises:
            InputError: If the metric fails, or gives no number, or one that is better than the best.
        """
        if self._object is not None:
            came = self._tried(self._object.compute)
        else:
            came = self._tried(self._metric.function, _whole(self._outputs).float(), _whole(self._targets))
        value, best = _number(came, self._metric.name), self._metric.best
        if (value - best) * (best - self._metric.worst) > _ROUNDED * abs(best - self._metric.worst) ** 2:
            raise InputError(
                f"The metric {self._metric.name!r} gave {value:g}, which is better than the best, {best:g}: "
                "expected dsfp_env.Metric(function, name, worst=..., best=...) with the range that it has."
            )
        return value

    def _tried(self, function: Callable[..., Any], *given: torch.Tensor) -> Any:
        """What a function says; whatever is wrong with one of the user's own gets a sentence."""
        try:
            return function(*given)
        except InputError:
            raise
        except Exception as error:  # whatever it raises
            raise_if_of_the_machine(error, f"computing the metric {self._metric.name!r}", "the split")
            shapes = " and ".join(f"{tuple(one.shape)} {one.dtype}" for one in given) or "all batches"
            raise InputError(
                f"The metric {self._metric.name!r} failed ({type(error).__name__}: {error}) for {shapes}: "
                "expected a function of (outputs [N, ...], targets [N, ...]) that gives a number."
            ) from error


def _whole(batches: list[torch.Tensor]) -> torch.Tensor:
    return batches[0] if len(batches) == 1 else torch.cat(batches)


def is_running(one: Any) -> bool:
    """Whether a metric takes answers batch by batch."""
    return all(callable(getattr(one, verb, None)) for verb in _VERBS)


class About(NamedTuple):
    """What a metric by name may need to know of a task."""

    classes: int  # logits of an image, or of a position
    ignore_index: int | None  # the target of positions that do not count
    targets: torch.Tensor  # of the training split


def metric_of(metric: Any, about: Callable[[], About]) -> Metric:
    """A metric from what a user gave.

    Args:
        metric: A `Metric`; a name in `METRICS`; ``"package.module:attribute"``; a function of (outputs, targets),
            from 0 (worst) to 1 (best); or an object as those of torchmetrics, which say what is higher and lower.
        about: Says what the named ones need to know.

    Raises:
        InputError: If it is none of these, or does not say its range.
    """
    if isinstance(metric, str):
        metric = choose("metric", metric, METRICS, importable=True)
        if metric in METRICS.values():
            return metric(about())
    if isinstance(metric, Metric):
        return metric
    if is_running(metric):
        return _of_an_object(metric)
    named = metric.func if isinstance(metric, partial) else metric
    return Metric(metric, getattr(named, "__name__", type(metric).__name__))


def _of_an_object(metric: Any) -> Metric:
    """A metric as torchmetrics has them."""
    name = type(metric).__name__
    bounds: Any = getattr(metric, "plot_lower_bound", None), getattr(metric, "plot_upper_bound", None)
    higher = getattr(metric, "higher_is_better", None)
    if higher is None or None in bounds:
        raise InputError(
            f"The metric {name} does not say its range (plot_lower_bound is {bounds[0]}, plot_upper_bound "
            f"{bounds[1]}, higher_is_better {higher}): expected "
            f"dsfp_env.Metric(metric, {name!r}, worst=..., best=...), with the worst value that is worth telling "
            "from others."
        )
    low, high = map(float, bounds)
    return Metric(metric, name, *((low, high) if higher else (high, low)))


def _number(came: Any, name: str) -> float:
    if isinstance(came, torch.Tensor) and came.numel() == 1:
        came = came.item()
    try:
        value = float(came)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        came = f"a tensor of shape {tuple(came.shape)}" if isinstance(came, torch.Tensor) else repr(came)
        raise InputError(f"The metric {name!r} gave {came}: expected a finite number for any network.")
    return value


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The share of images whose largest logit is the right one: logits ``[N, classes]``, labels ``[N]``."""
    correct = outputs.argmax(1) == targets
    return int(correct.sum()) / len(correct)


def top_5(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    """The share of images whose label is among the five largest of the logits ``[N, classes]``."""
    return int((outputs.topk(_TOP, 1).indices == targets[:, None]).sum()) / len(targets)


class Confusion:
    """How often each class was taken for each, at every image or position; then a number of that.

    Args:
        about: Of the task.
        summary: Of counts ``[classes, classes]``, right class by answered one, float64.
    """

    def __init__(self, about: About, summary: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._classes, self._ignored, self._summary = about.classes, about.ignore_index, summary
        self._counts = torch.zeros(self._classes, self._classes, dtype=torch.int64)

    def reset(self) -> None:
        """Forget everything."""
        self._counts = torch.zeros_like(self._counts)

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Count logits ``[N, classes, ...]`` against labels ``[N, ...]``."""
        given, right = outputs.argmax(1).flatten(), targets.flatten()
        if self._ignored is not None:
            counts = right != self._ignored
            given, right = given[counts], right[counts]
        pairs = torch.bincount(right * self._classes + given, minlength=self._classes**2)
        self._counts += pairs.view_as(self._counts).cpu()

    def compute(self) -> float:
        """The number."""
        return self._summary(self._counts.double()).item()


def share_right(counts: torch.Tensor) -> torch.Tensor:
    """The share of right answers, of counts ``[classes, classes]``."""
    return counts.diagonal().sum() / counts.sum()


def mean_recall(counts: torch.Tensor) -> torch.Tensor:
    """The share of right answers of each class, averaged over the classes that there are."""
    there = counts.sum(1) > 0
    return (counts.diagonal()[there] / counts.sum(1)[there]).mean()


def mean_iou(counts: torch.Tensor) -> torch.Tensor:
    """Intersection over union of each class, averaged over those that there are or that were answered."""
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    return (counts.diagonal()[union > 0] / union[union > 0]).mean()


class MeanError:
    """The mean of a distance, over images and all numbers of an answer.

    Args:
        power: Of the absolute difference: 1 or 2.
    """

    def __init__(self, power: int) -> None:
        self._power, self._sum, self._count = power, 0.0, 0

    def reset(self) -> None:
        """Forget everything."""
        self._sum, self._count = 0.0, 0

    def update(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Take answers and targets of one shape."""
        self._sum += float((in_double(outputs) - in_double(targets)).abs().pow(self._power).sum())
        self._count += targets.numel()

    def compute(self) -> float:
        """The mean."""
        return self._sum / self._count


def _accuracy(about: About) -> Metric:
    if about.targets.dim() == 1 and not about.targets.is_floating_point():
        return ACCURACY
    return _of_classes("accuracy", share_right, about)


def _of_classes(name: str, summary: Callable[[torch.Tensor], torch.Tensor], about: About) -> Metric:
    if about.targets.is_floating_point():
        raise InputError(f"The metric {name!r} is of classes, and targets are {about.targets.dtype}: try 'mse'.")
    return Metric(Confusion(about, summary), name)


def _top5(about: About) -> Metric:
    if about.targets.is_floating_point() or about.targets.dim() != 1 or about.classes <= _TOP:
        raise InputError(
            f"The metric 'top5' came for {about.classes} logits and targets {about.targets.dtype} of shape "
            f"{tuple(about.targets.shape)}: expected labels [N] of more than {_TOP} classes."
        )
    return Metric(top_5, "top5")


def _error(name: str, power: int, about: About) -> Metric:
    """An error; the worst is what the mean of the training targets gets, as an answer to every image."""
    if not about.targets.is_floating_point():
        raise InputError(f"The metric {name!r} is of float targets, and they are classes: try 'accuracy'.")
    targets = in_double(about.targets)
    constant = float((targets - targets.mean(0)).abs().pow(power).mean())
    if constant == 0:
        raise InputError(
            f"All training targets are the same, so the metric {name!r} has no range: nothing to learn."
        )
    return Metric(MeanError(power), name, worst=constant, best=0.0)


ACCURACY = Metric(accuracy, "accuracy")

METRICS: dict[str, Callable[[About], Metric]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": partial(_of_classes, "balanced_accuracy", mean_recall),
    "top5": _top5,
    "miou": partial(_of_classes, "miou", mean_iou),
    "mse": partial(_error, "mse", 2),
    "mae": partial(_error, "mae", 1),
}
