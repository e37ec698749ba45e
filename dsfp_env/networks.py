"""The networks that tasks are made of.

| network      | input   | convolutions          | parameters | multiply-adds |
|--------------|---------|-----------------------|------------|---------------|
| `digits_net` | 1x8x8   | 16, 32, M, 32, 64     | 33 338     | 747 136       |
| `resnet20`   | 3x32x32 | 7 x 16, 6 x 32, 6 x 64| 269 722    | 40 551 040    |

(M: 2x2 max pooling, n x c: n convolutions of c filters; parameters with 10 classes; a test checks the table.)
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F


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


class CifarBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights, option A of He et al. 2016, section 4.2.

    Where the block halves the image and doubles the channels, the shortcut takes every second pixel and pads the
    channels with zeros, a quarter of the new number on either side.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        stride = channels // in_channels
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride, self.padding = stride, (channels - in_channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, channels, H / stride, W / stride]``."""
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """The residual network for CIFAR (He et al. 2016, section 4.2): three stages of 16, 32 and 64 channels."""

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(CifarBlock(before if index == 0 else width, width) for index in range(blocks)))
            for before, width in ((16, 16), (16, 32), (32, 64))
        )
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 3, 32, 32]`` to logits ``[N, num_classes]``."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))  # [N, 64, 8, 8]
        return self.linear(x.mean(dim=(2, 3)))


def resnet20(num_classes: int = 10) -> CifarResNet:
    """ResNet-20 for CIFAR with padded shortcuts, 19 agents, 688 filters."""
    return CifarResNet(3, num_classes)
