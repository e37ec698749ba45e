"""The compact networks of the DCFF paper: how many filters every convolution keeps.

Of C filters ``int(C * (1 - rate))`` stay, with the rates in the commands of the released code's README
(github.com/lmbxmu/DCFF). Those of VGG-16 and GoogLeNet are in the order of definition. Those of a residual network
are first of the layers inside its blocks (ResNet-50: of all first ones, then of all second ones), then, one per
stage, of the layers that are summed. The layer before the blocks has the rate of the first stage; in ResNet-50 it
has its own, the first of the list.

| network      | MACs          | parameters | the paper's accuracy, "FLOPs", parameters |
|--------------|---------------|------------|-------------------------------------------|
| `vgg16_dcff` |    72 349 240 |  1 071 248 | 93.47 %, 72.77 M, 1.06 M                  |
| `resnet56`   |    55 057 024 |    384 316 | 93.26 %, 55.84 M, 0.38 M                  |
| `resnet110`  |    84 117 632 |    555 368 | 93.80 %, 85.30 M, 0.56 M                  |
| `googlenet`  |   451 471 104 |  2 079 250 | 94.92 %, 457.22 M, 2.08 M                 |
| `resnet50`   | 1 474 688 936 | 10 581 581 | 74.21 % (ImageNet), 1.49 B, 10.58 M       |

With 10 classes and images of 3x32x32 pixels (ResNet-50: 1000 and 3x224x224); a test checks the table. The paper's
"FLOPs" are multiply-adds, one operation for every bias, two for every number that is normalised, and a few for the
last pooling. Its 1.06 M parameters of VGG-16 are 1.07 M by our count.
"""

from __future__ import annotations

import torch
from torch import nn

from dsfp_env.channels.graph import ChannelGraph
from dsfp_env.common.choices import choose
from dsfp_env.dcff.training import Skeleton, skeleton
from dsfp_env.networks import make_network
from dsfp_env.networks.resnet import CifarBlock, CifarResNet

# fmt: off
RATES: dict[str, list[float]] = {
    "vgg16_dcff": [*[0.5] * 2, *[0.4] * 2, *[0.35] * 3, *[0.85] * 6],
    "resnet56": [
        0.7, 0.7, 0.5, 0.5, 0.5, 0.3, 0.3, 0.4, 0.8,
        0.7, 0.7, 0.8, 0.8, 0.8, 0.8, 0.4, 0.2, 0.2,
        0.7, 0.3, 0.8, 0.4, 0.4, 0.7, 0.3, 0.4, 0.8,
        0.0, 0.0, 0.0,
    ],
    "resnet110": [
        0.2, 0.0, 0.2, 0.3, 0.7, 0.7, 0.1, 0.3, 0.3, 0.4, 0.7, 0.7, 0.5, 0.1, 0.3, 0.0, 0.6, 0.0,
        0.2, 0.5, 0.0, 0.7, 0.7, 0.5, 0.7, 0.7, 0.4, 0.4, 0.0, 0.3, 0.1, 0.5, 0.1, 0.1, 0.1, 0.7,
        0.1, 0.1, 0.3, 0.3, 0.3, 0.3, 0.3, 0.5, 0.7, 0.2, 0.4, 0.7, 0.7, 0.7, 0.7, 0.7, 0.5, 0.1,
        0.6, 0.2, 0.5,
    ],
    "googlenet": [
        0.0,
        *[0.0, 0.8, 0.0, 0.8, 0.8, 0.0, 0.0],
        *[0.0, 0.9, 0.0, 0.9, 0.9, 0.0, 0.0] * 3,
        *[0.0, 0.8, 0.0, 0.8, 0.8, 0.0, 0.0] * 3,
        *[0.0, 0.9, 0.0, 0.9, 0.9, 0.0, 0.0] * 2,
    ],
    "resnet50": [0.0, *[0.6] * 10, *[0.5] * 16, *[0.4] * 6, *[0.2] * 4],
}
# fmt: on


def published_ratios(name: str) -> dict[str, float]:
    """The pruning ratio of every convolution, 1 - kept / C by module path, as `ChannelGraph.keep` takes it.

    But of ``"resnet110"`` it takes only those of the layers inside blocks: the 6, 25 and 32 channels between the
    blocks are no part of 16, 32 and 64 with padded shortcuts. `published_skeleton` builds that network.

    Args:
        name: Of a network in `RATES`.

    Raises:
        InputError: If there are no rates for that network.
    """
    filters = _filters(name)
    kept = {path: int(filters[path] * (1 - rate)) for path, rate in _rates(name, list(filters)).items()}
    return {path: 1 - kept[path] / filters[path] for path in filters}


def published_skeleton(name: str, num_classes: int = 10) -> Skeleton:
    """A network of the paper, for `train_compact`.

    Args:
        name: Of a network in `RATES`.
        num_classes: Logits.

    Raises:
        InputError: If there are no rates for that network.
    """
    ratios, filters = published_ratios(name), _filters(name)
    if name == "resnet110":
        network: nn.Module = _resnet110(num_classes)
        ratios = {path: ratio for path, ratio in ratios.items() if path.startswith("layer") and path[-1] == "1"}
    else:
        network = make_network(name, num_classes)
    graph = ChannelGraph.trace(network, torch.zeros(1, 3, 32, 32))
    compact = skeleton(network, graph, ratios).network
    widths = {path: one.out_channels for path, one in compact.named_modules() if isinstance(one, nn.Conv2d)}
    # The released code fuses no convolution on a shortcut.
    fused = [path for path in filters if widths[path] < filters[path] and not path.endswith("downsample.0")]
    return Skeleton(compact, {path: filters[path] for path in fused})


def _filters(name: str) -> dict[str, int]:
    """Filters of every convolution of the network of full width, in the order of definition."""
    choose("network of the DCFF paper", name, RATES)
    with torch.device("meta"):
        modules = make_network(name).named_modules()
    return {path: module.out_channels for path, module in modules if isinstance(module, nn.Conv2d)}


def _rates(name: str, paths: list[str]) -> dict[str, float]:
    """The rate of every convolution, given their paths in the order of definition."""
    rates = RATES[name]
    if not name.startswith("resnet"):
        return dict(zip(paths, rates, strict=True))
    stages, summed = (4, ("conv3", "downsample.0")) if name == "resnet50" else (3, ("conv2",))
    of_stage = {f"layer{number + 1}": rate for number, rate in enumerate(rates[-stages:])}
    front = rates[:1] if name == "resnet50" else []
    inside = [path for path in paths if path.startswith("layer") and not path.endswith(summed)]
    return {
        "conv1": front[0] if front else of_stage["layer1"],
        **{path: of_stage[path.split(".")[0]] for path in paths if path.endswith(summed)},
        # Sorted by the last digit: all first convolutions, then all second ones.
        **dict(zip(sorted(inside, key=lambda path: path[-1]), rates[len(front) : -stages], strict=True)),
    }


def _resnet110(num_classes: int) -> CifarResNet:
    """ResNet-110 with as many channels between its blocks as in the paper, and full width inside them."""
    network = CifarResNet(0, num_classes)
    filters = _filters("resnet110")
    rates = _rates("resnet110", list(filters))
    kept = {path: int(count * (1 - rates[path])) for path, count in filters.items()}
    width = kept["conv1"]
    network.conv1, network.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
    for stage in (1, 2, 3):
        blocks = []
        for index in range(18):
            path = f"layer{stage}.{index}"
            inside, after = filters[f"{path}.conv1"], kept[f"{path}.conv2"]
            blocks.append(CifarBlock(width, inside, after, stride=2 if stage > 1 and index == 0 else 1))
            width = after
        setattr(network, f"layer{stage}", nn.Sequential(*blocks))
    network.linear = nn.Linear(width, num_classes)
    return network
