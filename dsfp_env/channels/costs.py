"""What a network costs.

Convention: one **MAC** is one multiply-add of a convolution or a linear layer; biases, normalisation,
activations, pooling and products of activations (attention) are not counted. The field prints MACs and calls them
"FLOPs" as often as not; where this package says FLOPs, it means 2 x MACs. Parameters are counted all, biases and
normalisation included. Both are per image and follow from the structure alone: no network is run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from dsfp_env.channels.coupling import Node, PrunableLayer


@dataclass(frozen=True)
class Costs:
    """The costs of one (pruned) network."""

    macs: int  # multiply-adds per image, convolutions and linear layers
    params: int  # all parameters
    filters: int  # output channels of all convolutions


def output_only_params(network: nn.Module, layers: Mapping[str, PrunableLayer], kept: Mapping[str, int]) -> int:
    """Parameters as the DSFP paper counts them: of every removed filter its own weights, at full input width.

    That is what masks would save; a network that is really cut loses the inputs of the next layers too, and is
    much smaller (`ChannelGraph.costs` counts that). The paper's tables can only be compared with this number:
    AlexNet with 24, 69, 141, 111 and 98 filters has its 5.6191 million.

    Args:
        network: The original network.
        layers: Its prunable layers, from its `ChannelGraph`.
        kept: Module path -> number of filters that stay.
    """
    params = sum(parameter.numel() for parameter in network.parameters())
    for path, number in kept.items():
        layer = layers[path]
        own = [network.get_submodule(name) for name in (path, layer.norm) if name]  # both go with a filter
        size = sum(parameter.numel() for module in own for parameter in module.parameters())
        params -= size // layer.out_channels * (layer.out_channels - number)
    return params


class CostCounter:
    """Counts what stays of a network, all layers at once.

    Args:
        nodes: Module path -> the classes along its tensors.
        params: Of the whole network, uncut.
        other_macs: Multiply-adds that never change.

    Attributes:
        axis_of: Module path of a convolution -> the axis of its filters.
        others: Multiply-adds, and parameters, that never change.
    """

    def __init__(self, nodes: Mapping[str, Node], params: int, other_macs: int) -> None:
        # Every axis along which something is cut, once.
        places: dict[int, int] = {}  # id of an axis -> its place
        axes = [np.zeros(1, np.int64)]  # class + 1 of every index; place 0: one index that always stays

        def place(classes: torch.Tensor) -> int:
            if id(classes) not in places:
                places[id(classes)] = len(axes)
                axes.append(classes.numpy() + 1)
            return places[id(classes)]

        # Every tensor as the product of two axes and a constant.
        rows, self.axis_of = [], dict[str, int]()
        for path, node in nodes.items():
            for tensor in node.tensors.values():
                cut = [classes for classes in tensor.axes if classes is not None]
                first, second = ([place(classes) for classes in cut] + [0, 0])[:2]
                rest = math.prod(tensor.shape) // math.prod(map(len, cut))
                rows.append((first, second, rest * tensor.counts, rest * tensor.uses))
            if node.is_convolution:
                self.axis_of[path] = place(node.out_class)

        # As arrays, one row for every tensor, and all axes in one.
        self._first, self._second, self._params, self._macs = np.array(rows, np.int64).reshape(-1, 4).T
        self._convolutions = np.array(list(self.axis_of.values()), np.int64)
        self._axes, self._starts = np.concatenate(axes), np.cumsum([0, *map(len, axes[:-1])])

        # What is not in these tensors.
        self.others = other_macs, 0
        everything = np.ones(max(map(int, self._axes)), bool)
        self.others = other_macs, params - self.count(everything).params

    def widths(self, alive: np.ndarray) -> np.ndarray:
        """What stays of every axis along which something is cut, ``[axes]``; of the first, which is no axis, 1."""
        return np.add.reduceat(np.concatenate([[True], alive])[self._axes], self._starts, dtype=np.int64)

    def count(self, alive: np.ndarray) -> Costs:
        """Costs if these classes stay, ``[classes]`` bool."""
        widths = self.widths(alive)
        sizes = widths[self._first] * widths[self._second]
        return Costs(
            macs=self.others[0] + int(sizes @ self._macs),
            params=self.others[1] + int(sizes @ self._params),
            filters=int(widths[self._convolutions].sum()),
        )

    def products(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The products of two widths that costs are sums of.

        Returns:
            Pairs of axes ``[products, 2]``; and for each unit of a product, multiply-adds and parameters
            ``[products]``.
        """
        pairs, of_row = np.unique(np.stack([self._first, self._second], axis=1), axis=0, return_inverse=True)
        macs, params = (
            np.bincount(of_row.reshape(-1), weights, len(pairs)).astype(np.int64)
            for weights in (self._macs, self._params)
        )
        return pairs, macs, params
