"""A network cut down to the classes that stay, or masked: every traced tensor by the classes along its axes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial

import torch
from torch import nn

from dsfp_env.channels.coupling import LabelledTensor, Node
from dsfp_env.channels.layers import kind_of
from dsfp_env.common.errors import InputError

Nodes = Mapping[str, Node]  # module path -> the classes along its tensors


def cut(
    network: nn.Module, nodes: Nodes, alive: torch.Tensor, shared: Mapping[int, torch.Tensor] | None = None
) -> nn.Module:
    """A smaller copy of a network.

    Args:
        network: Of the structure that was traced; it is left as it is.
        nodes: Of that structure.
        alive: Which classes stay, ``[classes]`` bool.
        shared: Id of a tensor of the network -> what takes its place in the copy, where it is not cut.

    Raises:
        InputError: If the network has not the shapes of the one that was traced.
    """
    taken, indices = dict(shared or {}), _Indices(nodes, alive)
    for tensor, traced in _tensors_of(network, nodes):
        piece = tensor.detach()
        for dim, classes in enumerate(traced.axes):
            if classes is not None and (kept := indices.of(classes, piece.device)) is not None:
                piece = piece.index_select(dim, kept)
        if piece.shape != tensor.shape:
            taken[id(tensor)] = nn.Parameter(piece, tensor.requires_grad) if traced.is_parameter else piece
    slim = copy.deepcopy(network, taken)  # copies everything but these tensors
    modules = dict(slim.named_modules())
    for path, node in nodes.items():
        if (kind := kind_of(modules[path])) is not None:
            kind.set_widths(modules[path], int(alive[node.in_class].sum()), int(alive[node.out_class].sum()))
        for name, classes in node.counts.items():
            setattr(modules[path], name, int(alive[classes].sum()))
    return slim


def mask(network: nn.Module, nodes: Nodes, alive: torch.Tensor) -> nn.Module:
    """A copy of full width in which nobody reads or writes what does not stay; arguments as for `cut`.

    Masked weights get no gradient either.
    """
    masked = copy.deepcopy(network)
    for tensor, traced in _tensors_of(masked, nodes):
        if traced.is_parameter:
            masks = [
                alive[classes].to(tensor).view(-1, *[1] * (tensor.dim() - dim - 1))
                for dim, classes in enumerate(traced.axes)
                if classes is not None
            ]
            for one in masks:
                tensor.detach().mul_(one)
                if tensor.requires_grad:
                    tensor.register_hook(partial(torch.mul, one))
    return masked


def _tensors_of(network: nn.Module, nodes: Nodes) -> Iterator[tuple[torch.Tensor, LabelledTensor]]:
    """Every traced tensor of a network, which must have the shapes of the one that was traced."""
    modules = dict(network.named_modules())
    for path, node in nodes.items():
        for name, traced in node.tensors.items():
            tensor = getattr(modules.get(path), name, None)
            came = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else None
            if tensor is None or came != tuple(traced.shape):
                raise InputError(
                    f"This network does not fit the channel graph: {path}.{name} has shape {came}, expected "
                    f"{tuple(traced.shape)}. Trace the network that you prune, before it is pruned."
                )
            yield tensor, traced


class _Indices:
    """Indices of what stays along an axis, worked out once for all tensors that share it, and sent together."""

    def __init__(self, nodes: Nodes, alive: torch.Tensor) -> None:
        axes = [axis for node in nodes.values() for traced in node.tensors.values() for axis in traced.axes]
        kept = {id(classes): alive[classes] for classes in axes if classes is not None}
        self._kept = {key: stays.nonzero().flatten() for key, stays in kept.items() if not stays.all()}
        self._sent: dict[torch.device, dict[int, torch.Tensor]] = {}

    def of(self, classes: torch.Tensor, device: torch.device) -> torch.Tensor | None:
        """Indices on a device, or None if all stay."""
        if id(classes) not in self._kept:
            return None
        if device not in self._sent:
            pieces = torch.cat(list(self._kept.values())).to(device).split([len(k) for k in self._kept.values()])
            self._sent[device] = dict(zip(self._kept, pieces, strict=True))
        return self._sent[device][id(classes)]
