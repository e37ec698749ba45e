"""The original network as a teacher: what it answers to the batches of a short distillation, kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import nn

from dsfp_env.common.devices import with_gradients
from dsfp_env.common.one_at_a_time import alone, computed_once
from dsfp_env.datasets.labelled_images import draw_batches
from dsfp_env.datasets.on_demand import batches_of
from dsfp_env.speed.folding import fold, foldable
from dsfp_env.training.accuracy import compute_logits
from dsfp_env.training.distillation import Fidelity, TransferSet

_TRANSFER_SETS_KEPT = 16  # a few seeds of a few fidelities
_MOST_KEPT = 256 << 20  # bytes of the answers of one of them

_Key = tuple[int, int, str, int, int]  # batches, their size, precision, seed, threads


class Teacher:
    """Answers for training images, and remembers what it answered.

    Args:
        network: The original network, in evaluation mode.
        images: The training images ``[N, C, H, W]``, on its device.
        norms: Module path of a convolution -> that of the normalisation that takes its output; see `ChannelGraph`.
    """

    def __init__(self, network: nn.Module, images: torch.Tensor, norms: Mapping[str, str]) -> None:
        self._network, self._images, self._candidates = network, images, norms
        self._transfer_sets: dict[_Key, TransferSet] = {}

    @computed_once
    @with_gradients()
    def norms(self) -> dict[str, str]:
        """Those normalisations that `fold` takes into the convolutions before them."""
        return foldable(self._network, self._candidates, self._images[:2])

    @computed_once
    @with_gradients()
    def logits(self) -> torch.Tensor:
        """For all training images, exactly: ``[N, classes]`` float32."""
        return compute_logits(self._network, self._images)

    @alone()
    @with_gradients()
    def transfer_set(self, fidelity: Fidelity, seed: int) -> TransferSet:
        """The batches of distillation for a seed, and the answers to them; kept.

        Args:
            fidelity: How many, how large, and how precisely answered. Its precision must be chosen, not "auto".
            seed: Chooses the batches.
        """
        key = fidelity.batches, fidelity.batch_size, fidelity.precision, seed, torch.get_num_threads()
        if key not in self._transfer_sets:
            while len(self._transfer_sets) >= _TRANSFER_SETS_KEPT:
                self._transfer_sets.pop(next(iter(self._transfer_sets)))
            indices = draw_batches(len(self._images), fidelity.batch_size, fidelity.batches, seed)
            indices = indices.to(self._images.device)
            answers = self._answers(indices, fidelity.precision)
            self._transfer_sets[key] = TransferSet(indices, cast(torch.Tensor, answers))
        return self._transfer_sets[key]

    @computed_once
    @with_gradients()
    def _size(self) -> int:
        """Bytes of the answer to one image."""
        return compute_logits(self._network, self._images[:1]).nbytes

    def _answers(self, indices: torch.Tensor, precision: str) -> torch.Tensor | _Asked:
        """Logits ``[batches, N, classes]`` for batches of training images."""
        if precision == "float32":
            answering = self._network
            fits = isinstance(self._images, torch.Tensor) and self._size * len(self._images) <= _MOST_KEPT
            if indices.numel() >= len(self._images) and fits:
                return self.logits[indices]  # of the whole split, once for all seeds
        else:
            answering = fold(self._network, self.norms)
        asked = _Asked(answering, self._images, indices, precision)
        if self._size * indices.numel() > _MOST_KEPT:
            return asked
        answers = list(asked)
        return torch.stack(answers) if answers else torch.empty(0)


class _Asked:
    """Answers that would take too much memory together: given when they are asked for, and not kept."""

    def __init__(self, network: nn.Module, images: torch.Tensor, indices: torch.Tensor, precision: str) -> None:
        self._network, self._images, self._indices, self._precision = network, images, indices, precision

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in batches_of(self._images, self._indices):
            yield compute_logits(self._network, batch, precision=self._precision)
