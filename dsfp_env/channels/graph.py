"""The channel graph of a network: pruning ratios -> kept filters -> a physically smaller network.

Traced once per network (see `tracing` and `coupling`). Channels that cannot be removed without each other make a
class, which is kept or removed as a whole; so a step is boolean masks and index-selects from the immutable
original weights.

Coupled convolutions keep one common set; `selection` has the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.amendments import Amendments
from dsfp_env.channels.costs import CostCounter, Costs
from dsfp_env.channels.coupling import Classes, PrunableLayer, channel_classes, function_nodes, prunable_layers
from dsfp_env.channels.coupling import Keep as Keep
from dsfp_env.channels.cutting import cut, mask
from dsfp_env.channels.layers import Convolution, Weighted, kind_of
from dsfp_env.channels.lent import kept_indices, one_example, unwrapped
from dsfp_env.channels.reach import unheard
from dsfp_env.channels.selection import Selector
from dsfp_env.channels.tracing import Trace, trace_network
from dsfp_env.channels.verification import faults_of, stirred
from dsfp_env.common.devices import with_gradients
from dsfp_env.common.errors import InputError
from dsfp_env.common.repeatable import repeatable


class ChannelGraph:
    """Which filters of a network can be removed, and what each removal takes along.

    Attributes:
        layers: Module path -> `PrunableLayer`, in order of execution.
        excluded: Module path of every other convolution -> the reason, in words.
        norms: Module path of a convolution -> that of the normalisation that takes its output directly.
        sets: The module paths of each coupled set of layers.
        nodes: Module path -> the classes along the module's tensors; see `coupling`.
        num_classes: There are.
        selector: Chooses which of them stay.
        counter: Counts what stays.
    """

    def __init__(
        self,
        classes: Classes,
        layers: Mapping[str, PrunableLayer],
        excluded: Mapping[str, str],
        counter: CostCounter,
        norms: Mapping[str, str],
    ) -> None:
        self.nodes = classes.nodes
        self.norms = dict(norms)
        self.counter = counter
        self.num_classes = 1 + int(classes.of_label.max())
        self.selector = Selector(classes, layers)
        self.sets = self.selector.sets
        set_of = {path: paths for paths in self.sets for path in paths}
        self.layers: dict[str, PrunableLayer] = {
            path: replace(layer, coupled_with=tuple(other for other in set_of[path] if other != path))
            for path, layer in layers.items()
        }
        self.excluded = dict(excluded)
        none = np.empty(0, np.int64)
        self._out_classes = np.concatenate([none, *(self.nodes[path].out_class.numpy() for path in layers)])
        self._starts = dict(zip(layers, np.cumsum([0, *(n.out_channels for n in layers.values())]), strict=False))

    @classmethod
    @with_gradients()
    @repeatable()
    def trace(cls, network: nn.Module, example_input: Any) -> ChannelGraph:
        """Find the channel graph of any network that maps images to tensors: to logits, or several of any shape.

        The result is verified: networks pruned in several ways are followed like the original, and must answer
        what the masked network answers. Layers for which they do not are excluded, with the reason.

        Args:
            network: The network; it is neither changed nor moved. What distributes or compiles one
                (`DataParallel`, ``torch.compile``) is taken off: paths are those of the network inside.
            example_input: At least one image ``[N, C, ...]`` of the size that will be used; for a network of
                several inputs a tuple of them, or a dictionary by name.

        Raises:
            InputError: If the network cannot be traced, or has no convolution.
        """
        network = unwrapped(network)
        if not any(isinstance(kind_of(module), Convolution) for module in network.modules()):
            raise InputError(f"{type(network).__name__} has no convolution: there is nothing to prune.")
        example = one_example(example_input, network)
        trace = trace_network(network, example)
        amendments, silent, verified = Amendments(network, trace.events), None, stirred(network)
        while True:
            classes = channel_classes(network, trace, amendments.ties.values(), amendments.stays)
            if silent is None:
                silent = unheard(network, example, trace, classes)
            counter = cls._counter_of(network, trace, classes)
            graph = cls(classes, *prunable_layers(network, trace, classes, silent), counter, trace.norms)
            fault = faults_of(graph, verified, example, trace, classes)
            if fault is None:
                return graph
            amendments.learn(classes, *fault)

    @staticmethod
    def _counter_of(network: nn.Module, trace: Trace, classes: Classes) -> CostCounter:
        params = sum(parameter.numel() for parameter in network.parameters())
        functions = function_nodes(trace, classes)
        other_macs = trace.other_macs - sum(node.macs for node in functions.values())
        for path, node in classes.nodes.items():
            if node.positions and not node.macs:  # its weight is computed, and never cut
                kind, module = kind_of(trace.modules[path]), trace.modules[path]
                assert isinstance(kind, Weighted)
                other_macs += kind.weight(module).numel() * node.positions
        return CostCounter(classes.nodes | functions, params, other_macs)

    def keep(
        self,
        ratios: Mapping[str, float],
        scores: Mapping[str, torch.Tensor],
        min_filters: int = 1,
        round_to: int = 1,
    ) -> Keep:
        """Choose the filters that stay.

        Args:
            ratios: Module path -> pruning ratio, a fraction in [0, 1); a layer that is not named counts as 0.
            scores: Module path -> one score per filter ``[out_channels]``, higher = keep.
            min_filters: Filters that every layer keeps at least.
            round_to: Every layer that loses filters keeps a multiple of this, rounded up, for hardware; a layer
                for which that cannot be keeps all.

        Raises:
            InputError: If a path, a ratio or a score tensor is not what was expected.
        """
        self._check_ratios(ratios)
        if not all(isinstance(number, Integral) and number >= 1 for number in (min_filters, round_to)):
            raise InputError(
                f"min_filters is {min_filters!r} and round_to is {round_to!r}: expected whole numbers, 1 or more."
            )
        pruned = {path for path, ratio in ratios.items() if ratio > 0}
        pruned |= {other for path in pruned for other in self.layers[path].coupled_with}
        alive = self.selector.alive(ratios, self._checked_scores(pruned, scores), min_filters, round_to)
        return self._filters(alive)

    def slim(self, network: nn.Module, keep: Keep) -> nn.Module:
        """Cut the network down to the kept filters.

        Args:
            network: The network that was traced, or one of equal structure; it is left as it is.
            keep: From `keep`.

        Returns:
            A new, physically smaller network, in the mode and on the device of the one given.

        Raises:
            InputError: If the network or the kept filters do not belong to this graph.
        """
        return cut(unwrapped(network), self.nodes, torch.from_numpy(self.alive(keep)))

    def masked(self, network: nn.Module, keep: Keep) -> nn.Module:
        """The reference for `slim`: of full width, but removed filters write zero and nobody reads them.

        Masked weights get no gradient either, so it can be trained beside the slim network.
        """
        return mask(unwrapped(network), self.nodes, torch.from_numpy(self.alive(keep)))

    def costs(self, keep: Keep | None = None) -> Costs:
        """Costs with these filters kept (all, if none are given), from the structure alone."""
        return self.counter.count(self.alive(keep or {}))

    def kept(self, keep: Mapping[str, Any]) -> Keep:
        """Kept filters as `keep` gives them, from indices or masks by hand; raises as `slim` does."""
        return self._filters(self.alive(keep))

    def alive(self, keep: Mapping[str, Any]) -> np.ndarray:
        """Which classes stay with these filters, ``[classes]`` bool; see `coupling`.

        Raises:
            InputError: If they are no kept filters of this graph.
        """
        if not isinstance(keep, Mapping):
            raise InputError(
                f"The kept filters are a {type(keep).__name__}: expected a dictionary, module path -> indices, as "
                "ChannelGraph.keep gives."
            )
        alive = np.ones(self.num_classes, bool)
        if not keep:
            return alive
        if unknown := keep.keys() - self.layers.keys():
            raise InputError(f"No prunable layer is called {min(unknown)!r}; there are: {', '.join(self.layers)}.")
        kept = np.zeros(len(self._out_classes), bool)
        for path, start in self._starts.items():
            width = self.layers[path].out_channels
            if path not in keep:
                kept[start : start + width] = True
                continue
            kept[start + kept_indices(path, keep[path], width)] = True
        alive[self._out_classes[~kept]] = False
        if not np.array_equal(alive[self._out_classes], kept):
            place = int((alive[self._out_classes] != kept).argmax())
            path = [path for path, start in self._starts.items() if start <= place][-1]
            raise InputError(
                f"The kept filters of {path!r} do not agree with those of the layers it is coupled with "
                f"({', '.join(self.layers[path].coupled_with)}): a filter and what it is summed with stay or go "
                "together. Use the result of ChannelGraph.keep."
            )
        return alive

    def _filters(self, alive: np.ndarray) -> Keep:
        """The filters that are of classes which stay."""
        kept = alive[self._out_classes]
        return {
            path: torch.from_numpy(kept[start : start + self.layers[path].out_channels].nonzero()[0])
            for path, start in self._starts.items()
        }

    def _check_ratios(self, ratios: Mapping[str, float]) -> None:
        if not isinstance(ratios, Mapping):
            raise InputError(
                f"The pruning ratios are a {type(ratios).__name__}: expected a dictionary, module path -> "
                "fraction."
            )
        for path, ratio in ratios.items():
            if path not in self.layers:
                why = self.excluded.get(path)
                raise InputError(
                    f"{path!r} cannot be pruned: {why}."
                    if why
                    else f"No prunable layer is called {path!r}; there are: {', '.join(self.layers)}."
                )
            if not isinstance(ratio, Real) or not 0 <= ratio < 1:
                raise InputError(f"The pruning ratio of {path!r} is {ratio!r}: expected a fraction in [0, 1).")

    def _checked_scores(self, paths: Iterable[str], scores: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        checked = {}
        if not isinstance(scores, Mapping):
            raise InputError(
                f"The scores are a {type(scores).__name__}: expected a dictionary, module path -> tensor."
            )
        for path in paths:
            expected = (self.layers[path].out_channels,)
            came = scores.get(path)
            if came is not None and not _is_of_numbers(came):
                what = type(came).__name__
                if isinstance(came, torch.Tensor):
                    what = f"{came.dtype}, {came.layout}, on {came.device}"
                raise InputError(
                    f"The scores of {path!r} are {what}: expected a tensor of real numbers {expected}."
                )
            if came is not None and came.shape == expected:
                checked[path] = came.detach().to("cpu", torch.float64).numpy()
            if came is None or came.shape != expected or np.isnan(checked[path]).any():
                what = "are missing" if came is None else f"have shape {tuple(came.shape)} or hold NaN"
                raise InputError(f"The scores of {path!r} {what}: expected one number per filter, {expected}.")
        return checked


def _is_of_numbers(scores: Any) -> bool:
    """Whether scores are a tensor that holds real numbers."""
    return (
        isinstance(scores, torch.Tensor)
        and scores.layout == torch.strided
        and not scores.is_meta
        and not scores.is_complex()
    )
