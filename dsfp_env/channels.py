"""The channel graph of a network: pruning ratios -> kept filters -> a physically smaller network.

Traced once per network (see `probe` and `coupling`). Channels that cannot be removed without each other make a
class, which is kept or removed as a whole; so a step is boolean masks and index-selects from the immutable
original weights.

Coupled convolutions (those that share classes, as the two sides of a residual sum do) keep one common set:
its pruning ratio is the mean of its layers' ratios, the score of a class is the mean of its filters' scores, and
the lowest classes go. ``ratio * classes``, rounded half up, is how many; ties go by index; every layer keeps at
least ``min_filters``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dsfp_env.costs import Costs
from dsfp_env.coupling import (
    LabelledTensor,
    Node,
    PrunableLayer,
    channel_classes,
    coupled_sets,
    prunable_layers,
)
from dsfp_env.errors import InputError
from dsfp_env.probe import CONVOLUTIONS, is_depthwise, probe_channels

Keep = dict[str, torch.Tensor]  # module path -> indices of the kept filters, ascending, int64


class _CoupledSet:
    """Layers that share classes, and the choice of the classes that go."""

    def __init__(self, paths: tuple[str, ...], nodes: Mapping[str, Node], pinned: torch.Tensor) -> None:
        self.paths = paths
        self._class_of_layer = {path: nodes[path].out_class for path in paths}
        of_filter = torch.cat(list(self._class_of_layer.values()))
        self._classes, self._class_of_filter = of_filter.unique(return_inverse=True)
        self._filters_of_class = self._class_of_filter.bincount()
        self._pinned = torch.isin(self._classes, pinned)

    def remove(
        self, alive: torch.Tensor, ratio: float, scores: Mapping[str, torch.Tensor], min_filters: int
    ) -> None:
        """Clear the lowest classes in ``alive`` ``[classes of the graph]``, in place."""
        of_filter = torch.cat([scores[path] for path in self.paths])
        of_class = torch.zeros(len(self._classes), dtype=torch.float64).index_add_(
            0, self._class_of_filter, of_filter
        )
        of_class = (of_class / self._filters_of_class).masked_fill(self._pinned, math.inf)
        wanted = math.floor(ratio * len(self._classes) + 0.5)
        count = min(wanted, len(self._classes) - int(self._pinned.sum()))
        removed = self._classes[of_class.argsort(stable=True)[:count]]
        alive[removed] = False
        for own in self._class_of_layer.values():  # give back the best of what a layer lost, while it has too few
            lost = removed[torch.isin(removed, own)].tolist()
            while lost and int(alive[own].sum()) < min_filters:
                alive[lost.pop()] = True


class ChannelGraph:
    """Which filters of a network can be removed, and what each removal takes along.

    Attributes:
        layers: Module path -> `PrunableLayer`, in order of execution.
        excluded: Module path of every other convolution -> the reason, in words.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        layers: Mapping[str, PrunableLayer],
        excluded: Mapping[str, str],
        pinned: Iterable[int],
        other_params: int,
    ) -> None:
        self._nodes = dict(nodes)
        stay = torch.tensor(sorted(pinned), dtype=torch.int64)  # classes
        self._other_params = other_params  # parameters that never change
        classes = (int(c.max()) for node in nodes.values() for c in (node.out_class, node.in_class))
        self._num_classes = 1 + max(classes, default=0)
        self._coupled_sets = [_CoupledSet(paths, nodes, stay) for paths in coupled_sets(nodes, layers, pinned)]
        self.layers: dict[str, PrunableLayer] = {}
        self.excluded = dict(excluded)
        for path, layer in layers.items():
            others = next(coupled.paths for coupled in self._coupled_sets if path in coupled.paths)
            self.layers[path] = replace(layer, coupled_with=tuple(p for p in others if p != path))

    @classmethod
    def trace(cls, network: nn.Module, example_input: torch.Tensor) -> ChannelGraph:
        """Find the channel graph of any network that maps an image batch to logits.

        The result is verified: slim and masked networks must agree on the example input. Coupled layers for
        which they do not are excluded, with the reason.

        Args:
            network: The network; it is neither changed nor moved.
            example_input: At least one image ``[N, C, ...]`` of the size that will be used.

        Raises:
            InputError: If the network cannot be traced, or has no convolution that can lose filters.
        """
        probe = probe_channels(network, example_input)
        nodes, pinned = channel_classes(probe)
        layers, excluded = prunable_layers(network, probe, nodes, pinned)
        traced = sum(t.shape.numel() for node in nodes.values() for t in node.tensors.values() if t.is_parameter)
        other_params = sum(parameter.numel() for parameter in network.parameters()) - traced
        graph = cls(nodes, layers, excluded, pinned, other_params)
        if layers and graph._fault(network, example_input, layers) is not None:
            faulty = graph._faulty_layers(network, example_input)
            layers = {path: layer for path, layer in layers.items() if path not in faulty}
            graph = cls(nodes, layers, excluded | faulty, pinned, other_params)
            if layers and (fault := graph._fault(network, example_input, layers)):
                raise InputError(f"{type(network).__name__} cannot be pruned: {fault}.")
        if not graph.layers:
            reasons = "; ".join(f"{path}: {why}" for path, why in graph.excluded.items()) or "it has none"
            raise InputError(f"{type(network).__name__} has no convolution that can lose filters ({reasons}).")
        return graph

    def keep(self, ratios: Mapping[str, float], scores: Mapping[str, torch.Tensor], min_filters: int = 1) -> Keep:
        """Choose the filters that stay.

        Args:
            ratios: Module path -> pruning ratio, a fraction in [0, 1); a layer that is not named counts as 0.
            scores: Module path -> one score per filter ``[out_channels]``, higher = keep.
            min_filters: Filters that every layer keeps at least.

        Raises:
            InputError: If a path, a ratio or a score tensor is not what was expected.
        """
        self._check_ratios(ratios)
        alive = torch.ones(self._num_classes, dtype=torch.bool)
        for coupled in self._coupled_sets:
            ratio = sum(ratios.get(path, 0.0) for path in coupled.paths) / len(coupled.paths)
            if ratio > 0:
                coupled.remove(alive, ratio, self._checked_scores(coupled.paths, scores), min_filters)
        return {path: alive[self._nodes[path].out_class].nonzero().flatten() for path in self.layers}

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
        alive = self._alive(keep)
        cut: dict[int, torch.Tensor] = {}  # id of an original tensor -> what stays of it
        for tensor, traced in self._tensors_of(network):
            piece = tensor.detach()
            for dim, kept in enumerate(traced.kept(alive)):
                if not kept.all():
                    piece = piece.index_select(dim, kept.nonzero().flatten().to(piece.device))
            if piece.shape != tensor.shape:
                cut[id(tensor)] = nn.Parameter(piece, tensor.requires_grad) if traced.is_parameter else piece
        slim = copy.deepcopy(network, cut)  # copies everything but the tensors that were cut
        for path, node in self._nodes.items():
            module = slim.get_submodule(path)
            _set_widths(module, int(alive[node.out_class].sum()), int(alive[node.in_class].sum()))
        return slim

    def masked(self, network: nn.Module, keep: Keep) -> nn.Module:
        """The reference for `slim`: of full width, but removed filters write zero and nobody reads them.

        Masked weights get no gradient either, so it can be trained beside the slim network.
        """
        alive = self._alive(keep)
        masked = copy.deepcopy(network)
        for tensor, traced in self._tensors_of(masked):
            if traced.is_parameter:
                mask = torch.ones_like(tensor)
                for dim, kept in enumerate(traced.kept(alive)):
                    mask *= kept.to(mask).view(-1, *[1] * (mask.dim() - dim - 1))
                tensor.detach().mul_(mask)
                if tensor.requires_grad:
                    tensor.register_hook(partial(torch.mul, mask))
        return masked

    def costs(self, keep: Keep | None = None) -> Costs:
        """Costs with these filters kept (all, if none are given), from the structure alone."""
        alive = self._alive(keep or {})
        macs, params, filters = 0, self._other_params, 0
        for node in self._nodes.values():
            params += sum(t.size(alive) for t in node.tensors.values() if t.is_parameter)
            macs += node.positions * node.tensors["weight"].size(alive) if node.positions else 0
            filters += int(alive[node.out_class].sum()) if node.is_convolution else 0
        return Costs(macs, params, filters)

    def _tensors_of(self, network: nn.Module) -> Iterator[tuple[torch.Tensor, LabelledTensor]]:
        """Every traced tensor of a network, which must have the shapes of the one that was traced."""
        for path, node in self._nodes.items():
            for name, traced in node.tensors.items():
                try:
                    tensor = getattr(network.get_submodule(path), name)
                    came = tuple(tensor.shape)
                except AttributeError:
                    came = None
                if came != tuple(traced.shape):
                    raise InputError(
                        f"This network does not fit the channel graph: {path}.{name} has shape {came}, expected "
                        f"{tuple(traced.shape)}. Trace the network that you prune, before it is pruned."
                    )
                yield tensor, traced

    def _alive(self, keep: Keep) -> torch.Tensor:
        """Which classes stay: ``[classes]``, bool."""
        alive = torch.ones(self._num_classes, dtype=torch.bool)
        for path, layer in self.layers.items():
            kept = _mask_of(keep, layer)
            alive[self._nodes[path].out_class[~kept]] = False
        for path, layer in self.layers.items():
            if not torch.equal(alive[self._nodes[path].out_class], _mask_of(keep, layer)):
                raise InputError(
                    f"The kept filters of {path!r} do not agree with those of the layers it is coupled with "
                    f"({', '.join(layer.coupled_with)}): a filter and what it is summed with stay or go together. "
                    "Use the result of ChannelGraph.keep."
                )
        if unknown := keep.keys() - self.layers.keys():
            raise InputError(f"No prunable layer is called {min(unknown)!r}; there are: {', '.join(self.layers)}.")
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

    def _checked_scores(self, paths: Iterable[str], scores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        checked = {}
        for path in paths:
            expected = (self.layers[path].out_channels,)
            came = scores.get(path)
            if came is None or tuple(came.shape) != expected or torch.isnan(came).any():
                what = "are missing" if came is None else f"have shape {tuple(came.shape)} or hold NaN"
                raise InputError(f"The scores of {path!r} {what}: expected one number per filter, {expected}.")
            checked[path] = came.detach().to("cpu", torch.float64)
        return checked

    def _faulty_layers(self, network: nn.Module, image: torch.Tensor) -> dict[str, str]:
        """Layers whose removal of filters does not give what masking gives, with the reason."""
        faults = [(coupled, self._fault(network, image, coupled.paths)) for coupled in self._coupled_sets]
        return {path: fault for coupled, fault in faults if fault is not None for path in coupled.paths}

    def _fault(self, network: nn.Module, image: torch.Tensor, paths: Iterable[str]) -> str | None:
        """Prune half of these layers' filters and compare with the masked network."""
        rng = torch.Generator().manual_seed(0)
        scores = {path: torch.rand(self.layers[path].out_channels, generator=rng) for path in self.layers}
        keep = self.keep(dict.fromkeys(paths, 0.5), scores)
        image = image[:1].to(next(network.parameters()).device)
        try:
            with torch.no_grad():
                slim = self.slim(network, keep).eval()(image)
                masked = self.masked(network, keep).eval()(image)
        except Exception as error:
            return f"the forward pass fails when it loses filters ({error})"
        if not torch.allclose(slim, masked, rtol=0, atol=1e-4 * float(masked.abs().max() + 1e-6)):
            return "removing its filters is not the same as masking them: an operation on its channels mixes them"
        return None


def _mask_of(keep: Keep, layer: PrunableLayer) -> torch.Tensor:
    """Kept filters of one layer as ``[out_channels]`` bool; a layer that is not named stays whole."""
    if layer.path not in keep:
        return torch.ones(layer.out_channels, dtype=torch.bool)
    mask = torch.zeros(layer.out_channels, dtype=torch.bool)
    mask[keep[layer.path].cpu()] = True
    return mask


def _set_widths(module: nn.Module, out_channels: int, in_channels: int) -> None:
    """Make a module's attributes tell its new widths."""
    if isinstance(module, CONVOLUTIONS):
        module.groups = out_channels if is_depthwise(module) else module.groups
        module.out_channels, module.in_channels = out_channels, in_channels
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = out_channels, in_channels
    elif isinstance(module, nn.PReLU):
        module.num_parameters = min(module.num_parameters, out_channels)
    elif isinstance(module, (_BatchNorm, _InstanceNorm)):
        module.num_features = out_channels
