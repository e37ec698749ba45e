"""Residual networks for CIFAR with padded shortcuts (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class CifarBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without weights, option A of He et al. 2016, section 4.2.

    Where the block halves the image, the shortcut takes every second pixel. Where it has more channels after than
    before, the shortcut is padded with channels of zeros, half of them on either side; of an odd number the larger
    half comes last.
    """

    def __init__(self, before: int, inside: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, inside, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv2 = nn.Conv2d(inside, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.stride, self.padding = stride, ((after - before) // 2, (after - before + 1) // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[N, before, H, W]`` to ``[N, after, H / stride, W / stride]``."""
        shortcut = x
        if self.stride > 1 or any(self.padding):
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, *self.padding))
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels, each of so many blocks: 6 * blocks + 2 layers with weights."""

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                *(
                    CifarBlock(before if index == 0 else width, width, width, stride if index == 0 else 1)
                    for index in range(blocks)
                )
            )
            for before, width, stride in ((16, 16, 1), (16, 32, 2), (32, 64, 2))
        )
        self.relu, self.linear = nn.ReLU(), nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 3, 32, 32]`` to logits ``[N, num_classes]``."""
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))  # [N, 64, 8, 8]
        return self.linear(x.mean(dim=(2, 3)))


def resnet20(num_classes: int = 10) -> CifarResNet:
    """ResNet-20 for CIFAR with padded shortcuts, 19 agents, 688 filters."""
    return CifarResNet(3, num_classes)


def resnet32(num_classes: int = 10) -> CifarResNet:
    """ResNet-32 for CIFAR with padded shortcuts, 31 agents, 1136 filters."""
    return CifarResNet(5, num_classes)


def resnet56(num_classes: int = 10) -> CifarResNet:
    """ResNet-56 for CIFAR with padded shortcuts, 55 agents, 2032 filters."""
    return CifarResNet(9, num_classes)


def resnet110(num_classes: int = 10) -> CifarResNet:
    """ResNet-110 for CIFAR with padded shortcuts, 109 agents, 4048 filters."""
    return CifarResNet(18, num_classes)
