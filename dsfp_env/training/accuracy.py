"""What a network is worth on a split: its metric, by default top-1 accuracy as a fraction in [0, 1]."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dsfp_env.common.devices import device_of
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.speed.precision import computing, is_fast, laid_out
from dsfp_env.training.metrics import ACCURACY, Metric

_LARGE, _IN_CACHE = 512, 128
_OF_A_LARGE_IMAGE = 3 * 224 * 224


@torch.no_grad()
def compute_logits(
    network: nn.Module, images: torch.Tensor, batch_size: int | None = None, precision: str = "float32"
) -> torch.Tensor:
    """Answers ``[N, ...]`` to images ``[N, C, H, W]``, on its device; puts the network in evaluation mode."""
    network.eval()
    device = device_of(network, images.device)
    batches = images.split(batch_size or _batch_size(precision, device, images))
    with computing(precision, device):
        batches = [network(laid_out(batch.to(device), precision, network)) for batch in batches]
    return torch.cat(batches).float()


def measure_accuracy(network: nn.Module, split: LabelledImages, precision: str = "float32") -> float:
    """Top-1 accuracy of a network on a split; puts it in evaluation mode."""
    return measure_metric(network, split, ACCURACY, precision)


@torch.no_grad()
def measure_metric(network: nn.Module, split: LabelledImages, metric: Metric, precision: str = "float32") -> float:
    """The value of a metric on a split, in the metric's own units; puts the network in evaluation mode.

    Raises:
        InputError: If the metric fails, or gives no finite number.
    """
    network.eval()
    device = device_of(network, split.images.device)
    size = _batch_size(precision, device, split.images)
    running = metric.begin()
    with computing(precision, device):
        for images, targets in zip(split.images.split(size), split.labels.split(size), strict=True):
            answers = network(laid_out(images.to(device), precision, network))
            with computing("float32", device):  # the metric computes as it says
                running.update(answers, targets)
    return running.value()


def _batch_size(precision: str, device: torch.device, images: Any) -> int:
    """A fast one: as units for bfloat16 are fed from the CPU's cache, activations had better stay there.

    Args:
        precision: Of the network.
        device: Where it is. On a GPU batches are equal: another size is another plan for every convolution.
        images: ``[N, C, H, W]``; of large ones fewer are taken together.
    """
    count, numbers = len(images), images.shape[1:].numel()
    largest = _IN_CACHE if is_fast(precision) and device.type == "cpu" else _LARGE
    if numbers > _OF_A_LARGE_IMAGE:
        largest = max(1, _IN_CACHE * _OF_A_LARGE_IMAGE // numbers)
    if device.type == "cpu" or count == 0:
        return largest
    return -(-count // -(-count // largest))
