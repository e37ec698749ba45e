"""Which channels of a network stay or go together, and which must stay.

Channels belong to one *class* when none can be removed without the others: a filter's output, the positions that
read it, and all filters that meet it in a sum. Every dimension of every weight is labelled with the classes along
it; whoever removes classes then needs to know nothing else about the network.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Any, NamedTuple

import torch
from torch import nn

from dsfp_env.channels.labels import components
from dsfp_env.channels.layers import Axes, Convolution, Kind, Weighted, kind_of
from dsfp_env.channels.tracing import INPUT, TOGETHER, Trace

Keep = dict[str, torch.Tensor]  # module path -> indices of the kept filters, ascending, int64


@dataclass(frozen=True)
class LabelledTensor:
    """A parameter or buffer, and the classes of the channels along its leading dimensions."""

    shape: torch.Size  # in the original network
    axes: Axes  # one [shape[dim]] int64 for each leading dimension, None for one that is never cut
    is_parameter: bool
    counts: bool  # among the parameters; once, if modules share it
    uses: int = 0  # of each number as a factor, per image; 0 where no multiply-add is counted


@dataclass(frozen=True)
class Node:
    """A module, with the class of every channel that it writes and reads."""

    out_class: torch.Tensor  # [output channels], int64
    in_class: torch.Tensor  # [input positions], int64
    tensors: dict[str, LabelledTensor]  # by name in the module
    counts: dict[str, torch.Tensor] = field(default_factory=dict)  # attribute -> classes that it is the number of
    positions: int = 0  # uses of each number of its weight per image
    is_convolution: bool = False

    @property
    def macs(self) -> int:
        """Multiply-adds per image of the original layer, in tensors that can be cut."""
        return sum(math.prod(tensor.shape) * tensor.uses for tensor in self.tensors.values())


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
    coupled_with: tuple[str, ...] = ()  # layers that share filters' fate with this one, in whole or in part
    pinned: int = 0  # filters that always stay


@dataclass
class Classes:
    """The classes of a network's channels."""

    of_label: torch.Tensor  # [labels], int64: the class of every label of the trace
    nodes: dict[str, Node]  # by module path
    pinned: dict[int, str]  # class -> the reason that it must stay


class Ties(NamedTuple):
    """Channels that go together, so that an operation finds them."""

    operation: str
    pairs: torch.Tensor  # of labels, [2, n]
    counts: dict[tuple[str, str], torch.Tensor]  # (module path, attribute) -> labels that it is the number of

    @property
    def labels(self) -> torch.Tensor:
        """All that are tied or counted."""
        return torch.cat([self.pairs.flatten(), *self.counts.values()])


def channel_classes(
    network: nn.Module, trace: Trace, ties: Iterable[Ties] = (), stays: Iterable[tuple[torch.Tensor, str]] = ()
) -> Classes:
    """Join channels that stay or go together (connected components of what met), and say which must stay.

    Args:
        network: The network.
        trace: Of the network.
        ties: More that go together.
        stays: More labels that must stay, with the reason.
    """
    ties = list(ties)
    edges = [tie.pairs for tie in ties]
    counts: dict[tuple[str, str], torch.Tensor] = {}
    for tie in ties:
        same = [torch.stack([counts.setdefault(key, labels), labels]) for key, labels in tie.counts.items()]
        edges += [pairs[:, (pairs > 0).all(0)] for pairs in same]
    edges += [join for event in trace.events for join in event.joins]
    for path, module in trace.modules.items():
        edges += _kind(module).ties(module, *_sides(trace, path))
    edges += [torch.stack([a, b]) for _, a, b in _shared_axes(trace) if a is not None and b is not None]
    count = 1 + max(int(labels.max()) for labels in trace.vertices.values())
    joined = components(torch.cat([torch.empty(2, 0, dtype=torch.int64), *edges], 1), count)
    of_label = joined.unique(return_inverse=True)[1]
    seen: set[int] = set()
    nodes = {
        path: _node(module, (of_label[reads], of_label[writes]), trace.positions.get(path, 0), seen)
        for path, module in trace.modules.items()
        for reads, writes in [_sides(trace, path)]
    }
    nodes |= _vector_nodes(network, trace, of_label)
    for (path, name), labels in counts.items():
        nodes.setdefault(path, _empty_node()).counts[name] = of_label[labels]
    pinned: dict[int, str] = {}
    for labels, reason in chain(_must_stay(trace, of_label, ties), stays):
        for one in of_label[labels].unique().tolist():
            pinned.setdefault(one, reason)
    return Classes(of_label, nodes, pinned)


def function_nodes(trace: Trace, classes: Classes) -> dict[str, Node]:
    """Nodes, for counting, of products that are no layer's and work channel by channel, as a blur does."""
    nodes: dict[str, Node] = {}
    for number, event in enumerate(trace.events):
        for seen in event.labels if event.macs else ():
            channels = seen.compact.flatten().long()
            if max(seen.compact.shape, default=1) == len(channels) > 1 and channels.any():
                along, uses = (classes.of_label[channels],), event.macs // len(channels)
                node = nodes.setdefault(f"<{number}>", _empty_node())
                node.tensors["product"] = LabelledTensor(torch.Size([len(channels)]), along, False, False, uses)
    return nodes


def _vector_nodes(network: nn.Module, trace: Trace, of_label: torch.Tensor) -> dict[str, Node]:
    """Nodes for tensors of the user's own modules that hold one number per channel."""
    nodes: dict[str, Node] = {}
    layers = [network.get_submodule(path) for path in trace.modules]
    seen = {id(tensor) for layer in layers for _, tensor in _tensors_of(layer)}  # counted with the layer
    for (path, name), dim in trace.vectors.items():
        module = network.get_submodule(path)
        tensor = getattr(module, name)
        one_axis = (None,) * dim + (of_label[trace.vertices[path, name]],)
        node = nodes.setdefault(path, _empty_node())
        is_parameter = name in module._parameters
        counts = is_parameter and id(tensor) not in seen
        node.tensors[name] = LabelledTensor(tensor.shape, one_axis, is_parameter, counts)
        seen.add(id(tensor))
    return nodes


def _empty_node() -> Node:
    """Of a module that is no known layer."""
    return Node(torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.int64), {})


def _sides(trace: Trace, path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of what a layer reads and what it writes."""
    reads = trace.vertices[path, "in"]
    return reads, trace.vertices.get((path, "out"), reads)


def _shared_axes(trace: Trace) -> Iterator[tuple[str, torch.Tensor | None, torch.Tensor | None]]:
    """What must be cut alike, as it is one tensor of two layers: the path of one, and the labels along an axis."""
    held: dict[int, Axes] = {}
    for path, module in trace.modules.items():
        for name, tensor in _tensors_of(module):
            axes = _kind(module).axes(module, name, tensor, *_sides(trace, path))
            for first, second in zip_longest(held.setdefault(id(tensor), axes), axes):
                if first is not second:
                    yield path, first, second


def _must_stay(trace: Trace, of_label: torch.Tensor, ties: Iterable[Ties]) -> Iterator[tuple[torch.Tensor, str]]:
    """Labels that cannot be removed, with the reason; the first that is given for one counts."""
    inseparable = list(_inseparable(trace, of_label, ties))
    yield from ((labels, reason) for labels, reason, known in inseparable if known)
    yield trace.outputs, "its filters are the outputs of the network"
    for (path, _), labels in trace.vertices.items():
        if path == INPUT:
            yield labels, "its filters are joined with the input of the network"
        elif path == TOGETHER:
            yield labels, "its filters are joined with a sum over channels"
    for event in trace.events:
        yield from event.stays
    for path, module in trace.modules.items():
        kind = _kind(module)
        if isinstance(kind, Weighted) and kind.computes_weight(module):
            yield torch.cat(_sides(trace, path)), f"{path!r}, which it is or is tied to, computes its weight"
    for path, first, second in _shared_axes(trace):
        if (alone := second if first is None else first) is not None and (first is None or second is None):
            yield alone, f"{path!r} shares a tensor with it and is cut otherwise"
    yield from ((labels, reason) for labels, reason, known in inseparable if not known)


def _inseparable(
    trace: Trace, of_label: torch.Tensor, ties: Iterable[Ties]
) -> Iterator[tuple[torch.Tensor, str, bool]]:
    """Labels of layers whose filters can only go together; the reason, and whether it is known what binds them."""
    mixed = {
        int(one): event.operation
        for event in reversed(trace.events)
        if event.mixes
        for join in event.joins
        for one in of_label[join[0]].unique()
    }
    for path, module in trace.modules.items():
        if _kind(module).mixes_channels:
            what = f"{type(module).__name__} in {path!r}"
            mixed |= dict.fromkeys(of_label[trace.vertices[path, "in"]].tolist(), what)
    tied = {int(one): tie.operation for tie in ties for one in of_label[tie.pairs[0]].unique()}
    for path, module in trace.modules.items():
        _, writes = _sides(trace, path)
        if not isinstance(_kind(module), Weighted) or len(of_label[writes].unique()) > 1:
            continue
        one, who = int(of_label[writes[0]]), f"{path!r}, which it is or is tied to"
        if len(writes) == 1:
            yield writes, f"{who}, has a single filter", False
        elif one in tied:
            yield writes, f"all filters of {who}, would have to go together for {tied[one]} to find them", True
        elif one in mixed:
            yield writes, f"all filters of {who}, are mixed by {mixed[one]}", True
        else:
            yield writes, f"all filters of {who}, can only go together", False


def _node(module: nn.Module, sides: tuple[torch.Tensor, torch.Tensor], positions: int, seen: set[int]) -> Node:
    (reads, writes), kind = sides, _kind(module)
    tensors: dict[str, LabelledTensor] = {}
    for name, tensor in _tensors_of(module):
        if along := kind.axes(module, name, tensor, reads, writes):
            is_parameter = name in module._parameters
            counts, uses = is_parameter and id(tensor) not in seen, positions if kind.multiplies(name) else 0
            tensors[name] = LabelledTensor(tensor.shape, along, is_parameter, counts, uses)
            seen.add(id(tensor))
    return Node(writes, reads, tensors, positions=positions, is_convolution=isinstance(kind, Convolution))


def _tensors_of(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """A module's own parameters and buffers."""
    tensors = [*module._parameters.items(), *module._buffers.items()]
    return ((name, tensor) for name, tensor in tensors if tensor is not None)


def _kind(module: nn.Module) -> Kind:
    """The kind of a layer that was traced."""
    kind = kind_of(module)
    assert kind is not None
    return kind


def prunable_layers(
    network: nn.Module, trace: Trace, classes: Classes, unheard: Collection[str] = ()
) -> tuple[dict[str, PrunableLayer], dict[str, str]]:
    """Sort the convolutions of a network into those that can lose filters and those that cannot, with the reason.

    Args:
        network: The network.
        trace: Of the network.
        classes: Of its channels.
        unheard: Convolutions that do not matter; see `reach`.
    """
    layers: dict[str, PrunableLayer] = {}
    excluded = {
        path: "it does not run on the example input in evaluation mode"
        for path, module in network.named_modules()
        if isinstance(kind_of(module), Convolution) and path not in trace.positions
    }
    for path in trace.unlike & excluded.keys():
        excluded[path] = "its forward pass is not that of a convolution"
    for path in trace.positions:
        module: Any = trace.modules[path]
        node = classes.nodes[path]
        if not node.is_convolution:
            continue
        reasons = [classes.pinned.get(one) for one in node.out_class.tolist()]
        if all(reasons):
            excluded[path] = str(reasons[0])
        elif path in unheard:
            excluded[path] = "nothing that it writes reaches the outputs of the network"
        else:
            layers[path] = PrunableLayer(
                path=path,
                out_channels=module.out_channels,
                in_channels=module.in_channels,
                kernel_size=tuple(module.kernel_size),
                macs=node.macs,
                params=sum(parameter.numel() for parameter in module.parameters()),
                norm=trace.norms.get(path),
                pinned=sum(reason is not None for reason in reasons),
            )
    return layers, excluded


def coupled_sets(classes: Classes, layers: Iterable[str]) -> list[tuple[str, ...]]:
    """Group the layers that share classes which can be removed."""
    sets: list[tuple[set[int], list[str]]] = []
    for path in layers:
        own, paths = set(classes.nodes[path].out_class.tolist()) - classes.pinned.keys(), [path]
        for other in [entry for entry in sets if entry[0] & own]:
            sets.remove(other)
            own, paths = own | other[0], other[1] + paths
        sets.append((own, paths))
    return [tuple(paths) for _, paths in sets]
