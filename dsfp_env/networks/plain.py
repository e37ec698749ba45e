"""Networks without branches: convolutions and pools one after another, then linear layers.

AlexNet and VGG-16 are those of the DSFP paper (arXiv 2509.05446, tables I and II). It gives only their numbers of
parameters and of filters; these are the architectures that have them, to the parameter, and none with batch
normalisation does. Dropout has no parameters and the paper does not mention it, so there is none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

POOL = "M"  # 2x2 max pooling
Widths = Sequence[int | str]  # filters of each convolution, and pools

ALEXNET: Widths = (64, POOL, 192, POOL, 384, 256, 256, POOL)
SMALL_VGG: Widths = (16, 16, POOL, 32, 32, POOL, 64, 64)
VGG16: Widths = (64, 64, POOL, 128, 128, POOL, *(256,) * 3, POOL, *(512,) * 3, POOL, *(512,) * 3, POOL)


class DigitsNet(nn.Module):
    """Four 3x3 convolutions with batch normalisation, global average pooling, one linear layer."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = convolutions((16, 32, POOL, 32, 64), in_channels=1, norm=True, bias=False)
        self.classifier = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 1, 8, 8]`` to logits ``[N, num_classes]``."""
        features = self.features(images)  # [N, 64, 4, 4]
        return self.classifier(features.mean(dim=(2, 3)))


class PlainNet(nn.Module):
    """3x3 convolutions and max pools, then hidden linear layers, for colour images of any size.

    Args:
        widths: The convolutions and pools.
        grid: Height and width that the linear layers see; other sizes are average-pooled to it.
        hidden: Widths of the hidden linear layers.
        norm: Whether every convolution has batch normalisation.
        num_classes: Logits.
    """

    def __init__(self, widths: Widths, grid: int, hidden: Sequence[int], norm: bool, num_classes: int) -> None:
        super().__init__()
        self.features = convolutions(widths, in_channels=3, norm=norm, bias=True)
        self.grid = grid
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = [item for item in widths if isinstance(item, int)][-1] * grid**2
        for index, out_features in enumerate(hidden, start=1):
            layers[f"fc{index}"], layers[f"relu{index}"] = nn.Linear(width, out_features), nn.ReLU()
            width = out_features
        layers[f"fc{len(hidden) + 1}"] = nn.Linear(width, num_classes)
        self.classifier = nn.Sequential(layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:  # torch's default is too small for 13 layers without normalisation
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, 3, H, W]`` to logits ``[N, num_classes]``."""
        features = F.adaptive_avg_pool2d(self.features(images), self.grid)  # as it is for 32x32 images
        return self.classifier(features.flatten(1))


def convolutions(widths: Widths, in_channels: int, *, norm: bool, bias: bool) -> nn.Sequential:
    """3x3 convolutions ``conv1, conv2, ...``, each followed by ``bn`` if asked for and ``relu``, and pools."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    index = 0
    for item in widths:
        if isinstance(item, str):
            layers[f"pool{index}"] = nn.MaxPool2d(2)
            continue
        index += 1
        layers[f"conv{index}"] = nn.Conv2d(in_channels, item, 3, padding=1, bias=bias)
        if norm:
            layers[f"bn{index}"] = nn.BatchNorm2d(item)
        layers[f"relu{index}"] = nn.ReLU()
        in_channels = item
    return nn.Sequential(layers)


def digits_net(num_classes: int = 10) -> DigitsNet:
    """The embedded default: a network for scikit-learn's 8x8 handwritten digits, 4 agents, 144 filters."""
    return DigitsNet(num_classes)


def alexnet(num_classes: int = 10) -> PlainNet:
    """AlexNet for CIFAR as in the DSFP paper, table I: 5 agents, 1152 filters."""
    return PlainNet(ALEXNET, grid=4, hidden=(1024, 512), norm=False, num_classes=num_classes)


def alexnet_bn(num_classes: int = 10) -> PlainNet:
    """`alexnet` with batch normalisation after every convolution."""
    return PlainNet(ALEXNET, grid=4, hidden=(1024, 512), norm=True, num_classes=num_classes)


def small_vgg(num_classes: int = 10) -> PlainNet:
    """A VGG for CIFAR that is small enough to be tabulated: 6 agents, 224 filters, batch normalisation."""
    return PlainNet(SMALL_VGG, grid=1, hidden=(), norm=True, num_classes=num_classes)


def vgg16(num_classes: int = 10) -> PlainNet:
    """VGG-16 for CIFAR as in the DSFP paper, table II: 13 agents, 4224 filters."""
    return PlainNet(VGG16, grid=1, hidden=(256,), norm=False, num_classes=num_classes)


def vgg16_bn(num_classes: int = 10) -> PlainNet:
    """`vgg16` with batch normalisation after every convolution."""
    return PlainNet(VGG16, grid=1, hidden=(256,), norm=True, num_classes=num_classes)


def vgg16_dcff(num_classes: int = 10) -> PlainNet:
    """VGG-16 with batch normalisation and a single linear layer, as in the DCFF paper."""
    return PlainNet(VGG16, grid=1, hidden=(), norm=True, num_classes=num_classes)
