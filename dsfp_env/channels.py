"""The channel graph of a network: pruning ratios -> kept filters -> a physically smaller network.

Traced once per network (see `probe`). Channels belong to one *class* when none can be removed without the
others: a filter's output, the positions that read it, and all filters that meet it in a sum. A class is kept or
removed as a whole, so a step is boolean masks and index-selects from the immutable original weights.

Coupled convolutions (those that share classes, as the two sides of a residual sum do) keep one common set:
its pruning ratio is the mean of its layers' ratios, the score of a class is the mean of its filters' scores, and
the lowest classes go. ``ratio * classes``, rounded half up, is how many; ties go by index; every layer keeps at
least ``min_filters``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dsfp_env.costs import Costs
from dsfp_env.errors import InputError
from dsfp_env.probe import CONVOLUTIONS, INPUT, OUTPUT, WEIGHTED, Probe, is_depthwise, probe_channels

Keep = dict[str, torch.Tensor]  # module path -> indices of the kept filters, ascending, int64


@dataclass(frozen=True)
class PrunableLayer:
    """A convolution that can lose filters."""

    path: str  # module path in the network
    out_channels: int
    in_channels: int
    kernel_size: tuple[int, ...]
    macs: int  # of this layer in the original network, per image
    params: int  # of this layer in the original network
    norm: str | None = None  # path of the normalisation that takes this layer's output directly
    coupled_with: tuple[str, ...] = ()  # layers that keep the same set of filters


@dataclass(frozen=True)
class _Tensor:
    """A parameter or buffer, and the classes of the channels along its leading dimensions."""

    shape: torch.Size  # in the original network
    axes: tuple[torch.Tensor, ...]  # one [shape[dim]] int64 for each dimension that is cut
    is_parameter: bool

    def kept(self, alive: torch.Tensor) -> list[torch.Tensor]:
        """Boolean masks of what stays, one for each dimension that is cut."""
        return [alive[classes] for classes in self.axes]

    def size(self, alive: torch.Tensor) -> int:
        """Elements that stay."""
        rest = math.prod(self.shape[len(self.axes) :])
        return math.prod(int(kept.sum()) for kept in self.kept(alive)) * rest


@dataclass(frozen=True)
class _Node:
    """A module, with the class of every channel that it writes and reads."""

    out_class: torch.Tensor  # [output channels], int64
    in_class: torch.Tensor  # [input positions], int64
    tensors: dict[str, _Tensor]  # by name in the module
    positions: int  # output positions per image, summed over calls; 0 where no multiply-add is counted
    is_convolution: bool


class _CoupledSet:
    """Layers that share classes, and the choice of the classes that go."""

    def __init__(self, paths: tuple[str, ...], nodes: Mapping[str, _Node], pinned: torch.Tensor) -> None:
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
        nodes: Mapping[str, _Node],
        layers: Mapping[str, PrunableLayer],
        excluded: Mapping[str, str],
        pinned: Iterable[int],
        other_params: int,
    ) -> None:
        self._nodes = dict(nodes)
        self._pinned = torch.tensor(sorted(pinned), dtype=torch.int64)  # classes that always stay
        self._other_params = other_params  # parameters that never change
        self._num_classes = 1 + max(int(c.max()) for n in nodes.values() for c in (n.out_class, n.in_class))
        self._coupled_sets = [_CoupledSet(paths, nodes, self._pinned) for paths in _coupled_paths(nodes, layers)]
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
        nodes, pinned = _classes(probe)
        layers, excluded = _prunable(network, probe, nodes, pinned)
        traced = sum(t.shape.numel() for node in nodes.values() for t in node.tensors.values() if t.is_parameter)
        other_params = sum(parameter.numel() for parameter in network.parameters()) - traced
        graph = cls(nodes, layers, excluded, pinned, other_params)
        if faulty := graph._faulty_layers(network, example_input[:1]):
            layers = {path: layer for path, layer in layers.items() if path not in faulty}
            graph = cls(nodes, layers, excluded | faulty, pinned, other_params)
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
        alive = self._alive(keep or {path: torch.arange(n.out_channels) for path, n in self.layers.items()})
        macs, params, filters = 0, self._other_params, 0
        for node in self._nodes.values():
            params += sum(t.size(alive) for t in node.tensors.values() if t.is_parameter)
            macs += node.positions * node.tensors["weight"].size(alive) if node.positions else 0
            filters += int(alive[node.out_class].sum()) if node.is_convolution else 0
        return Costs(macs, params, filters)

    def _tensors_of(self, network: nn.Module) -> Iterator[tuple[torch.Tensor, _Tensor]]:
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
        if self._fault(network, image, self.layers) is None:
            return {}
        faults = [(coupled, self._fault(network, image, coupled.paths)) for coupled in self._coupled_sets]
        return {path: fault for coupled, fault in faults if fault is not None for path in coupled.paths}

    def _fault(self, network: nn.Module, image: torch.Tensor, paths: Iterable[str]) -> str | None:
        """Prune half of these layers' filters and compare with the masked network."""
        rng = torch.Generator().manual_seed(0)
        scores = {path: torch.rand(self.layers[path].out_channels, generator=rng) for path in self.layers}
        keep = self.keep(dict.fromkeys(paths, 0.5), scores)
        image = image.to(next(network.parameters()).device)
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


def _classes(probe: Probe) -> tuple[dict[str, _Node], dict[int, str]]:
    """Join channels that stay or go together, and say which must stay.

    Vertices are the channels that producers write and the positions that consumers read; what was heard joins
    them; a class is a connected component.

    Returns:
        The nodes by module path, and class -> the reason that it must stay.
    """
    writes = {INPUT: probe.widths[INPUT]}
    reads = {OUTPUT: probe.widths[OUTPUT]}
    for path, module in probe.modules.items():
        reads[path] = probe.widths[path]
        if isinstance(module, WEIGHTED):
            writes[path] = module.weight.shape[0]
    starts = np.cumsum([0, *writes.values(), *reads.values()])
    written = {path: torch.arange(*starts[i : i + 2]) for i, path in enumerate(writes)}
    read = {path: torch.arange(*starts[i : i + 2]) for i, path in enumerate(reads, start=len(writes))}

    edges = [torch.empty(2, 0, dtype=torch.int64)]
    for link in probe.links:
        reached = link.channels >= 0
        edges.append(torch.stack([read[link.consumer][reached], written[link.producer][link.channels[reached]]]))
    for path, module in probe.modules.items():
        if is_depthwise(module):
            edges.append(torch.stack([read[path], written[path]]))
    rows, columns = torch.cat(edges, 1).numpy()
    vertices = int(starts[-1])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(vertices, vertices))
    class_of = torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))

    nodes = {
        path: _node(
            module, class_of[written.get(path, read[path])], class_of[read[path]], probe.output_shapes[path]
        )
        for path, module in probe.modules.items()
    }
    pinned: dict[int, str] = {}
    for vertices_of, reason in _must_stay(probe, written, read):
        for one in class_of[vertices_of].unique().tolist():
            pinned.setdefault(one, reason)
    return nodes, pinned


def _must_stay(
    probe: Probe, written: Mapping[str, torch.Tensor], read: Mapping[str, torch.Tensor]
) -> Iterator[tuple[torch.Tensor, str]]:
    """Vertices that cannot be removed, with the reason."""
    yield read[OUTPUT], "its filters are the outputs of the network"
    yield written[INPUT], "its filters are joined with the input of the network"
    for producer, consumer in probe.mixed.items():
        where = "the output" if consumer == OUTPUT else repr(consumer)
        yield written[producer], f"its filters are mixed with one another before they reach {where}"
    for path, module in probe.modules.items():
        grouped = isinstance(module, CONVOLUTIONS) and module.groups > 1 and not is_depthwise(module)
        computed = "weight" not in module._parameters and isinstance(module, WEIGHTED)
        if grouped or computed:
            why = f"is a convolution in {module.groups} groups" if grouped else "computes its weight"
            yield torch.cat([read[path], written[path]]), f"{path!r}, which it is or is tied to, {why}"


def _node(
    module: nn.Module, out_class: torch.Tensor, in_class: torch.Tensor, output_shapes: Sequence[torch.Size]
) -> _Node:
    weighted = isinstance(module, WEIGHTED)
    reads_all = weighted and getattr(module, "groups", 1) == 1
    tensors = {}
    for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
        if tensor is None or tensor.dim() == 0 or tensor.shape[0] != len(out_class):
            continue  # a counter, or the one slope of a PReLU
        axes = (out_class, in_class) if reads_all and name == "weight" else (out_class,)
        tensors[name] = _Tensor(tensor.shape, axes, name in module._parameters)
    positions = sum(shape.numel() for shape in output_shapes) // len(out_class) if weighted else 0
    return _Node(out_class, in_class, tensors, positions, isinstance(module, CONVOLUTIONS))


def _prunable(
    network: nn.Module, probe: Probe, nodes: Mapping[str, _Node], pinned: Mapping[int, str]
) -> tuple[dict[str, PrunableLayer], dict[str, str]]:
    """Sort the convolutions of a network into those that can lose filters and those that cannot."""
    layers: dict[str, PrunableLayer] = {}
    excluded = {
        path: "it does not run on the example input in evaluation mode"
        for path, module in network.named_modules()
        if isinstance(module, CONVOLUTIONS) and path not in nodes
    }
    for path, node in nodes.items():
        module = probe.modules[path]
        if not isinstance(module, CONVOLUTIONS):
            continue
        reasons = [pinned.get(one) for one in node.out_class.tolist()]
        if all(reasons):
            excluded[path] = str(reasons[0])
        else:
            layers[path] = PrunableLayer(
                path=path,
                out_channels=module.out_channels,
                in_channels=module.in_channels,
                kernel_size=tuple(module.kernel_size),
                macs=module.weight.numel() * node.positions,
                params=sum(parameter.numel() for parameter in module.parameters()),
                norm=probe.norms.get(path),
            )
    return layers, excluded


def _coupled_paths(nodes: Mapping[str, _Node], layers: Iterable[str]) -> list[tuple[str, ...]]:
    """Group the layers that share classes."""
    sets: list[tuple[set[int], list[str]]] = []
    for path in layers:
        classes, paths = set(nodes[path].out_class.tolist()), [path]
        for other in [entry for entry in sets if entry[0] & classes]:
            sets.remove(other)
            classes, paths = classes | other[0], other[1] + paths
        sets.append((classes, paths))
    return [tuple(paths) for _, paths in sets]


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
