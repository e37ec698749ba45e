"""Training a network by a recipe: epochs over images in memory, the loss handed in, resumable, the best kept.

After every epoch the whole state is written to the checkpoint, if there is one, so that a training which was
stopped goes on from there, and ends with the same network, bit for bit, as one that was not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dsfp_env.common.devices import device_of, fused
from dsfp_env.common.errors import InputError
from dsfp_env.common.one_at_a_time import alone
from dsfp_env.common.random_numbers import generator_state, own_random_numbers, set_generator_state
from dsfp_env.common.repeatable import repeatable
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.datasets.on_demand import batches_of
from dsfp_env.speed.graphed import Work, gives_the_same, launched_as_one
from dsfp_env.speed.hastened import hastened
from dsfp_env.speed.layout import bears_channels_last
from dsfp_env.speed.norm_kernel import choose_kernels
from dsfp_env.speed.precision import chosen, computing
from dsfp_env.training.accuracy import measure_metric
from dsfp_env.training.augmentation import Augment, augment, augment_as_told, augment_masks, movable
from dsfp_env.training.objectives import NOT_A_CLASS, Objective
from dsfp_env.training.optimizers import optimizer_of, schedule_of
from dsfp_env.training.recipes import Recipe, suited
from dsfp_env.training.states import IDENTITY, read_state, write_state


class Batch(NamedTuple):
    """What a loss may look at."""

    logits: torch.Tensor  # [N, classes], or answers [N, ...] of another form; float32
    images: torch.Tensor  # [N, C, H, W], as the network saw them
    labels: torch.Tensor  # [N] int64, or [N, classes] after mixup; or targets [N, ...]
    answers: torch.Tensor  # [N, ...], of the teacher, if there is one
    done: Any  # the share of the training that is over, in [0, 1): a number; on a GPU a tensor


class Epoch(NamedTuple):
    """What is told after an epoch."""

    number: int  # from 1
    of: int
    loss: float  # mean over the batches
    accuracy: float | None  # the metric, scaled to [0, 1], on the validation split, if there is one


Loss = Callable[[Batch], torch.Tensor]
Teacher = Callable[[torch.Tensor, int, int], torch.Tensor]  # of images, the epoch and the batch in it, both from 0
_BATCHES_TRIED = 4


@alone()
def train(
    network: nn.Module,
    images: LabelledImages,
    recipe: Recipe,
    seed: int,
    *,
    loss: Loss | None = None,
    teacher: Teacher | None = None,
    validation: LabelledImages | None = None,
    before_epoch: Callable[[int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_batch: Callable[[float, int], None] | None = None,
    checkpoint: Path | None = None,
    about: Mapping[str, Any] | None = None,
    objective: Objective | None = None,
    vary: Augment | None = None,
) -> list[Epoch]:
    """Train a network in place; it ends in evaluation mode.

    Args:
        network: Where it is, the work is done.
        images: The training split; it is brought to the network's device.
        recipe: How to train.
        seed: Chooses the batches, varies the images, and drives dropout if the network has any.
        loss: Of a batch, a scalar; that of the objective with the recipe's label smoothing unless given.
        teacher: Gives `Batch.answers` for the images as the network sees them.
        validation: If given, the network ends with the weights of the epoch that was best on it. It is brought
            to the network's device too.
        before_epoch: Called with the number of the epoch, from 0; it may change the network's weights in place.
        on_epoch: Called after every epoch.
        on_batch: Called after every batch with how many epochs are over, a fraction, and of how many.
        checkpoint: A file for the state after every epoch. If it is there, training goes on from it.
        about: What else makes this training what it is, for the checkpoint; plain values.
        objective: Its loss, and its metric for the best epoch; that of classification unless given.
        vary: Of (image, target): what varies them, in place of the recipe's shifts and mirror images; see
            `augmentation.augment_as_told`.

    Returns:
        What every epoch brought, also those before the checkpoint.

    Raises:
        InputError: If the checkpoint is not of this training, or the recipe does not suit the targets.
    """
    learned = objective or Objective()
    run = _Training(network, images, recipe, seed, checkpoint, dict(about or {}), learned, vary)
    if validation is not None:
        validation = validation.to(run.device)
    with repeatable(exact=run.recipe.precision != "bfloat16"):
        ours = loss is None or teacher is not None  # what a loss of the user's own holds may change
        loss = loss or (lambda batch: learned.loss(batch.logits, batch.labels, recipe.label_smoothing))
        ours = ours and before_epoch is None and not (learned.own_loss or learned.own_distillation)
        graphed = ours and run.is_same_graphed(loss, teacher)
        with own_random_numbers(run.device, seed), run.hastened(), run.learning(loss, graphed) as learn:
            run.resume()
            while len(run.history) < recipe.epochs:
                if before_epoch:
                    before_epoch(len(run.history))
                mean_loss = run.epoch(learn, teacher, graphed, on_batch)
                accuracy = None if validation is None else run.measure(validation)
                run.history.append(Epoch(len(run.history) + 1, recipe.epochs, mean_loss, accuracy))
                run.save()
                if on_epoch:
                    on_epoch(run.history[-1])
    run.finish()
    return run.history


class _Training:
    """The state of a training between its epochs."""

    def __init__(
        self,
        network: nn.Module,
        images: LabelledImages,
        recipe: Recipe,
        seed: int,
        checkpoint: Path | None,
        about: dict[str, Any],
        objective: Objective,
        vary: Augment | None,
    ) -> None:
        self.device = device_of(network, images.images.device)
        images = images.to(self.device)
        width = images.images.shape[-1] if _movable(images.labels, objective) else 0
        recipe = suited(recipe, width, flips=False)
        recipe = replace(recipe, precision=chosen(recipe.precision, self.device))
        _check_targets(recipe, images.labels, objective, vary)
        self.network, self.images, self.recipe, self.checkpoint = network, images, recipe, checkpoint
        self.objective, self.vary = objective, vary
        self.identity: dict[str, Any] = {
            "recipe": asdict(recipe),
            "seed": seed,
            "images": len(images.labels),
            "sizes": [list(parameter.shape) for parameter in network.parameters()],
            "about": about,
        }
        self.history: list[Epoch] = []
        self.best: dict[str, torch.Tensor] | None = None
        self.channels_last = recipe.channels_last and bears_channels_last(network, images.images)
        if self.channels_last:
            network.to(memory_format=torch.channels_last)
        self.batch_size = min(recipe.batch_size, len(images.labels))
        self.batches = len(images.labels) // self.batch_size  # in an epoch
        self.optimizer = optimizer_of(network, recipe, self.device)
        self.schedule = schedule_of(self.optimizer, recipe, -(-self.batches // recipe.accumulate))
        self.last_loss = torch.zeros((), device=self.device)
        self.rng = torch.Generator().manual_seed(seed)  # of order and shifts: they do not depend on the network

    def hastened(self) -> AbstractContextManager[None]:
        """A context in which the network trains by the fastest ways there are, unless it is to be exact."""
        precision = self.recipe.precision
        kernels = choose_kernels("auto", precision, self.device) if self.channels_last else "torch"
        return hastened(self.network, self.images.images[:1], precision, kernels)

    @contextmanager
    def learning(self, loss: Loss, graphed: bool) -> Iterator[Work]:
        """What is done with a batch: its gradients are added to those that are there.

        Args:
            loss: Of a batch.
            graphed: Launch a batch as one, on a GPU.

        Yields:
            A function of images, labels, the teacher's answers and the share that is done; the loss goes to
            ``last_loss``.
        """
        network, recipe = self.network, self.recipe

        def learn(images: torch.Tensor, labels: torch.Tensor, answers: torch.Tensor, done: Any) -> None:
            with self._precision():
                logits = network(images)
            one = loss(Batch(logits.float(), images, labels, answers, done))
            (one / recipe.accumulate).backward()
            self.last_loss.copy_(one.detach().reshape(()))

        with launched_as_one(learn, self.device) if graphed else nullcontext(learn) as work:
            yield work

    def epoch(
        self,
        learn: Work,
        teacher: Teacher | None,
        graphed: bool,
        on_batch: Callable[[float, int], None] | None,
    ) -> float:
        """Go over the images once; the mean loss."""
        recipe, device = self.recipe, self.device
        self.network.train()
        order = torch.randperm(len(self.images.labels), generator=self.rng)[: self.batches * self.batch_size]
        losses = torch.zeros(self.batches, device=device)
        for number, (images, labels) in enumerate(self._batches(order.view(-1, self.batch_size))):
            epoch = len(self.history)
            answers = labels if teacher is None else teacher(images, epoch, number)
            done: Any = (epoch + number / self.batches) / recipe.epochs
            if device.type == "cuda":  # which reads it when it comes to it
                done = torch.full((), done, device=device)
            learn(images, labels, answers, done)
            losses[number] = self.last_loss
            if (number + 1) % recipe.accumulate == 0 or number + 1 == self.batches:
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=not graphed)  # a graph writes where they were
                self.schedule.step()
            if on_batch:
                on_batch(epoch + (number + 1) / self.batches, recipe.epochs)
        return float(losses.mean())

    def is_same_graphed(self, loss: Loss, teacher: Teacher | None) -> bool:
        """Whether gradients are the same, to the last bit, when a batch is launched as one; tried with a few."""
        if self.device.type != "cuda" or self.batches < _BATCHES_TRIED:
            return False
        places = torch.arange(_BATCHES_TRIED * self.batch_size).view(_BATCHES_TRIED, -1)
        rng, original = self.rng.get_state(), self.network

        def learned(graphed: bool) -> list[torch.Tensor | None]:
            self.network = copy.deepcopy(original).train()
            self.rng.set_state(rng)
            with own_random_numbers(self.device, 0), self.hastened(), self.learning(loss, graphed) as learn:
                for images, labels in self._batches(places):
                    answers = labels if teacher is None else torch.zeros_like(self.network(images)).float()
                    learn(images, labels, answers, torch.full((), 0.5, device=self.device))
            return [*self.network.state_dict().values(), *(one.grad for one in self.network.parameters())]

        try:
            return gives_the_same(learned, self.device)
        finally:
            self.network = original
            self.rng.set_state(rng)

    def _batches(self, places: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Images and labels ``[n, ...]`` as they are varied; of places ``[batches, n]``."""
        places = places.to(self.device)
        read = batches_of(self.images.images, places)
        for batch, indices in zip(read, places, strict=True):
            yield self._vary(batch, self.images.labels[indices])

    def measure(self, validation: LabelledImages) -> float:
        """The scaled metric on the validation split; the weights are kept if it is the best so far."""
        with self._precision():
            value = measure_metric(self.network, validation, self.objective.metric)
        accuracy = self.objective.metric.scaled(value)
        if accuracy > max((epoch.accuracy or 0.0 for epoch in self.history), default=-1.0):
            self.best = copy.deepcopy(self.network.state_dict())
        return accuracy

    def finish(self) -> None:
        """Leave the network with its best weights, in evaluation mode."""
        if self.best is not None:
            self.network.load_state_dict(self.best)
        if self.channels_last:
            self.network.to(memory_format=torch.contiguous_format)
        self.optimizer.zero_grad()
        self.network.eval()

    def save(self) -> None:
        """Write the state to the checkpoint, at once or not at all."""
        if self.checkpoint is None:
            return
        state = {
            IDENTITY: self.identity,
            "network": self.network.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "rng": self.rng.get_state(),
            "global_rng": torch.get_rng_state(),
            f"{self.device.type}_rng": generator_state(self.device),
            "history": [tuple(epoch) for epoch in self.history],
        }
        write_state(self.checkpoint, state)

    def resume(self) -> None:
        """Take the state from the checkpoint, if it is there."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return
        state = read_state(self.checkpoint, self.identity)
        self.network.load_state_dict(state["network"])
        self.best = state["best"]
        for group in state["optimizer"]["param_groups"]:  # it may have been written on another device
            group["fused"] = fused(self.device)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.rng.set_state(state["rng"])
        torch.set_rng_state(state["global_rng"])
        set_generator_state(self.device, state.get(f"{self.device.type}_rng"))
        self.history = [Epoch(*epoch) for epoch in state["history"]]

    def _vary(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        recipe = self.recipe
        shift, flip = recipe.shift or 0, bool(recipe.flip)
        if self.vary is not None:
            images, labels = augment_as_told(images, labels, self.vary, self.rng)
        elif images.dim() == 4 and labels.dim() > 2 and not labels.is_floating_point():
            ignored = self.objective.ignore_index
            empty = NOT_A_CLASS if ignored is None else ignored
            images, labels = augment_masks(images, labels, shift, flip, self.rng, empty)
        elif images.dim() == 4:
            images = augment(images, shift, flip, self.rng)
        if images.dim() == 4 and self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if recipe.mixup:
            from torchvision.transforms import v2  # takes seconds

            images, labels = v2.MixUp(alpha=recipe.mixup, num_classes=self._num_classes)(images, labels)
        return images, labels

    @cached_property
    def _num_classes(self) -> int:
        return 1 + int(self.images.labels.max())

    def _precision(self) -> torch.autocast:
        return computing(self.recipe.precision, self.device)


def _check_targets(recipe: Recipe, targets: torch.Tensor, objective: Objective, vary: Augment | None) -> None:
    """Refuse a recipe that would make targets wrong.

    Raises:
        InputError: If it mixes what are no labels, or moves images whose targets it cannot move.
    """
    labels = targets.dim() == 1 and not targets.is_floating_point()
    if recipe.mixup and not labels:
        raise InputError(
            f"The recipe has mixup={recipe.mixup}, which mixes labels, and targets are {targets.dtype} of shape "
            f"{tuple(targets.shape)}: expected mixup=0 with them."
        )
    if vary is None and (recipe.shift or recipe.flip) and not _movable(targets, objective):
        raise InputError(
            f"The recipe has shift={recipe.shift} and flip={recipe.flip}, and what becomes of targets "
            f"{targets.dtype} of shape {tuple(targets.shape)} then is not known: expected shift=0 and flip=False, "
            "augment=, a function that moves both, or for masks ignore_index=, what comes in from outside."
        )


def _movable(targets: torch.Tensor, objective: Objective) -> bool:
    return movable(targets, objective.ignore_index, objective.own_loss is not None)
