"""Top-1 accuracy of a network on a split, as a fraction in [0, 1]."""

from __future__ import annotations

import torch
from torch import nn

from dsfp_env.data import LabelledImages


@torch.no_grad()
def compute_logits(network: nn.Module, images: torch.Tensor, batch_size: int = 512) -> torch.Tensor:
    """Logits ``[N, classes]`` of images ``[N, C, H, W]``; puts the network in evaluation mode."""
    network.eval()
    return torch.cat([network(batch) for batch in images.split(batch_size)])


def measure_accuracy(network: nn.Module, split: LabelledImages) -> float:
    """Fraction of images whose label has the largest logit; puts the network in evaluation mode."""
    correct = compute_logits(network, split.images).argmax(1) == split.labels
    return int(correct.sum()) / len(correct)
