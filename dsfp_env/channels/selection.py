"""Which channels go: pruning ratios and filter scores -> the classes that stay.

Convolutions that share classes (the two sides of a residual sum) make a *coupled set*: its pruning ratio is the
mean of its layers' ratios, the score of a class is the mean of its filters' scores, and the lowest classes go.
``ratio * classes that can go``, rounded half up, is how many; ties go by index. Then every layer gets back the
best of what it lost until it has ``min_filters`` and a multiple of ``round_to``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dsfp_env.channels.coupling import Classes, PrunableLayer, coupled_sets


class Selector:
    """The choice of classes, for all coupled sets at once.

    Attributes:
        sets: The layers of each coupled set.
        sizes: How many classes of each can go, ``[sets]``.
    """

    def __init__(self, classes: Classes, layers: Mapping[str, PrunableLayer]) -> None:
        # The coupled sets, and the layers in their order.
        self.sets = coupled_sets(classes, layers)
        self._num_classes = 1 + int(classes.of_label.max())
        self._layers = [path for paths in self.sets for path in paths]
        self._set_of_layer = np.array([number for number, paths in enumerate(self.sets) for _ in paths], np.int64)

        # The filters of these layers that can go, by set and class; a class may be of several filters.
        stays = np.zeros(self._num_classes, bool)
        stays[list(classes.pinned)] = True
        # (Copies, since torch moves a tensor's memory when it is sent to another process.)
        out_classes = {path: node.out_class.numpy().copy() for path, node in classes.nodes.items()}
        own = [out_classes[path] for path in self._layers]
        of_filter = np.concatenate([np.empty(0, np.int64), *own])
        set_of_filter = np.repeat(self._set_of_layer, [len(one) for one in own])
        self._filters = (~stays[of_filter]).nonzero()[0]  # those that can go
        keys = (set_of_filter * self._num_classes + of_filter)[self._filters]
        keys, self._class_of_filter = np.unique(keys, return_inverse=True)  # set by set, ascending within
        self._set_of_class, self._classes = keys // self._num_classes, keys % self._num_classes

        # Each set as a range of its classes.
        self._filters_of_class = np.bincount(self._class_of_filter)
        self.sizes = np.bincount(self._set_of_class, minlength=len(self.sets))
        self._starts = np.cumsum([0, *self.sizes[:-1]])[: len(self.sizes)]

        # Who loses outputs: these layers, and others without an agent, one after another; and who might lose all
        # inputs.
        followers = [
            out_classes[path]
            for path, node in classes.nodes.items()
            if path not in layers and node.positions and np.isin(out_classes[path], self._classes).any()
        ]
        readers = _unprotected(classes, own + followers, self._classes)
        self._has_agent = np.array([True] * len(own) + [False] * (len(followers) + len(readers)))
        self._losers = own + followers + readers
        self._widths = np.array([len(one) for one in self._losers])
        self._all = np.concatenate([np.empty(0, np.int64), *self._losers])
        self._bounds = np.cumsum([0, *self._widths[:-1]])[: len(self._widths)]

    def alive(
        self, ratios: Mapping[str, float], scores: Mapping[str, np.ndarray], min_filters: int, round_to: int
    ) -> np.ndarray:
        """Which classes stay, ``[classes]`` bool.

        Args:
            ratios: Module path -> fraction; 0 for a layer that is not named.
            scores: Module path -> ``[out_channels]`` float64; a layer whose set loses nothing may be absent.
            min_filters: Every layer keeps as many, or all it has.
            round_to: Every layer keeps a multiple of this, or all it has.
        """
        alive = np.ones(self._num_classes, bool)
        if not self.sets:
            return alive
        by_layer = np.array([ratios.get(path, 0.0) for path in self._layers])
        by_set = np.bincount(self._set_of_layer, by_layer) / np.bincount(self._set_of_layer)
        counts = np.floor(by_set * self.sizes + 0.5).astype(np.int64)
        widths = self._widths[: len(self._layers)]
        of_filter = np.concatenate(
            [scores.get(path, np.zeros(width)) for path, width in zip(self._layers, widths, strict=True)]
        )
        of_class = np.bincount(self._class_of_filter, of_filter[self._filters]) / self._filters_of_class
        for start, size, count in zip(self._starts, self.sizes, counts, strict=True):
            if count:
                own = of_class[start : start + size]
                alive[self._classes[start : start + size][_lowest(own, count)]] = False
        self._give_back(alive, of_class, min_filters, round_to)
        return alive

    def _give_back(self, alive: np.ndarray, of_class: np.ndarray, min_filters: int, round_to: int) -> None:
        """While a layer lacks filters, its set gets back the best class that it lost and that helps."""
        least = np.minimum(np.where(self._has_agent, min_filters, 1), self._widths)
        multiple = np.where(self._has_agent, round_to, 1)
        kept = np.add.reduceat(alive[self._all], self._bounds, dtype=np.int64)
        while (lacking := (kept < least) | ((kept % multiple > 0) & (kept < self._widths))).any():
            own = self._losers[int(lacking.argmax())]
            lost = np.isin(self._classes, own[~alive[own]]).nonzero()[0]
            best = lost[of_class[lost] == of_class[lost].max()][-1]  # the last of equals: the first went first
            alive[self._classes[best]] = True
            kept = np.add.reduceat(alive[self._all], self._bounds, dtype=np.int64)


def _unprotected(classes: Classes, losers: list[np.ndarray], removable: np.ndarray) -> list[np.ndarray]:
    """What layers read that may lose all of it though every layer keeps a filter, as they read a part of one."""
    by_first: dict[int, list[set[int]]] = {}
    for loser in losers:
        by_first.setdefault(int(loser[0]), []).append(set(loser.tolist()))
    unprotected = []
    for node in classes.nodes.values():
        reads = node.in_class.numpy().copy()
        if not node.positions or not np.isin(reads, removable).all():
            continue
        known = set(reads.tolist())
        if not any(loser <= known for first in known & by_first.keys() for loser in by_first[first]):
            unprotected.append(reads)
    return unprotected


def _lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Which ``count`` of some scores are the lowest, ``[len(scores)]`` bool; ties by index."""
    if count == len(scores):
        return np.ones(len(scores), bool)
    threshold = np.partition(scores, count)[count]
    lowest = scores < threshold
    ties = (scores == threshold).nonzero()[0]
    lowest[ties[: count - int(lowest.sum())]] = True
    return lowest
