"""The original network as a teacher: what it answers to the batches of a short distillation, kept."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from dsfp_env.common.devices import with_gradients
from dsfp_env.common.one_at_a_time import alone, computed_once
from dsfp_env.datasets.labelled_images import draw_batches
from dsfp_env.speed.folding import fold, foldable
from dsfp_env.training.accuracy import compute_logits
from dsfp_env.training.distillation import Fidelity, TransferSet

_TRANSFER_SETS_KEPT = 16  # a few seeds of a few fidelities

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
            self._transfer_sets[key] = TransferSet(indices, self._answers(indices, fidelity.precision))
        return self._transfer_sets[key]

    def _answers(self, indices: torch.Tensor, precision: str) -> torch.Tensor:
        """Logits ``[batches, N, classes]`` for batches of training images."""
        if precision == "float32":
            answering = self._network
            if indices.numel() >= len(self._images):
                return self.logits[indices]  # of the whole split, once for all seeds
        else:
            answering = fold(self._network, self.norms)
        answers = [compute_logits(answering, self._images[batch], precision=precision) for batch in indices]
        return torch.stack(answers) if answers else torch.empty(0)
