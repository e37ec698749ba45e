"""Which channels go: pruning ratios and filter scores -> the classes that stay.

Convolutions that share classes (the two sides of a residual sum) make a *coupled set*: its pruning ratio is the
mean of its layers' ratios, the score of a class is the mean of its filters' scores, and the lowest classes go.
``ratio * classes that can go``, rounded half up, is how many; ties go by index. Then every layer gets back the
best of what it lost until it has ``min_filters`` and a multiple of ``round_to``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dsfp_env.coupling import Classes, PrunableLayer, coupled_sets


class Selector:
    """The choice of classes, for all coupled sets at once.

    Attributes:
        sets: The layers of each coupled set.
    """

    def __init__(self, classes: Classes, layers: Mapping[str, PrunableLayer]) -> None:
        self.sets = coupled_sets(classes, layers)
        self._num_classes = 1 + int(classes.of_label.max())
        self._layers = [path for paths in self.sets for path in paths]
        self._set_of_layer = np.array([number for number, paths in enumerate(self.sets) for _ in paths], np.int64)
        stays = np.zeros(self._num_classes, bool)
        stays[list(classes.pinned)] = True

        # Copies, since torch moves a tensor's memory when it is sent to another process.
        out_classes = {path: node.out_class.numpy().copy() for path, node in classes.nodes.items()}
        own = [out_classes[path] for path in self._layers]
        of_filter = np.concatenate([np.empty(0, np.int64), *own])
        set_of_filter = np.repeat(self._set_of_layer, [len(one) for one in own])
        free = ~stays[of_filter]
        self._classes, where = np.unique(of_filter[free], return_inverse=True)  # those that can go
        self._filters, self._class_of_filter = free.nonzero()[0], where
        self._filters_of_class = np.bincount(where)
        self._set_of_class = np.zeros(len(self._classes), np.int64)
        self._set_of_class[where] = set_of_filter[free]
        self._sizes = np.bincount(self._set_of_class, minlength=len(self.sets))
        self._starts = np.cumsum([0, *self._sizes[:-1]])[: len(self._sizes)]

        followers = [  # layers without an agent that lose outputs with these
            (out_classes[path], self._set_of_class[np.isin(self._classes, out_classes[path])])
            for path, node in classes.nodes.items()
            if path not in layers and node.positions and np.isin(out_classes[path], self._classes).any()
        ]
        self._has_agent = np.array([True] * len(own) + [False] * len(followers))
        self._losers = own + [out_class for out_class, _ in followers]
        self._widths = np.array([len(one) for one in self._losers])
        self._all = np.concatenate([np.empty(0, np.int64), *self._losers])
        self._bounds = np.cumsum([0, *self._widths[:-1]])[: len(self._widths)]
        self._sets_of_loser = [{number} for number in self._set_of_layer.tolist()]
        self._sets_of_loser += [set(sets.tolist()) for _, sets in followers]

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
        counts = np.floor(by_set * self._sizes + 0.5).astype(np.int64)
        widths = self._widths[: len(self._layers)]
        of_filter = np.concatenate(
            [scores.get(path, np.zeros(width)) for path, width in zip(self._layers, widths, strict=True)]
        )
        of_class = np.bincount(self._class_of_filter, of_filter[self._filters]) / self._filters_of_class
        order = np.lexsort((of_class, self._set_of_class))  # set by set, the lowest first, ties by index
        rank = np.arange(len(order)) - np.repeat(self._starts, self._sizes)
        goes = order[rank < np.repeat(counts, self._sizes)]
        alive[self._classes[goes]] = False
        self._give_back(alive, goes, min_filters, round_to)
        return alive

    def _give_back(self, alive: np.ndarray, goes: np.ndarray, min_filters: int, round_to: int) -> None:
        """While a layer lacks filters, its set gets back the best class that it lost and that helps."""
        least = np.minimum(np.where(self._has_agent, max(min_filters, 1), 1), self._widths)
        multiple = np.where(self._has_agent, round_to, 1)
        kept = np.add.reduceat(alive[self._all], self._bounds, dtype=np.int64)
        while (lacking := (kept < least) | ((kept % multiple > 0) & (kept < self._widths))).any():
            one = int(lacking.argmax())
            sets = self._sets_of_loser[one]
            lost = [c for c in goes.tolist() if self._set_of_class[c] in sets and not alive[self._classes[c]]]
            helps = [c for c in lost if (self._losers[one] == self._classes[c]).any()]
            alive[self._classes[helps[-1]]] = True
            kept = np.add.reduceat(alive[self._all], self._bounds, dtype=np.int64)
