"""What this package knows about torch's layers: one class for each kind; a new kind is one more class in `KINDS`.

A kind says which dimension counts channels, which channels go together, along which dimensions a layer's tensors
are cut, and which attributes tell its widths. Whatever is of no kind here (recurrent layers, attention, a user's
own operations) is followed operation by operation, see `propagation`.

A layer in groups is cut in the finer of two ways that both leave equal groups. *Whole groups*: a group's inputs
and outputs go together, and the number of groups falls; a depthwise convolution is the case of one channel per
group. *Within groups*: the same places go in every group, and the number of groups stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

Axes = tuple[torch.Tensor | None, ...]  # for each leading dimension the class of every index; None: never cut


class Kind:
    """A kind of layers; this one holds one number per channel in each of its tensors, and keeps their order.

    The layer is handed in: a kind has no state. Labels and classes are tensors ``[channels]``, one number for
    every channel that the layer reads or writes.
    """

    modules: ClassVar[tuple[type[nn.Module], ...]] = ()  # of this kind are these and all that inherit from them
    is_convolution: ClassVar[bool] = False  # its output channels are filters
    is_weighted: ClassVar[bool] = False  # it absorbs what it reads, and writes channels of its own
    is_normalisation: ClassVar[bool] = False  # in training it needs more than one image
    mixes_channels: ClassVar[bool] = False  # one output depends on several channels
    width_names: ClassVar[tuple[str, ...]] = ()  # the attributes that tell the widths

    def runs_itself(self, layer: Any) -> bool:
        """Whether the layer's own forward pass runs; else another module borrows its tensors."""
        return True

    def channel_dim(self, layer: Any) -> int:
        """The dimension of the layer's input and output that counts channels, for any batch or none."""
        return 1

    def ties(self, layer: Any, reads: torch.Tensor, writes: torch.Tensor) -> Iterator[torch.Tensor]:
        """Pairs ``[2, n]`` of labels of channels that go together."""
        yield from ()

    def axes(self, layer: Any, name: str, tensor: torch.Tensor, reads: torch.Tensor, writes: torch.Tensor) -> Axes:
        """The dimensions along which a tensor of the uncut layer is cut, by the classes along them."""
        return (writes,) if tensor.dim() > 0 and tensor.shape[0] == len(writes) else ()

    def multiplies(self, name: str) -> bool:
        """Whether each number of this tensor is multiplied with an activation, as MACs count."""
        return False

    def set_widths(self, layer: Any, reads: int, writes: int) -> None:
        """Make the layer's attributes tell how many channels it reads and writes now."""

    def widths(self, layer: Any) -> dict[str, int]:
        """The attributes that tell the layer's widths."""
        return {name: getattr(layer, name) for name in self.width_names}


class Weighted(Kind):
    """Layers with a weight that joins every output channel with every input channel (of its group)."""

    is_weighted = True

    def weight(self, layer: Any) -> torch.Tensor:
        """The weight, be it a parameter or computed."""
        weight = layer.weight
        assert isinstance(weight, torch.Tensor)
        return weight

    def computes_weight(self, layer: nn.Module) -> bool:
        """Whether the weight is made of other parameters, and so cannot be cut."""
        return "weight" not in layer._parameters

    def multiplies(self, name: str) -> bool:
        return name == "weight"

    def out_width(self, layer: Any) -> int:
        """How many channels the layer writes."""
        return self.weight(layer).shape[0]

    def in_width(self, layer: Any) -> int:
        """How many channels the layer reads."""
        return self.weight(layer).shape[1]

    def uses(self, layer: Any, inputs: torch.Tensor, output: torch.Tensor) -> int:
        """How often each number of the weight was multiplied, from what the layer read and wrote."""
        return output.numel() // output.shape[self.channel_dim(layer)]

    def weight_shape(self, layer: Any) -> tuple[int, ...]:
        """What the layer's own widths say of its weight."""
        raise NotImplementedError


class Linear(Weighted):
    """Fully connected layers."""

    modules = (nn.Linear,)
    width_names = ("in_features", "out_features")

    def runs_itself(self, layer: nn.Module) -> bool:
        return not isinstance(layer, NonDynamicallyQuantizableLinear)  # of attention

    def channel_dim(self, layer: nn.Module) -> int:
        return -1

    def axes(
        self, layer: nn.Module, name: str, tensor: torch.Tensor, reads: torch.Tensor, writes: torch.Tensor
    ) -> Axes:
        return (writes, reads) if self.multiplies(name) else super().axes(layer, name, tensor, reads, writes)

    def set_widths(self, layer: nn.Linear, reads: int, writes: int) -> None:
        layer.in_features, layer.out_features = reads, writes

    def weight_shape(self, layer: nn.Linear) -> tuple[int, ...]:
        return layer.out_features, layer.in_features


class Convolution(Weighted):
    """Convolutions of one to three dimensions, in groups or not; the weight is ``[out, in / groups, ...]``."""

    modules = (_ConvNd,)
    is_convolution = True
    width_names = ("in_channels", "out_channels", "groups")

    def channel_dim(self, layer: _ConvNd) -> int:
        return -1 - len(layer.kernel_size)

    def out_width(self, layer: _ConvNd) -> int:
        return layer.out_channels

    def in_width(self, layer: _ConvNd) -> int:
        return layer.in_channels

    def loses_whole_groups(self, layer: _ConvNd) -> bool:
        """Whether whole groups go, and not the same places in every group."""
        return layer.groups > 1 and layer.groups**2 > layer.in_channels

    def ties(self, layer: _ConvNd, reads: torch.Tensor, writes: torch.Tensor) -> Iterator[torch.Tensor]:
        if layer.groups == 1:
            return
        whole = self.loses_whole_groups(layer)
        for labels in (reads, writes):
            by_group = labels.view(layer.groups, -1)
            yield _all_in_a_row(by_group if whole else by_group.T)
        if whole:
            yield torch.stack([reads.view(layer.groups, -1)[:, 0], writes.view(layer.groups, -1)[:, 0]])

    def axes(
        self, layer: _ConvNd, name: str, tensor: torch.Tensor, reads: torch.Tensor, writes: torch.Tensor
    ) -> Axes:
        if not self.multiplies(name):
            return super().axes(layer, name, tensor, reads, writes)
        first, second = self._weight_sides(reads, writes)
        return first, None if self.loses_whole_groups(layer) else second[: len(second) // layer.groups]

    def set_widths(self, layer: _ConvNd, reads: int, writes: int) -> None:
        if self.loses_whole_groups(layer):
            layer.groups = reads // (layer.in_channels // layer.groups)
        layer.in_channels, layer.out_channels = reads, writes

    def weight_shape(self, layer: _ConvNd) -> tuple[int, ...]:
        first, second = self._weight_sides(layer.in_channels, layer.out_channels)
        return (first, second // layer.groups, *layer.kernel_size)

    def filters(self, layer: Any, tensor: torch.Tensor) -> torch.Tensor:
        """The weight, the bias or the gradient of one as ``[filters, elements]``."""
        return tensor.reshape(len(tensor), -1)

    def _weight_sides(self, reads: Any, writes: Any) -> tuple[Any, Any]:
        """What is along the first and the second dimension of the weight."""
        return writes, reads


class TransposedConvolution(Convolution):
    """Transposed convolutions: the weight is ``[in, out / groups, ...]``, and used once for every input."""

    modules = (_ConvTransposeNd,)

    def uses(self, layer: Any, inputs: torch.Tensor, output: torch.Tensor) -> int:
        return super().uses(layer, inputs, inputs)

    def filters(self, layer: Any, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dim() == 1:
            return super().filters(layer, tensor)
        in_channels, per_group, *kernel = tensor.shape
        by_group = tensor.reshape(layer.groups, in_channels // layer.groups, per_group, *kernel)
        return by_group.transpose(1, 2).reshape(layer.groups * per_group, -1)

    def _weight_sides(self, reads: Any, writes: Any) -> tuple[Any, Any]:
        return reads, writes


class Normalisation(Kind):
    """Normalisation of every channel by itself: batch and instance normalisation."""

    modules = (_BatchNorm, _InstanceNorm)
    is_normalisation = True
    width_names = ("num_features",)

    def set_widths(self, layer: Any, reads: int, writes: int) -> None:
        layer.num_features = writes


class GroupNormalisation(Kind):
    """Normalisation of groups of channels, which go as a whole."""

    modules = (nn.GroupNorm,)
    is_normalisation = True
    mixes_channels = True
    width_names = ("num_channels", "num_groups")

    def ties(self, layer: nn.GroupNorm, reads: torch.Tensor, writes: torch.Tensor) -> Iterator[torch.Tensor]:
        yield _all_in_a_row(reads.view(layer.num_groups, -1))

    def set_widths(self, layer: nn.GroupNorm, reads: int, writes: int) -> None:
        layer.num_groups = writes // (layer.num_channels // layer.num_groups)
        layer.num_channels = writes


class ParametricReLU(Kind):
    """PReLU, with a slope for every channel, or one for all."""

    modules = (nn.PReLU,)
    width_names = ("num_parameters",)

    def axes(
        self, layer: nn.PReLU, name: str, tensor: torch.Tensor, reads: torch.Tensor, writes: torch.Tensor
    ) -> Axes:
        return () if layer.num_parameters == 1 else super().axes(layer, name, tensor, reads, writes)

    def set_widths(self, layer: nn.PReLU, reads: int, writes: int) -> None:
        layer.num_parameters = min(layer.num_parameters, writes)


KINDS: tuple[Kind, ...] = (  # of two that fit, the first counts
    TransposedConvolution(),
    Convolution(),
    Linear(),
    Normalisation(),
    GroupNormalisation(),
    ParametricReLU(),
)


def kind_of(module: nn.Module) -> Kind | None:
    """The kind of a layer; None for all other modules."""
    return next((kind for kind in KINDS if isinstance(module, kind.modules)), None)


def filters_first(module: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """A convolution's weight, bias or gradient of one as ``[filters, elements]``."""
    kind = kind_of(module)
    assert isinstance(kind, Convolution)
    return kind.filters(module, tensor)


def widths(module: nn.Module) -> dict[str, int]:
    """The attributes of a layer that tell its widths; none for other modules."""
    kind = kind_of(module)
    return {} if kind is None else kind.widths(module)


def _all_in_a_row(labels: torch.Tensor) -> torch.Tensor:
    """Pairs ``[2, n]`` that join all labels in each row of ``[rows, n]``."""
    return torch.stack([labels[:, :1].expand_as(labels).flatten(), labels.flatten()])
