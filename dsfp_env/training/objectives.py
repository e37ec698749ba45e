"""What the networks of a task are trained for and judged by: a loss, a form of distillation, and a metric.

What fits is told by the shapes, unless it is said:

| targets                     | answers                 | loss          | distillation     | metric     |
|-----------------------------|-------------------------|---------------|------------------|------------|
| labels ``[N]``              | logits ``[N, C]``       | cross entropy | `classification` | `accuracy` |
| masks ``[N, H, W]``         | logits ``[N, C, H, W]`` | cross entropy | `dense`          | `miou`     |
| numbers, shaped as answers  | ``[N, ...]``            | squared error | `regression`     | `mse`      |
| anything of the user's own  | ``[N, ...]``            | must be given | `regression`     | must be given |

The forms of distillation compare the student's answers with the teacher's: `classification` by T^2 times the KL
divergence of the softened distributions (Hinton et al. 2015), `dense` likewise, averaged over the positions,
`regression` by the squared difference, averaged over the numbers of an answer. Criteria that ask how much an
answer changes ask in the same form (`divergence`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env.common.choices import choose
from dsfp_env.common.devices import in_double
from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.training.metrics import ACCURACY, About, Metric, metric_of

AUTO = "auto"
NOT_A_CLASS = -100  # torch's word for a position that does not count
FORMS = ("classification", "dense", "regression")
_SPREAD_KEPT = 0.999  # of answers that are numbers, if they are to be computed less precisely
_MOST_AGREE, _NEARLY_ALL_AGREE = 0.9, 0.98  # labels of images, of positions

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (outputs, targets) -> scalar, mean over the images


@dataclass(frozen=True)
class Objective:
    """What is learned; made by `objective_of`. That of classification is ``Objective()``."""

    metric: Metric = ACCURACY
    targets: str = "classification"  # or another of FORMS, or "own"
    answers: str = "classification"  # in which of FORMS answers are compared with each other
    own_loss: Loss | None = None
    own_distillation: Loss | None = field(default=None)  # of (student's, teacher's answers)
    distils: bool = True  # False: the loss is all that is learned by
    ignore_index: int | None = None  # the target of positions that do not count

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
        """The loss against the targets, a scalar: the mean over the images.

        Args:
            outputs: ``[N, ...]``, float32.
            targets: ``[N, ...]``; class probabilities ``[N, classes]`` too, in place of labels.
            label_smoothing: Of the cross entropy, if the loss is not the user's own.
        """
        if self.own_loss is not None:
            return _scalar("loss", self.own_loss, outputs, targets)
        if self.targets == "classification":
            return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)
        if self.targets == "dense":
            return F.cross_entropy(outputs, self._counted(targets), label_smoothing=label_smoothing)
        return F.mse_loss(outputs, targets)

    def summed_loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The sum of the images' own losses."""
        if self.own_loss is None and self.targets == "classification":
            return F.cross_entropy(outputs, targets, reduction="sum")
        if self.own_loss is None and self.targets == "dense":
            counted = self._counted(targets)
            losses = F.cross_entropy(outputs, counted, reduction="none").flatten(1).sum(1)
            return (losses / (counted != NOT_A_CLASS).flatten(1).sum(1).clamp(min=1)).sum()
        return self.loss(outputs, targets) * len(outputs)

    def distance(
        self, student: torch.Tensor, teacher: torch.Tensor, temperature: float
    ) -> tuple[float, torch.Tensor]:
        """How far a student's answers ``[N, ...]`` are from its teacher's.

        Returns:
            What is multiplied with the distance, T^2 where answers are softened; and the distance, a scalar.
        """
        if self.own_distillation is not None:
            return 1.0, _scalar("distillation", self.own_distillation, student, teacher)
        if self.answers == "regression":
            return 1.0, F.mse_loss(student, teacher)
        return temperature**2, _softened_kl(student, teacher, temperature)

    def divergence(self, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        """How far answers q are from p: the KL divergence of the distributions that they stand for.

        Numbers stand for normal distributions of unit variance. Of positions, and of numbers, it is the mean.

        Args:
            p: Answers ``[images, ...]``, float64.
            q: ``[copies, images, ...]``, float64.

        Returns:
            ``[copies, images]``.
        """
        if self.answers == "regression":
            squares = (p - q).square()
            return (squares if squares.dim() == 2 else squares.flatten(2).mean(2)) / 2
        log_p, log_q = F.log_softmax(p, 1), F.log_softmax(q, 2)
        divergences = (log_p.exp() * (log_p - log_q)).sum(2)
        return divergences if divergences.dim() == 2 else divergences.flatten(2).mean(2)

    def sampled_loss(self, outputs: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """The sum of the images' losses, against targets that are drawn from what their answers stand for.

        Half the square of an image's gradient is, in expectation, its `divergence` to second order.

        Args:
            outputs: ``[N, ...]``.
            rng: On the CPU.
        """
        if self.answers == "regression":
            noise = torch.randn(outputs.shape, generator=rng).to(outputs)
            return (noise * outputs).sum() / math.sqrt(max(1, outputs[0].numel()))
        if outputs.dim() == 2:
            return F.cross_entropy(outputs, _sample(outputs, rng), reduction="sum")
        logits = outputs.movedim(1, -1).flatten(0, -2)  # of all positions
        loss = F.cross_entropy(logits, _sample(logits, rng), reduction="sum")
        return loss / math.sqrt(len(logits) / len(outputs))

    def agree(self, exact: torch.Tensor, rounded: torch.Tensor) -> bool:
        """Whether answers to a few images that were computed less precisely are as good as the exact ones.

        Of labels, nine in ten are the same, and of positions 98 in a hundred; numbers differ by a thousandth of
        their variance at most.
        """
        if not rounded.isfinite().all():
            return False
        if self.answers == "regression":
            spread = (exact - exact.mean(0)).square().mean()
            return bool((rounded - exact).square().mean() <= (1 - _SPREAD_KEPT) * spread)
        wanted = _MOST_AGREE if exact.dim() == 2 else _NEARLY_ALL_AGREE
        return bool((rounded.argmax(1) == exact.argmax(1)).float().mean() >= wanted)

    def _counted(self, masks: torch.Tensor) -> torch.Tensor:
        """Masks with torch's own word where they do not count."""
        if self.ignore_index in (None, NOT_A_CLASS):
            return masks
        return masks.masked_fill(masks == self.ignore_index, NOT_A_CLASS)


def objective_of(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    metric: Any = None,
    loss: Any = None,
    distillation: Any = AUTO,
    ignore_index: int | None = None,
) -> Objective:
    """What fits answers and targets, and what was said.

    Args:
        outputs: Answers of the network to a few training images, ``[n, ...]``.
        targets: Of the training split, ``[N, ...]``, those of these images first.
        metric: See `metrics.metric_of`; None: by the shapes.
        loss: A function of (outputs, targets) that gives a scalar, the mean over the images; None: by the shapes.
        distillation: One of FORMS; a function of (student's answers, teacher's answers) that gives a scalar; None:
            there is none, only the loss; ``"auto"``: by the shapes.
        ignore_index: The target of positions of a mask that do not count.

    Raises:
        InputError: If what was said does not fit the shapes, or the shapes do not say enough.
    """
    form = _form(outputs, targets)
    for what, function in (("loss", loss), ("distillation", distillation)):
        if not (function is None or callable(function) or (what, type(function)) == ("distillation", str)):
            came = type(function).__name__
            raise InputError(f"The {what} is of type {came}: expected a function of two tensors.")
    if form == "own" and (loss is None or metric is None):
        raise InputError(
            f"The network answers {tuple(outputs.shape[1:])} for an image whose target is {targets.dtype} of "
            f"shape {tuple(targets.shape[1:])}: expected logits [N, classes] for integer labels [N], logits "
            "[N, classes, H, W] for masks [N, H, W], or floats shaped as the answers; for anything else give "
            "loss= and metric=."
        )
    answers = "regression" if form == "own" else form
    if isinstance(distillation, str) and distillation != AUTO:
        answers = choose("distillation", distillation, {form: form for form in FORMS})
        if (answers == "classification") != (outputs.dim() == 2) and answers != "regression":
            raise InputError(
                f"The distillation {answers!r} came for answers {tuple(outputs.shape[1:])} of an image: expected "
                "'classification' for [N, classes], 'dense' for [N, classes, ...], or 'regression' for any."
            )
    if ignore_index is not None and form == "classification":
        raise InputError(f"ignore_index is {ignore_index}, and the targets are labels: expected masks with it.")
    named = metric or {"classification": "accuracy", "dense": "miou"}.get(form, "mse")
    objective = Objective(
        metric_of(named, lambda: About(outputs.shape[1] if outputs.dim() > 1 else 1, ignore_index, targets)),
        form,
        answers,
        loss,
        distillation if callable(distillation) else None,
        distillation is not None,
        ignore_index,
    )
    _try(objective, outputs, targets)
    return objective


def _form(outputs: torch.Tensor, targets: torch.Tensor) -> str:
    if targets.is_floating_point():
        return "regression" if targets.shape[1:] == outputs.shape[1:] else "own"
    if outputs.dim() < 2 or outputs.shape[1] == 1:  # one logit is no distribution over classes
        return "own"
    if outputs.dim() == 2 and targets.dim() == 1:
        return "classification"
    return "dense" if outputs.dim() > 2 and targets.shape[1:] == outputs.shape[2:] else "own"


def check_targets(split: str, outputs: torch.Tensor, targets: torch.Tensor, objective: Objective) -> None:
    """Refuse targets of a split that are unlike those of the training split, or that there are no logits for.

    Args:
        split: Its name, for messages.
        outputs: Answers of the network to some images, ``[n, ...]``.
        targets: ``[N, ...]``.
        objective: Made of the training split.

    Raises:
        InputError: If they are.
    """
    form = _form(outputs, targets)
    if form != objective.targets:
        raise InputError(
            f"The {split} targets are {targets.dtype} of shape {tuple(targets.shape)}, unlike those of the "
            "training split: expected the same but for their number."
        )
    if form in ("classification", "dense") and objective.own_loss is None:
        _check_classes(split, targets, outputs.shape[1], objective.ignore_index)


def _check_classes(split: str, targets: torch.Tensor, classes: int, ignore_index: int | None) -> None:
    counted = targets if ignore_index is None else targets[targets != ignore_index]
    if len(counted) == 0:
        raise InputError(f"All {split} targets are {ignore_index}, which is ignored: expected some that count.")
    lowest, highest = int(counted.min()), int(counted.max())
    if not 0 <= lowest <= highest < classes:
        advice = ""
        if targets.dim() > 1 and ignore_index is None:
            odd = lowest if lowest < 0 else highest
            advice = f"; if {odd} marks positions that do not count, give ignore_index={odd}"
        raise InputError(
            f"The {split} labels run from {lowest} to {highest}, and the network answers {classes} logits: "
            f"expected labels in [0, {classes - 1}]{advice}."
        )


def _try(objective: Objective, outputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Refuse functions of the user's own that give no finite scalar, or none that anything can be learned by."""
    answers = outputs.detach().clone().requires_grad_()
    losses = []
    if objective.own_loss is not None:
        losses.append(("loss", objective.own_loss, targets[: len(outputs)].to(outputs.device)))
    if objective.own_distillation is not None:
        losses.append(("distillation", objective.own_distillation, outputs.detach()))
    for what, function, other in losses:
        with torch.enable_grad():
            value = _scalar(what, function, answers, other)
        if not value.isfinite():
            raise InputError(f"The {what} is {value.item()} for the first images: expected a finite number.")
        if not value.requires_grad:
            raise InputError(f"No gradient comes out of the {what}: expected one of torch's operations.")


def _scalar(what: str, function: Loss, outputs: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """What a function of the user's own says, if that is a scalar."""
    try:
        value = function(outputs, other)
    except InputError:
        raise
    except Exception as error:  # whatever it raises
        raise_if_of_the_machine(error, f"computing the {what}")
        raise InputError(
            f"The {what} failed ({type(error).__name__}: {error}) for {tuple(outputs.shape)} {outputs.dtype} and "
            f"{tuple(other.shape)} {other.dtype}: expected a function of these that gives a scalar."
        ) from error
    if not isinstance(value, torch.Tensor) or value.dim() != 0:
        came = f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise InputError(f"The {what} gave {came}: expected a scalar tensor, the mean over the images.")
    return value


def _softened_kl(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher_T || student_T) of logits ``[N, classes, ...]``: the mean over images and positions."""
    if student.dim() > 2:
        student, teacher = (logits.movedim(1, -1).flatten(0, -2) for logits in (student, teacher))
    return F.kl_div(
        F.log_softmax(student / temperature, 1),
        F.log_softmax(teacher / temperature, 1),
        log_target=True,
        reduction="batchmean",
    )


def _sample(logits: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """One label for each row of logits, with the probability that they give it."""
    probabilities = in_double(logits.detach()).softmax(1).cpu()  # where the generator is
    probabilities = probabilities.nan_to_num(1.0)  # the gradients will be refused, with a sentence
    return torch.multinomial(probabilities, 1, generator=rng)[:, 0].to(logits.device)


def on_device(function: Any, device: torch.device) -> Any:
    """A loss with numbers of its own, as weights of classes, copied to a device; any other function as it is."""
    return copy.deepcopy(function).to(device) if isinstance(function, nn.Module) else function
