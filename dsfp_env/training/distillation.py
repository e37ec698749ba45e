"""How a slim network recovers: batch normalisation is recalibrated, then knowledge is distilled, briefly.

The loss (Hinton et al. 2015; DSFP section III-C and IV-A) is

    loss = (1 - w) * CE(student, labels; label smoothing) + w * T^2 * KL(teacher_T || student_T)

with the distillation weight w falling linearly over the batches, teacher_T = softmax(teacher logits / T), and
the KL averaged over the images. (So for labels; `objectives` has what takes the place of CE and KL for masks, for
numbers, and for losses of the user's own.) The optimiser is AdamW with a cosine from ``learning_rate`` to 0.

Right after filters are removed the accuracy is near chance and says little about the plan; recalibration makes
it a usable reward, the batches of distillation a good one. The paper fine-tunes at a rate of 1e-4 for 300
epochs; over a few batches that is too slow (it loses 19 points of accuracy to 1e-3 on CIFAR-10), so the
defaults here differ.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dsfp_env.common.errors import InputError, check_differentiable, shortened
from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.common.ranges import (
    Batch,
    NotNegative,
    Positive,
    Share,
    ShareBelowOne,
    ThreadsOrZero,
    WholeNumber,
    check_fields,
)
from dsfp_env.datasets.labelled_images import LabelledImages, draw_batches
from dsfp_env.datasets.on_demand import batches_of
from dsfp_env.speed.graphed import gives_the_same, launched_as_one
from dsfp_env.speed.hastened import hastened
from dsfp_env.speed.layout import weights_last
from dsfp_env.speed.norm_kernel import KERNELS
from dsfp_env.speed.precision import PRECISIONS, computing, is_fast, laid_out
from dsfp_env.training.adamw import AdamW, cosine
from dsfp_env.training.objectives import Objective

_FEWEST_GRAPHED = 4  # batches: with fewer, recording them costs what it saves


@dataclass(frozen=True)
class Fidelity:
    """How much work goes into one evaluation, and how it is done.

    Raises:
        InputError: If a value is out of its range.
    """

    recalibration_images: WholeNumber = 256  # training images that the statistics are taken from; 0: none
    batches: WholeNumber = 20  # of distillation; 0: recalibration only
    batch_size: Batch = 128
    learning_rate: Positive = 1e-3  # of AdamW at the start of the cosine
    weight_decay: NotNegative = 0.01
    temperature: Positive = 4.0  # T
    first_distillation_weight: Share = 0.9  # w at the first batch
    last_distillation_weight: Share = 0.1  # w at the last batch
    label_smoothing: ShareBelowOne = 0.1
    precision: str = "auto"  # one of `precision.PRECISIONS`; auto is `Task.precision`
    threads: ThreadsOrZero = 0  # of the CPU; 0: as many as the process has
    kernels: str = "auto"  # "compiled" or "torch": who normalises fast on the CPU; `choose_kernels`

    def __post_init__(self) -> None:
        check_fields(self)
        for name, known in (("precision", PRECISIONS), ("kernels", KERNELS)):
            came = getattr(self, name)
            if not isinstance(came, str) or came not in known:
                raise InputError(f"Fidelity.{name} is {shortened(came)}: expected one of {', '.join(known)}.")


def default_fidelity(network: nn.Module) -> Fidelity:
    """The default for a network: a learning rate of 1e-3, or of 3e-4 if it has no batch normalisation.

    Without, 1e-3 breaks in 20 batches what the removal left: AlexNet on the JPEG copy of CIFAR-10, 83.8 %, is at
    54.0 % after uniform pruning by 30 % with 1e-3, at 82.7 % with 3e-4, at 82.8 % with 1e-4; pruned by 50 %, at
    61.8, 78.4 and 76.4 % (2,000 validation images, seed 0).
    """
    normalised = any(isinstance(module, _BatchNorm) for module in network.modules())
    return Fidelity() if normalised else Fidelity(learning_rate=3e-4)


def distillation_loss(
    student_logits: torch.Tensor,
    teacher_logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    distillation_weight: float | torch.Tensor,
    temperature: float = 4.0,
    label_smoothing: float = 0.1,
    objective: Objective | None = None,
) -> torch.Tensor:
    """The loss at the top of this file, a scalar.

    Args:
        student_logits: ``[N, classes]``, or answers ``[N, ...]`` of another form.
        teacher_logits: The same.
        labels: ``[N]``, int64, or targets of another form.
        distillation_weight: w in [0, 1].
        temperature: T, of forms that have one.
        label_smoothing: Of the cross entropy.
        objective: What takes its place and that of the KL; that of classification unless given.
    """
    objective = objective or Objective()
    hard = objective.loss(student_logits, labels, label_smoothing)
    if not objective.distils:
        return hard
    scale, soft = objective.distance(student_logits, teacher_logits, temperature)
    return (1 - distillation_weight) * hard + distillation_weight * scale * soft


@torch.no_grad()
def recalibrate(
    network: nn.Module, images: torch.Tensor, batch_size: int = 256, precision: str = "float32"
) -> None:
    """Take the statistics of batch normalisation anew from images ``[N, C, H, W]``; changes the network."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms or len(images) == 0:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = network.training
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.train()
    runs = Counter[nn.Module]()

    def weigh(norm: nn.Module, inputs: object) -> None:
        """For the mean over the batches; ``momentum=None`` is the same, but reads its counter on the host."""
        runs[norm] += 1
        norm.momentum = 1 / runs[norm]  # type: ignore[assignment]

    hooks = [norm.register_forward_pre_hook(weigh) for norm in norms]
    with computing(precision, images.device):
        for batch in images.split(batch_size):
            network(laid_out(batch, precision, network))
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        hook.remove()
        norm.momentum = momentum
    network.train(was_training)


class TransferSet(NamedTuple):
    """What a student is taught by (the word is Hinton et al.'s): batches of images, and the teacher's answers."""

    indices: torch.Tensor  # of training images, [batches, N]
    teacher_logits: torch.Tensor  # [batches, N, classes], or answers [batches, N, ...]; float32


def fine_tune(
    student: nn.Module,
    train: LabelledImages,
    transfer_set: TransferSet,
    fidelity: Fidelity,
    seed: int,
    objective: Objective | None = None,
    graphed: bool = False,
) -> None:
    """Distil the teacher into the student, in place.

    Args:
        student: The slim network; ends in evaluation mode. All of it is trained, see `unfreeze`.
        train: The training split.
        transfer_set: The batches, one after the other.
        fidelity: How. Its precision and kernels must be chosen, not "auto".
        seed: Drives dropout if the network has any. Nothing else is random.
        objective: What is learned; that of classification unless given.
        graphed: Launch a batch as one, on a GPU; see `is_same_graphed`.
    """
    if len(transfer_set.indices) == 0:
        return
    unfreeze(student)
    device = train.images.device
    optimizer = AdamW(student.parameters(), fidelity.weight_decay)

    def learn(
        images: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor, weight: Any, rate: Any
    ) -> None:
        with computing(fidelity.precision, device):
            logits = student(laid_out(images, fidelity.precision, student))
        loss = distillation_loss(
            logits.float(),
            teacher_logits,
            labels,
            distillation_weight=weight,
            temperature=fidelity.temperature,
            label_smoothing=fidelity.label_smoothing,
            objective=objective,
        )
        check_differentiable(loss, "no fine-tuning: Fidelity(batches=0)")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(rate)

    student.train()
    laid = device.type == "cuda" and is_fast(fidelity.precision)
    with (
        own_random_numbers(device, seed),
        weights_last(student) if laid else nullcontext(),
        hastened(student, train.images[:1], fidelity.precision, fidelity.kernels),
        launched_as_one(learn, device) if graphed else nullcontext(learn) as learn_batch,
    ):
        images = batches_of(train.images, transfer_set.indices)
        schedule = _schedule(fidelity, len(transfer_set.indices), device)
        for batch, indices, teacher_logits, weight, rate in zip(images, *transfer_set, *schedule, strict=True):
            learn_batch(batch, teacher_logits, train.labels[indices], weight, rate)
        optimizer.zero_grad()
    student.eval()


def is_same_graphed(network: nn.Module, train: LabelledImages, fidelity: Fidelity, objective: Objective) -> bool:
    """Whether fine-tuning gives the same weights, to the last bit, when its batches are launched as one.

    It does not where a forward pass depends on what Python holds, such as a counter. Tried with a few batches; a
    loss of the user's own is not recorded at all, since what it holds may change later.

    Args:
        network: The original one; left as it is.
        train: The training split.
        fidelity: How; chosen, as for `fine_tune`.
        objective: What is learned.
    """
    device = train.images.device
    own = objective.own_loss or objective.own_distillation
    if device.type != "cuda" or own or fidelity.batches < _FEWEST_GRAPHED:
        return False
    indices = draw_batches(len(train.labels), fidelity.batch_size, _FEWEST_GRAPHED, seed=0).to(device)
    with torch.no_grad(), computing(fidelity.precision, device):
        answers = torch.stack([network(images).float() for images in batches_of(train.images, indices)])

    def tuned(graphed: bool) -> list[torch.Tensor]:
        student = copy.deepcopy(network)
        fine_tune(student, train, TransferSet(indices, answers), fidelity, 0, objective, graphed)
        return list(student.state_dict().values())

    return gives_the_same(tuned, device)


def _schedule(fidelity: Fidelity, batches: int, device: torch.device) -> Iterable[Iterable[Any]]:
    """Distillation weight and learning rate of every batch: numbers, which a GPU reads when it comes to them."""
    first, last = fidelity.first_distillation_weight, fidelity.last_distillation_weight
    weights, rates = torch.linspace(first, last, batches).tolist(), cosine(fidelity.learning_rate, batches)
    if device.type != "cuda":
        return weights, rates
    return torch.tensor([weights, rates]).to(device, non_blocking=True)


def unfreeze(student: nn.Module) -> None:
    """Let all parameters of a student be trained, whatever their ``requires_grad`` was.

    It was copied from its teacher, and loaded models are often frozen as a whole; where they are in part, a layer
    that has lost channels must be able to recover all the same.
    """
    for parameter in student.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
