"""The networks that tasks are made of.

| network      | input   | convolutions          | parameters | multiply-adds |
|--------------|---------|-----------------------|------------|---------------|
| `digits_net` | 1x8x8   | 16, 32, M, 32, 64     | 33 338     | 747 136       |

(M: 2x2 max pooling; parameters with 10 classes; a test checks the table.)
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn


class DigitsNet(nn.Module):
    """Four 3x3 convolutions with batch normalisation, global average pooling, one linear layer."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        in_channels = 1
        for index, out_channels in enumerate((16, 32, 32, 64), start=1):
            layers[f"conv{index}"] = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
            layers[f"bn{index}"] = nn.BatchNorm2d(out_channels)
            layers[f"relu{index}"] = nn.ReLU()
            if index == 2:
                layers["pool"] = nn.MaxPool2d(2)
            in_channels = out_channels
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(in_channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 1, 8, 8]`` to logits ``[N, num_classes]``."""
        features = self.features(images)  # [N, 64, 4, 4]
        return self.classifier(features.mean(dim=(2, 3)))


def digits_net(num_classes: int = 10) -> DigitsNet:
    """The embedded default: a network for scikit-learn's 8x8 handwritten digits, 4 agents, 144 filters."""
    return DigitsNet(num_classes)
