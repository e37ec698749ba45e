"""The long fine-tune, when the ratios are found: epochs of distillation over varied images, the best kept.

As in DSFP, sections III-C and IV-A: the loss of `distillation` with T = 4 and label smoothing, its distillation
weight falling linearly over the whole training, AdamW, warm restarts, and the student of the epoch that was best
on the validation split. (The paper names no validation split; here it is one that is not the test split.)
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from dsfp_env.common.devices import device_of
from dsfp_env.common.tensor_files import read_tensors, write_tensors
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.speed.layout import layout_of
from dsfp_env.speed.precision import chosen, computing
from dsfp_env.training import epochs
from dsfp_env.training.augmentation import Augment
from dsfp_env.training.distillation import distillation_loss, unfreeze
from dsfp_env.training.epochs import Batch, Epoch
from dsfp_env.training.objectives import Objective
from dsfp_env.training.recipes import Recipe


def distil(
    student: nn.Module,
    teacher: nn.Module | TeacherMemory,
    train: LabelledImages,
    validation: LabelledImages,
    recipe: Recipe,
    seed: int,
    *,
    temperature: float = 4.0,
    first_distillation_weight: float = 0.9,
    last_distillation_weight: float = 0.1,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_batch: Callable[[float, int], None] | None = None,
    checkpoint: Path | None = None,
    objective: Objective | None = None,
    augment: Augment | None = None,
) -> list[Epoch]:
    """Fine-tune a slim network in place.

    Args:
        student: The slim network, on whose device the work is done; ends with the weights of the epoch that was
            best on validation. All of it is trained, see `distillation.unfreeze`.
        teacher: The original network, which answers for the images as the student sees them; or a memory of its
            answers, which spares most of the work when several students are trained with one seed.
        train: The training split.
        validation: For the choice of the best epoch.
        recipe: For example ``recipes.FINE_TUNING["paper"]``.
        seed: Chooses the batches and varies the images.
        temperature: T.
        first_distillation_weight: w at the first batch.
        last_distillation_weight: w at the last batch.
        on_epoch: Called after every epoch.
        on_batch: Called after every batch; see `epochs.train`.
        checkpoint: A file for the state after every epoch; see `epochs.train`.
        objective: What is learned, ``task.objective``; that of classification unless given.
        augment: What varies images and targets in place of the recipe, ``task.augment``; see `epochs.train`.

    Returns:
        What every epoch brought.
    """
    unfreeze(student)
    answers = teacher if isinstance(teacher, TeacherMemory) else TeacherMemory(teacher, recipe)

    def loss(batch: Batch) -> torch.Tensor:
        fallen = first_distillation_weight + (last_distillation_weight - first_distillation_weight) * batch.done
        return distillation_loss(
            batch.logits,
            batch.answers,
            batch.labels,
            distillation_weight=fallen,
            temperature=temperature,
            label_smoothing=recipe.label_smoothing,
            objective=objective,
        )

    history = epochs.train(
        student,
        train,
        recipe,
        seed,
        loss=loss,
        teacher=answers,
        validation=validation,
        on_epoch=on_epoch,
        on_batch=on_batch,
        checkpoint=checkpoint,
        objective=objective,
        vary=augment,
    )
    answers.close()
    return history


class TeacherMemory:
    """What the teacher answered, batch by batch, so that other students with the same seed need not ask again.

    Args:
        teacher: The original network; it is copied.
        recipe: Gives its precision and its memory format.
        folder: Where the answers of an epoch are kept. Without one, nothing is remembered. It must be of one
            teacher, one training split, one recipe and one seed.
    """

    def __init__(self, teacher: nn.Module, recipe: Recipe, folder: Path | None = None) -> None:
        self._teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        if recipe.channels_last and layout_of(teacher) is torch.channels_last:
            self._teacher.to(memory_format=torch.channels_last)
        self._recipe, self._folder = recipe, folder
        self._epoch, self._known = -1, torch.empty(0)
        self._answers: list[torch.Tensor] = []

    def __call__(self, images: torch.Tensor, epoch: int, number: int) -> torch.Tensor:
        """Answers ``[N, ...]`` for the images of a batch, of that number in an epoch; both from 0."""
        if self._folder is None:
            return self._ask(images)
        if epoch != self._epoch:
            self._open(epoch, images.device)
        if number < len(self._known):
            return self._known[number]
        self._answers.append(self._ask(images))
        return self._answers[-1]

    def _ask(self, images: torch.Tensor) -> torch.Tensor:
        if device_of(self._teacher, images.device) != images.device:
            self._teacher.to(images.device)
        precision = chosen(self._recipe.precision, images.device)
        with torch.no_grad(), computing(precision, images.device):
            return self._teacher(images).float()

    def _open(self, epoch: int, device: torch.device) -> None:
        """Write the answers of the epoch that is over, and bring those of the one that begins to a device."""
        self.close()
        file = self._file(epoch)
        self._epoch = epoch
        try:
            self._known = read_tensors(file)["logits"].to(device)
        except (OSError, ValueError):  # absent, or damaged: asked again
            self._known = torch.empty(0)

    def close(self) -> None:
        """Write the answers of the last epoch."""
        if self._answers and self._folder is not None:
            write_tensors(self._file(self._epoch), {"logits": torch.stack(self._answers)})  # [batches, N, classes]
        self._answers = []

    def _file(self, epoch: int) -> Path:
        assert self._folder is not None
        return self._folder / f"teacher-epoch-{epoch + 1:04d}.safetensors"
