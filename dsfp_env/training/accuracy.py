"""Top-1 accuracy of a network on a split, as a fraction in [0, 1]."""

from __future__ import annotations

import torch
from torch import nn

from dsfp_env.common.devices import device_of
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.speed.precision import computing, laid_out

_LARGE, _IN_CACHE = 512, 128


@torch.no_grad()
def compute_logits(
    network: nn.Module, images: torch.Tensor, batch_size: int | None = None, precision: str = "float32"
) -> torch.Tensor:
    """Logits ``[N, classes]`` of images ``[N, C, H, W]``, on its device; puts the network in evaluation mode."""
    network.eval()
    device = device_of(network, images.device)
    batches = images.split(batch_size or _batch_size(precision, device))
    with computing(precision, device):
        batches = [network(laid_out(batch.to(device), precision, network)) for batch in batches]
    return torch.cat(batches).float()


def measure_accuracy(network: nn.Module, split: LabelledImages, precision: str = "float32") -> float:
    """Fraction of images whose label has the largest logit; puts the network in evaluation mode."""
    answers = compute_logits(network, split.images, precision=precision).argmax(1)
    correct = answers == split.labels.to(answers.device)
    return int(correct.sum()) / len(correct)


def _batch_size(precision: str, device: torch.device) -> int:
    """A fast one: as units for bfloat16 are fed from the CPU's cache, activations had better stay there."""
    return _IN_CACHE if precision == "bfloat16" and device.type == "cpu" else _LARGE
