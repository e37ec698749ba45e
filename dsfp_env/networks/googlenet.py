"""GoogLeNet for CIFAR, as in the DCFF paper: nine inception modules (Szegedy et al. 2015) with normalisation.

It differs from torchvision's: one 3x3 convolution at the front, two 3x3 convolutions in place of every 5x5, and no
auxiliary heads.
"""

from __future__ import annotations

import torch
from torch import nn


def conv_bn(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """A convolution that keeps the size of the image, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class Inception(nn.Module):
    """Four branches side by side: 1x1; 1x1 and 3x3; 1x1 and twice 3x3; pooling and 1x1.

    Args:
        in_channels: Of the input.
        widths: Filters of 1x1; of 1x1 (reduce) and 3x3; of 1x1 (reduce) and both 3x3; of 1x1 after pooling.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three_reduce, three, five_reduce, five, pooled = widths
        self.branch1 = conv_bn(in_channels, one, 1)
        self.branch2 = nn.Sequential(conv_bn(in_channels, three_reduce, 1), conv_bn(three_reduce, three, 3))
        self.branch3 = nn.Sequential(
            conv_bn(in_channels, five_reduce, 1), conv_bn(five_reduce, five, 3), conv_bn(five, five, 3)
        )
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn(in_channels, pooled, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, one + three + five + pooled, H, W]``."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class CifarGoogLeNet(nn.Module):
    """A 3x3 convolution, two, five and two inception modules with pooling between, one linear layer."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.front = conv_bn(3, 192, 3)
        self.a3, self.b3 = Inception(192, (64, 96, 128, 16, 32, 32)), Inception(256, (128, 128, 192, 32, 96, 64))
        self.pool3 = nn.MaxPool2d(3, stride=2, padding=1)
        self.a4, self.b4 = Inception(480, (192, 96, 208, 16, 48, 64)), Inception(512, (160, 112, 224, 24, 64, 64))
        self.c4, self.d4 = Inception(512, (128, 128, 256, 24, 64, 64)), Inception(512, (112, 144, 288, 32, 64, 64))
        self.e4 = Inception(528, (256, 160, 320, 32, 128, 128))
        self.pool4 = nn.MaxPool2d(3, stride=2, padding=1)
        self.a5, self.b5 = (
            Inception(832, (256, 160, 320, 32, 128, 128)),
            Inception(832, (384, 192, 384, 48, 128, 128)),
        )
        self.linear = nn.Linear(1024, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 3, 32, 32]`` to logits ``[N, num_classes]``."""
        x = self.pool3(self.b3(self.a3(self.front(images))))
        x = self.pool4(self.e4(self.d4(self.c4(self.b4(self.a4(x))))))
        x = self.b5(self.a5(x))  # [N, 1024, 8, 8]
        return self.linear(x.mean(dim=(2, 3)))


def googlenet(num_classes: int = 10) -> CifarGoogLeNet:
    """GoogLeNet for CIFAR, 64 convolutions."""
    return CifarGoogLeNet(num_classes)
