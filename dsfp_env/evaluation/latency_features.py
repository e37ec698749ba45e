"""What a network's widths tell of its speed: numbers that grow, or stay, with every channel that is kept.

Of every convolution and linear layer, with w0 channels out, w1 in, k numbers of the kernel for each pair, and p
places at which it is applied:

| numbers | meaning                                                                            |
|---------|------------------------------------------------------------------------------------|
| work    | p k [w0] [w1]: multiply-adds, with widths rounded up to a multiple of 1, 8, 16, 32 |
| written | p [w0]: what comes out, and what stands behind it (normalisation, activation)      |
| read    | p w1: what goes in                                                                 |
| weights | k w0 w1                                                                            |

[w] is rounded up, as kernels with vectors of so many numbers work. There are the sums over all layers of each, and
the work and what is written of every layer by itself; and 1, for what any network takes.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from dsfp_env.channels.graph import ChannelGraph

VECTORS = (1, 8, 16, 32)  # numbers to which widths are rounded up
_LAYER_VECTOR = 16  # of the numbers for each layer


class LatencyFeatures:
    """The features of any network cut from one, as arrays.

    Args:
        graph: Of the network.
    """

    def __init__(self, graph: ChannelGraph) -> None:
        axes: list[np.ndarray] = [np.empty(0, np.int64)]  # place 0: of what is never cut
        rows = []  # (place of the axis, number if it is never cut) of w0 and of w1, k, p
        for node in graph.nodes.values():
            for tensor in node.tensors.values():
                if not tensor.uses:
                    continue
                sides = []
                for dim in (0, 1):
                    classes = tensor.axes[dim] if dim < len(tensor.axes) else None
                    whole = tensor.shape[dim] if dim < len(tensor.shape) else 1
                    sides += [_place(axes, classes), 0 if classes is not None else whole]
                rows.append((*sides, math.prod(tensor.shape[2:]), tensor.uses))
        self._axes, table = axes, np.array(rows, np.int64).reshape(-1, 6)
        self._first, self._fixed_first, self._second, self._fixed_second = table[:, :4].T
        self._kernel, self._places = table[:, 4:].astype(np.float64).T
        self.shared = 1 + 2 * len(VECTORS) + 2  # the first so many are of the whole network
        self.count = self.shared + 2 * len(table)

    def of(self, alive: np.ndarray) -> np.ndarray:
        """The features ``[count]`` of the network that keeps these classes, ``[classes]`` bool."""
        widths = np.array([int(alive[classes].sum()) for classes in self._axes])
        first = (widths[self._first] + self._fixed_first).astype(np.float64)
        second = (widths[self._second] + self._fixed_second).astype(np.float64)
        work = {m: _up(first, m) * _up(second, m) * self._kernel * self._places for m in VECTORS}
        written = {m: _up(first, m) * self._places for m in VECTORS}
        of_all = [
            1.0,
            *(one.sum() for one in work.values()),
            *(one.sum() for one in written.values()),
            (second * self._places).sum(),
            (first * second * self._kernel).sum(),
        ]
        return np.concatenate([of_all, work[_LAYER_VECTOR], written[_LAYER_VECTOR]])


def _place(axes: list[np.ndarray], classes: torch.Tensor | None) -> int:
    if classes is None:
        return 0
    axes.append(classes.numpy())
    return len(axes) - 1


def _up(widths: np.ndarray, multiple: int) -> np.ndarray:
    return np.ceil(widths / multiple) * multiple
