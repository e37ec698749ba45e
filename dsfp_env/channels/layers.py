"""What this package knows about torch's layers: which dimension counts channels, and how a layer is cut.

A layer in groups is cut in the finer of two ways that both leave equal groups. *Whole groups*: a group's inputs
and outputs go together, and the number of groups falls; a depthwise convolution is the case of one channel per
group. *Within groups*: the same places go in every group, and the number of groups stays.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm

CONVOLUTIONS = (_ConvNd,)  # of one, two and three dimensions, transposed or not
WEIGHTED = (_ConvNd, nn.Linear)  # absorb their input channels, write output channels of their own
NORMALISATIONS = (_BatchNorm, _InstanceNorm, nn.GroupNorm)
CHANNELWISE = (*NORMALISATIONS, nn.PReLU)  # one parameter (or statistic) per channel, order kept

Axes = tuple[torch.Tensor | None, ...]  # for each leading dimension the class of every index; None: never cut


def channel_dim(module: nn.Module) -> int:
    """The dimension of a layer's input and output that counts channels, for any batch or none."""
    if isinstance(module, nn.Linear):
        return -1
    return -1 - len(module.kernel_size) if isinstance(module, _ConvNd) else 1


def out_width(module: nn.Module) -> int:
    """Output channels of a weighted layer."""
    return module.out_channels if isinstance(module, _ConvNd) else weight_of(module).shape[0]


def weight_of(module: nn.Module) -> torch.Tensor:
    """The weight of a weighted layer, be it a parameter or computed."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def filters_first(module: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
    """A convolution's weight, bias or gradient of one as ``[filters, elements]``."""
    if tensor.dim() == 1 or not isinstance(module, _ConvTransposeNd):
        return tensor.reshape(len(tensor), -1)
    in_channels, per_group, *kernel = tensor.shape
    groups = module.groups
    by_group = tensor.reshape(groups, in_channels // groups, per_group, *kernel)
    return by_group.transpose(1, 2).reshape(groups * per_group, -1)


def multiply_adds(module: nn.Module, inputs: torch.Tensor, output: torch.Tensor) -> int:
    """How often each weight of a layer was used."""
    side = inputs if isinstance(module, _ConvTransposeNd) else output
    return side.numel() // side.shape[channel_dim(module)]


def ties(module: nn.Module, reads: torch.Tensor, writes: torch.Tensor) -> Iterator[torch.Tensor]:
    """Channels of one layer that go together by its kind.

    Args:
        module: The layer.
        reads: Labels of its input channels.
        writes: Labels of its output channels.

    Yields:
        Pairs of labels ``[2, n]``.
    """
    groups = _groups(module)
    if groups == 1 and not isinstance(module, nn.GroupNorm):
        return
    for labels in (reads, writes):
        by_group = labels.view(groups, -1)
        together = by_group.T if not loses_whole_groups(module) else by_group
        yield torch.stack([together[:, :1].expand_as(together).flatten(), together.flatten()])
    if loses_whole_groups(module):
        yield torch.stack([reads.view(groups, -1)[:, 0], writes.view(groups, -1)[:, 0]])


def loses_whole_groups(module: nn.Module) -> bool:
    """Whether a layer in groups loses whole groups, and not the same places in every group."""
    if isinstance(module, nn.GroupNorm):
        return True
    return isinstance(module, _ConvNd) and module.groups > 1 and module.groups**2 > module.in_channels


def axes(module: nn.Module, name: str, tensor: torch.Tensor, writes: torch.Tensor, reads: torch.Tensor) -> Axes:
    """Along which dimensions a layer's parameter or buffer is cut.

    Args:
        module: The layer.
        name: Of the tensor.
        tensor: The tensor, as it is in the uncut layer.
        writes: Classes of the layer's output channels.
        reads: Classes of its input channels.
    """
    if name == "weight" and isinstance(module, WEIGHTED):
        groups = _groups(module)
        transposed = isinstance(module, _ConvTransposeNd)
        first, second = (reads, writes) if transposed else (writes, reads)
        return first, None if loses_whole_groups(module) else second[: len(second) // groups]
    per_channel = tensor.dim() > 0 and tensor.shape[0] == len(writes)
    shared = isinstance(module, nn.PReLU) and module.num_parameters == 1
    return (writes,) if per_channel and not shared else ()


def set_widths(module: nn.Module, out_channels: int, in_channels: int) -> None:
    """Make a layer's attributes tell its new widths."""
    if isinstance(module, _ConvNd):
        if loses_whole_groups(module):
            module.groups = in_channels // (module.in_channels // module.groups)
        module.out_channels, module.in_channels = out_channels, in_channels
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = out_channels, in_channels
    elif isinstance(module, nn.PReLU):
        module.num_parameters = min(module.num_parameters, out_channels)
    elif isinstance(module, nn.GroupNorm):
        module.num_groups = out_channels // (module.num_channels // module.num_groups)
        module.num_channels = out_channels
    elif isinstance(module, NORMALISATIONS):
        module.num_features = out_channels


def widths(module: nn.Module) -> dict[str, int]:
    """The attributes of a layer that tell its widths; none for other modules."""
    if isinstance(module, _ConvNd):
        names: tuple[str, ...] = ("in_channels", "out_channels", "groups")
    elif isinstance(module, nn.Linear):
        names = ("in_features", "out_features")
    elif isinstance(module, nn.GroupNorm):
        names = ("num_channels", "num_groups")
    elif isinstance(module, nn.PReLU):
        names = ("num_parameters",)
    else:
        names = ("num_features",) if isinstance(module, NORMALISATIONS) else ()
    return {name: getattr(module, name) for name in names}


def weight_shape(module: _ConvNd | nn.Linear) -> tuple[int, ...]:
    """What a weighted layer's own widths say of its weight."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    first, second = module.out_channels, module.in_channels
    if isinstance(module, _ConvTransposeNd):
        first, second = second, first
    return (first, second // module.groups, *module.kernel_size)


def _groups(module: nn.Module) -> int:
    return module.num_groups if isinstance(module, nn.GroupNorm) else getattr(module, "groups", 1)
