"""The channel graph of a network: pruning ratios -> kept filters -> a physically smaller network.

Traced once per network (see `tracing` and `coupling`). Channels that cannot be removed without each other make a
class, which is kept or removed as a whole; so a step is boolean masks and index-selects from the immutable
original weights.

Coupled convolutions keep one common set; `selection` has the rule.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.costs import CostCounter, Costs
from dsfp_env.channels.coupling import Classes, LabelledTensor, PrunableLayer, channel_classes, prunable_layers
from dsfp_env.channels.layers import CONVOLUTIONS, set_widths, weight_of
from dsfp_env.channels.selection import Selector
from dsfp_env.channels.tracing import Trace, trace_network
from dsfp_env.channels.verification import find_fault, same_logits
from dsfp_env.common.errors import InputError

Keep = dict[str, torch.Tensor]  # module path -> indices of the kept filters, ascending, int64


class ChannelGraph:
    """Which filters of a network can be removed, and what each removal takes along.

    Attributes:
        layers: Module path -> `PrunableLayer`, in order of execution.
        excluded: Module path of every other convolution -> the reason, in words.
        norms: Module path of a convolution -> that of the normalisation that takes its output directly.
    """

    def __init__(
        self,
        classes: Classes,
        layers: Mapping[str, PrunableLayer],
        excluded: Mapping[str, str],
        counter: CostCounter,
        norms: Mapping[str, str],
    ) -> None:
        self._nodes = classes.nodes
        self.norms = dict(norms)
        self._counter = counter
        self._num_classes = 1 + int(classes.of_label.max())
        self._selector = Selector(classes, layers)
        set_of = {path: paths for paths in self._selector.sets for path in paths}
        self.layers: dict[str, PrunableLayer] = {
            path: replace(layer, coupled_with=tuple(other for other in set_of[path] if other != path))
            for path, layer in layers.items()
        }
        self.excluded = dict(excluded)
        none = np.empty(0, np.int64)
        self._out_classes = np.concatenate([none, *(self._nodes[path].out_class.numpy() for path in layers)])
        self._starts = dict(zip(layers, np.cumsum([0, *(n.out_channels for n in layers.values())]), strict=False))

    @classmethod
    def trace(cls, network: nn.Module, example_input: torch.Tensor) -> ChannelGraph:
        """Find the channel graph of any network that maps an image batch to logits.

        The result is verified: networks pruned in several ways are followed like the original, and must answer
        what the masked network answers. Layers for which they do not are excluded, with the reason.

        Args:
            network: The network; it is neither changed nor moved.
            example_input: At least one image ``[N, C, ...]`` of the size that will be used.

        Raises:
            InputError: If the network cannot be traced, or has no convolution.
        """
        if not any(isinstance(module, CONVOLUTIONS) for module in network.modules()):
            raise InputError(f"{type(network).__name__} has no convolution: there is nothing to prune.")
        trace = trace_network(network, example_input)
        classes = channel_classes(network, trace)
        counter = cls._counter_of(network, trace, classes)
        image = example_input[:1].to(next(network.parameters()).device)
        while True:
            graph = cls(classes, *prunable_layers(network, trace, classes), counter, trace.norms)
            faults = graph._faults(network, image, trace, classes)
            if not faults:
                return graph
            classes.pinned |= {one: reason for one, reason in faults.items() if one not in classes.pinned}

    @staticmethod
    def _counter_of(network: nn.Module, trace: Trace, classes: Classes) -> CostCounter:
        params = sum(parameter.numel() for parameter in network.parameters())
        uncut = [path for path, node in classes.nodes.items() if node.positions and "weight" not in node.tensors]
        other_macs = sum(math.prod(weight_of(trace.modules[p]).shape) * trace.positions[p] for p in uncut)
        return CostCounter(classes.nodes, params, trace.other_macs + other_macs)

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
        if min_filters < 1 or round_to < 1:
            raise InputError(
                f"min_filters is {min_filters} and round_to is {round_to}: expected whole numbers, 1 or more."
            )
        pruned = {path for path, ratio in ratios.items() if ratio > 0}
        pruned |= {other for path in pruned for other in self.layers[path].coupled_with}
        alive = self._selector.alive(ratios, self._checked_scores(pruned, scores), min_filters, round_to)
        kept = alive[self._out_classes]
        return {
            path: torch.from_numpy(kept[start : start + self.layers[path].out_channels].nonzero()[0])
            for path, start in self._starts.items()
        }

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
        return self._cut(network, keep, {})

    def _cut(self, network: nn.Module, keep: Keep, cut: dict[int, torch.Tensor]) -> nn.Module:
        """Cut a network; ``cut``: id of one of its tensors -> what takes its place, completed here."""
        alive = torch.from_numpy(self._alive(keep))
        indices = _Indices(alive)
        for tensor, traced in self._tensors_of(network):
            piece = tensor.detach()
            for dim, classes in enumerate(traced.axes):
                if classes is not None and (kept := indices.of(classes, piece.device)) is not None:
                    piece = piece.index_select(dim, kept)
            if piece.shape != tensor.shape:
                cut[id(tensor)] = nn.Parameter(piece, tensor.requires_grad) if traced.is_parameter else piece
        slim = copy.deepcopy(network, cut)  # copies everything but the tensors that were cut
        modules = dict(slim.named_modules())
        for path, node in self._nodes.items():
            if len(node.out_class):
                set_widths(modules[path], int(alive[node.out_class].sum()), int(alive[node.in_class].sum()))
        return slim

    def masked(self, network: nn.Module, keep: Keep) -> nn.Module:
        """The reference for `slim`: of full width, but removed filters write zero and nobody reads them.

        Masked weights get no gradient either, so it can be trained beside the slim network.
        """
        alive = torch.from_numpy(self._alive(keep))
        masked = copy.deepcopy(network)
        for tensor, traced in self._tensors_of(masked):
            if traced.is_parameter:
                masks = [
                    alive[classes].to(tensor).view(-1, *[1] * (tensor.dim() - dim - 1))
                    for dim, classes in enumerate(traced.axes)
                    if classes is not None
                ]
                for mask in masks:
                    tensor.detach().mul_(mask)
                    if tensor.requires_grad:
                        tensor.register_hook(partial(torch.mul, mask))
        return masked

    def costs(self, keep: Keep | None = None) -> Costs:
        """Costs with these filters kept (all, if none are given), from the structure alone."""
        return self._counter.count(self._alive(keep or {}))

    def _tensors_of(self, network: nn.Module) -> Iterator[tuple[torch.Tensor, LabelledTensor]]:
        """Every traced tensor of a network, which must have the shapes of the one that was traced."""
        modules = dict(network.named_modules())
        for path, node in self._nodes.items():
            for name, traced in node.tensors.items():
                tensor = getattr(modules.get(path), name, None)
                came = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else None
                if tensor is None or came != tuple(traced.shape):
                    raise InputError(
                        f"This network does not fit the channel graph: {path}.{name} has shape {came}, expected "
                        f"{tuple(traced.shape)}. Trace the network that you prune, before it is pruned."
                    )
                yield tensor, traced

    def _alive(self, keep: Keep) -> np.ndarray:
        """Which classes stay: ``[classes]``, bool."""
        alive = np.ones(self._num_classes, bool)
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
            indices = keep[path].cpu().numpy()
            if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < width:
                raise InputError(
                    f"The kept filters of {path!r} run from {indices.min()} to {indices.max()}: expected indices "
                    f"in [0, {width - 1}]."
                )
            kept[start + indices] = True
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

    def _check_ratios(self, ratios: Mapping[str, float]) -> None:
        for path, ratio in ratios.items():
            if path not in self.layers:
                why = self.excluded.get(path)
                raise InputError(
                    f"{path!r} cannot be pruned: {why}."
                    if why
                    else f"No prunable layer is called {path!r}; there are: {', '.join(self.layers)}."
                )
            if not 0 <= ratio < 1:
                raise InputError(f"The pruning ratio of {path!r} is {ratio}: expected a fraction in [0, 1).")

    def _checked_scores(self, paths: Iterable[str], scores: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
        checked = {}
        for path in paths:
            expected = (self.layers[path].out_channels,)
            came = scores.get(path)
            if came is not None and came.shape == expected:
                checked[path] = came.detach().to("cpu", torch.float64).numpy()
            if came is None or came.shape != expected or np.isnan(checked[path]).any():
                what = "are missing" if came is None else f"have shape {tuple(came.shape)} or hold NaN"
                raise InputError(f"The scores of {path!r} {what}: expected one number per filter, {expected}.")
        return checked

    def _faults(self, network: nn.Module, image: torch.Tensor, trace: Trace, classes: Classes) -> dict[int, str]:
        """Classes whose removal is not exact, with the reason; found by pruning in several ways."""
        if not self.layers:
            return {}
        for keep in self._trials():
            alive = torch.from_numpy(self._alive(keep))
            shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
            faults, after = find_fault(trace, classes, alive, self._cut(network, keep, shared), image)
            if faults.keys() - classes.pinned.keys():
                return faults
            if faults or after.error:
                break
        else:
            with torch.no_grad():
                if same_logits(after.logits, self.masked(network, keep).eval()(image)):
                    return {}
        return self._faults_by_set(network, image) or self._give_up(faults)

    def _trials(self) -> Iterator[Keep]:
        """Kept filters that bring mistakes to light: not the first ones; then some at random, never the last."""
        first = {path: torch.arange(layer.out_channels) for path, layer in self.layers.items()}
        yield self.keep(dict.fromkeys(self.layers, 0.4), first)
        rng = torch.Generator().manual_seed(0)
        some = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in self.layers.items()}
        for scores in some.values():
            scores[-1] = -1
        ratios = 0.1 + 0.8 * torch.rand(len(self.layers), generator=rng)
        yield self.keep(dict(zip(self.layers, ratios.tolist(), strict=True)), some)

    def _faults_by_set(self, network: nn.Module, image: torch.Tensor) -> dict[int, str]:
        """Where following tells nothing: prune one coupled set after the other, and compare with masking."""
        faults: dict[int, str] = {}
        rng = torch.Generator().manual_seed(0)
        scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in self.layers.items()}
        for paths in self._selector.sets:
            keep = self.keep(dict.fromkeys(paths, 0.5), scores)
            why = "removing its filters is not the same as masking them: something depends on their number"
            try:
                with torch.no_grad():
                    slim = self.slim(network, keep).eval()(image)
                    exact = same_logits(slim, self.masked(network, keep).eval()(image))
            except Exception as error:
                exact, why = False, f"the forward pass fails when it loses filters ({error})"
            if not exact:
                own = torch.cat([self._nodes[path].out_class for path in paths])
                faults |= dict.fromkeys(own.unique().tolist(), why)
        return faults

    def _give_up(self, faults: Mapping[int, str]) -> dict[int, str]:
        why = next(iter(faults.values()), "they differ together")
        own = torch.from_numpy(self._out_classes).unique().tolist()
        return dict.fromkeys(own, f"removing filters is not the same as masking them ({why})")


class _Indices:
    """Indices of what stays along an axis, worked out once for all tensors that share it."""

    def __init__(self, alive: torch.Tensor) -> None:
        self._alive = alive
        self._known: dict[int, torch.Tensor | None] = {}

    def of(self, classes: torch.Tensor, device: torch.device) -> torch.Tensor | None:
        """Indices on a device, or None if all stay."""
        if id(classes) not in self._known:
            kept = self._alive[classes]
            self._known[id(classes)] = None if kept.all() else kept.nonzero().flatten().to(device)
        return self._known[id(classes)]
