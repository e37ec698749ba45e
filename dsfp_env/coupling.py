"""Which channels of a network stay or go together, and which must stay.

Channels belong to one *class* when none can be removed without the others: a filter's output, the positions that
read it, and all filters that meet it in a sum. Every dimension of every weight is labelled with the classes along
it; whoever removes classes then needs to know nothing else about the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn

from dsfp_env.probe import CONVOLUTIONS, INPUT, OUTPUT, WEIGHTED, Probe, is_depthwise


@dataclass(frozen=True)
class LabelledTensor:
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
class Node:
    """A module, with the class of every channel that it writes and reads."""

    out_class: torch.Tensor  # [output channels], int64
    in_class: torch.Tensor  # [input positions], int64
    tensors: dict[str, LabelledTensor]  # by name in the module
    positions: int  # output positions per image, summed over calls; 0 where no multiply-add is counted
    is_convolution: bool


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


def channel_classes(probe: Probe) -> tuple[dict[str, Node], dict[int, str]]:
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
) -> Node:
    weighted = isinstance(module, WEIGHTED)
    reads_all = weighted and getattr(module, "groups", 1) == 1
    tensors = {}
    for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
        if tensor is None or tensor.dim() == 0 or tensor.shape[0] != len(out_class):
            continue  # a counter, or the one slope of a PReLU
        axes = (out_class, in_class) if reads_all and name == "weight" else (out_class,)
        tensors[name] = LabelledTensor(tensor.shape, axes, name in module._parameters)
    positions = sum(shape.numel() for shape in output_shapes) // len(out_class) if weighted else 0
    return Node(out_class, in_class, tensors, positions, isinstance(module, CONVOLUTIONS))


def prunable_layers(
    network: nn.Module, probe: Probe, nodes: Mapping[str, Node], pinned: Mapping[int, str]
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


def coupled_sets(nodes: Mapping[str, Node], layers: Iterable[str], pinned: Iterable[int]) -> list[tuple[str, ...]]:
    """Group the layers that share classes which can be removed."""
    staying = set(pinned)
    sets: list[tuple[set[int], list[str]]] = []
    for path in layers:
        classes, paths = set(nodes[path].out_class.tolist()) - staying, [path]
        for other in [entry for entry in sets if entry[0] & classes]:
            sets.remove(other)
            classes, paths = classes | other[0], other[1] + paths
        sets.append((classes, paths))
    return [tuple(paths) for _, paths in sets]
