"""What plans cost, many at once and exactly: how wide everything is, from tables by coupled set.

What a coupled set of layers loses depends on its own layers' ratios alone, and widths are sums over sets. So a
table for each set, by how many of its classes go, tells every width of every pruned network; multiply-adds are
products of two widths. These are plain arrays: they can be kept in a file, and need neither network nor graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dsfp_env.common.errors import InputError

if TYPE_CHECKING:
    import torch

    from dsfp_env.channels.graph import ChannelGraph

_AT_ONCE = 2048  # plans
_FEW = 32  # plans, of which all widths are looked up at once
_TRIED = 64  # random plans that are counted in both ways


class ManyCosts(NamedTuple):
    """The costs of N pruned networks, in their order."""

    macs: np.ndarray  # [N] int64, multiply-adds per image
    params: np.ndarray  # [N] int64
    filters: np.ndarray  # [N] int64, output channels of all convolutions
    kept: np.ndarray  # [N, layers] int64, filters of each prunable layer; [N, 0] if they were not asked for


@dataclass(frozen=True, eq=False)
class CostTables:
    """The tables, and what to do with them.

    Attributes:
        set_of_layer: ``[layers]``, the coupled set of each prunable layer, layers in order of execution.
        sizes: ``[sets]``, classes that can go.
        lost: ``[sets, largest size + 1, axes]``, what each axis loses when so many classes of a set go.
        whole: ``[axes]``, the widths of the original network.
        pairs: ``[products, 2]``, two axes each.
        macs: ``[products]``, multiply-adds for each unit of the product of their widths.
        params: ``[products]``, parameters likewise.
        others: Multiply-adds, and parameters, that never change.
        convolutions: ``[convolutions]``, the axes of their filters.
        layers: ``[layers]``, the axis of each prunable layer's filters.
    """

    set_of_layer: np.ndarray
    sizes: np.ndarray
    lost: np.ndarray
    whole: np.ndarray
    pairs: np.ndarray
    macs: np.ndarray
    params: np.ndarray
    others: np.ndarray
    convolutions: np.ndarray
    layers: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def classes_lost(self, fractions: np.ndarray) -> np.ndarray:
        """How many classes go.

        Args:
            fractions: Pruning ratios of the prunable layers, ``[N, layers]`` float64.

        Returns:
            Of each coupled set, ``[N, sets]`` int64.
        """
        sums = np.zeros((len(self.sizes), len(fractions)))
        if len(fractions) == 1:  # the same sums, sooner
            sums[:, 0] = np.bincount(self.set_of_layer, fractions[0], len(self.sizes))
            return self._rounded(sums)
        for layers, sets in self._turns:  # layers of one set in their order, as `Selector` adds them
            sums[sets] += fractions.T[layers]
        return self._rounded(sums)

    def _rounded(self, sums: np.ndarray) -> np.ndarray:
        """Classes that go, by the sums of their layers' ratios, ``[sets, N]`` -> ``[N, sets]``."""
        sums /= self._members
        sums *= self.sizes[:, None]
        sums += 0.5
        return np.floor(sums, out=sums).astype(np.int64).T

    def costs(self, classes_lost: np.ndarray, kept: bool = True) -> ManyCosts:
        """The costs of networks that lose so many classes of each set, ``[N, sets]``.

        Args:
            classes_lost: Of each.
            kept: Whether to tell the filters of each layer, too.
        """
        if len(classes_lost) <= _AT_ONCE:
            return self._some_costs(classes_lost, kept)
        parts = np.array_split(classes_lost, -(-len(classes_lost) // _AT_ONCE))
        return ManyCosts(*map(np.concatenate, zip(*(self._some_costs(one, kept) for one in parts), strict=True)))

    def _some_costs(self, classes_lost: np.ndarray, kept: bool) -> ManyCosts:
        """As many as fit into the cache. Floats are exact here: whole numbers below 2^53."""
        merged = self._merged
        widths = (self._few_widths if len(classes_lost) <= _FEW else self._widths)(classes_lost)
        products = widths.take(merged.pairs[:, 0], axis=0)
        products *= widths.take(merged.pairs[:, 1], axis=0)
        macs, params = (merged.rates @ products + self.others[:, None]).astype(np.int64)
        filters = (merged.filters @ widths).astype(np.int64)
        layers = merged.layers if kept else merged.layers[:0]
        return ManyCosts(macs, params, filters, widths.take(layers, axis=0).astype(np.int64).T)

    def _widths(self, classes_lost: np.ndarray) -> np.ndarray:
        """``[different axes, N]``."""
        widths = np.repeat(self._merged.whole[:, None], len(classes_lost), axis=1)
        for of_set, (axes, loses) in enumerate(self._merged.by_set):
            for axis, of_axis in zip(axes, loses, strict=True):
                widths[axis] -= of_axis.take(classes_lost[:, of_set])
        return widths

    def _few_widths(self, classes_lost: np.ndarray) -> np.ndarray:
        """The same of few, sooner."""
        loses = self._merged.lost[np.arange(len(self.sizes)), classes_lost]  # [N, sets, different axes]
        widths: np.ndarray = (self._merged.whole - loses.sum(1)).T
        return widths

    @cached_property
    def _members(self) -> np.ndarray:
        """How many layers each set has, ``[sets, 1]``."""
        return np.bincount(self.set_of_layer)[:, None]

    @cached_property
    def _turns(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The first layer of each set, then the second of each that has two, ...: layers, and their sets."""
        members = [np.flatnonzero(self.set_of_layer == place) for place in range(len(self.sizes))]
        turns = []
        for turn in range(max(map(len, members))):
            sets = [place for place, layers in enumerate(members) if len(layers) > turn]
            turns.append((np.array([members[place][turn] for place in sets]), np.array(sets)))
        return turns

    @cached_property
    def _merged(self) -> _Merged:
        """The same, told of different axes only: those that always are as wide as each other are one."""
        _, firsts, place = np.unique(
            np.concatenate([self.whole[None], *self.lost]), axis=1, return_index=True, return_inverse=True
        )
        place = place.reshape(-1)  # [axes], which of the different ones
        lost = self.lost[:, :, firsts].astype(np.float64)
        pairs, product = np.unique(np.sort(place[self.pairs], axis=1), axis=0, return_inverse=True)
        product = product.reshape(-1)
        touched = [of_set.any(0).nonzero()[0] for of_set in lost]
        return _Merged(
            whole=self.whole[firsts].astype(np.float64),
            lost=lost,
            by_set=[
                (axes.tolist(), np.ascontiguousarray(of_set[:, axes].T))
                for axes, of_set in zip(touched, lost, strict=True)
            ],
            pairs=pairs,
            rates=np.stack([np.bincount(product, of, len(pairs)) for of in (self.macs, self.params)]),
            filters=np.bincount(place[self.convolutions], minlength=len(firsts)).astype(np.float64),
            layers=place[self.layers],
        )


class _Merged(NamedTuple):
    """What is computed with, as float64."""

    whole: np.ndarray  # [different axes], widths of the original network
    lost: np.ndarray  # [sets, largest size + 1, different axes]
    by_set: list[tuple[list[int], np.ndarray]]  # axes that lose something, and what, [axes, largest size + 1]
    pairs: np.ndarray  # [different products, 2]
    rates: np.ndarray  # [2, different products], multiply-adds and parameters
    filters: np.ndarray  # [different axes], how many convolutions have so many filters
    layers: np.ndarray  # [layers], the axis of each


def cost_tables(graph: ChannelGraph, scores: Mapping[str, torch.Tensor]) -> CostTables:
    """The tables of a network, whose layers keep one filter at least.

    Args:
        graph: Its channel graph.
        scores: Module path -> one score per filter, as for `ChannelGraph.keep`.

    Raises:
        InputError: If what one set loses depends on what others lose.
    """
    sizes = graph.selector.sizes
    whole = graph.counter.widths(np.ones(graph.num_classes, bool))
    lost = np.zeros((len(sizes), int(sizes.max(initial=0)) + 1, len(whole)), np.int64)
    for place, (paths, size) in enumerate(zip(graph.sets, sizes.tolist(), strict=True)):
        for count in range(size + 1):
            keep = graph.keep(dict.fromkeys(paths, min(count / size, _ALL_BUT_NOTHING)), scores)
            lost[place, count] = whole - graph.counter.widths(graph.alive(keep))
    of_path = {path: place for place, paths in enumerate(graph.sets) for path in paths}
    pairs, macs, params = graph.counter.products()
    tables = CostTables(
        np.array([of_path[path] for path in graph.layers], np.int64),
        sizes,
        lost,
        whole,
        pairs,
        macs,
        params,
        np.array(graph.counter.others, np.int64),
        np.array(list(graph.counter.axis_of.values()), np.int64),
        np.array([graph.counter.axis_of[path] for path in graph.layers], np.int64),
    )
    _check(tables, graph, scores)
    return tables


_ALL_BUT_NOTHING = 1 - 1e-9  # a pruning ratio that takes all classes, of which some are given back


def _check(tables: CostTables, graph: ChannelGraph, scores: Mapping[str, torch.Tensor]) -> None:
    """See that random plans cost what the graph says.

    Raises:
        InputError: If one does not.
    """
    rng = np.random.default_rng(0)
    fractions = rng.uniform(0.0, 0.95, (_TRIED, len(graph.layers))).round(3)
    counted = tables.costs(tables.classes_lost(fractions))
    for row, ratios in enumerate(fractions.tolist()):
        keep = graph.keep(dict(zip(graph.layers, ratios, strict=True)), scores)
        costs = graph.costs(keep)
        kept = [len(keep[path]) for path in graph.layers]
        told = counted.macs[row], counted.params[row], counted.filters[row], counted.kept[row].tolist()
        if told != (costs.macs, costs.params, costs.filters, kept):
            raise InputError(
                "What a layer of this network loses depends on what others lose, beyond the layers it is coupled "
                "with: the costs of many plans cannot be told from tables. Expected a network whose layers all "
                "keep filters of their own."
            )
