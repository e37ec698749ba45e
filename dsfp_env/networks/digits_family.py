"""Relatives of `DigitsNet`: networks for 8x8 images that differ in depth, width, kernels and normalisation."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from dsfp_env.networks.plain import POOL, Widths


class DigitsRelative(nn.Module):
    """Convolutions and max pools, global average pooling, one linear layer, for images with one channel.

    Args:
        widths: The convolutions and pools.
        kernel_size: Of all convolutions; odd.
        norm: Whether every convolution has batch normalisation, or a bias instead.
        num_classes: Logits.
    """

    def __init__(self, widths: Widths, kernel_size: int = 3, norm: bool = True, num_classes: int = 10) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels, index = 1, 0
        for item in widths:
            if isinstance(item, str):
                assert item == POOL
                layers[f"pool{index}"] = nn.MaxPool2d(2)
                continue
            index += 1
            layers[f"conv{index}"] = nn.Conv2d(
                channels, item, kernel_size, padding=kernel_size // 2, bias=not norm
            )
            if norm:
                layers[f"bn{index}"] = nn.BatchNorm2d(item)
            layers[f"relu{index}"] = nn.ReLU()
            channels = item
        self.features, self.classifier = nn.Sequential(layers), nn.Linear(channels, num_classes)
        for parameter in self.features.parameters():
            if parameter.dim() > 1:  # torch's default is too small for deep networks without normalisation
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 1, H, W]`` to logits ``[N, num_classes]``."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))
