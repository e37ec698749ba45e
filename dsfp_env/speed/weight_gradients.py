"""Convolutions over small maps: the gradient of their weights as matrix products.

The weight that joins two positions of the kernel's window sees, at one place of the kernel, a rectangle of the
input and the equal rectangle of the output; its gradient is the product of the two as matrices, ``[positions *
images, channels]`` each. On maps of few positions and many channels, as late layers have, that is two to fifteen
times as fast as the kernels of convolution libraries for the CPU (docs/performance.md), which are made for large
maps; forward pass and gradient of the input remain theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env.common.forwards import forwards_restored, is_replaced, replace_forward

_FEWEST_CHANNELS = 64
_CHANNELS_PER_POSITION = 4


@contextmanager
def small_maps_by_products(network: nn.Module, number: torch.dtype) -> Iterator[None]:
    """Within this context, the network's plain convolutions take the short way where it is one, on the CPU."""
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d) and _is_plain(m)]
    with forwards_restored(convolutions):
        for convolution in convolutions:
            replace_forward(convolution, partial(_forward, convolution, number))
        yield


def weight_gradient(
    images: torch.Tensor,
    gradient: torch.Tensor,
    kernel_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> torch.Tensor:
    """The gradient of a convolution's weight, ``[out_channels, in_channels, kH, kW]``.

    Args:
        images: What the convolution read, ``[N, in_channels, H, W]``.
        gradient: Of what it wrote, ``[N, out_channels, H', W']``.
        kernel_size: Of the convolution, as are the others; one group, padded with zeros.
        stride: In both directions.
        padding: In both directions.
        dilation: In both directions.
    """
    reads, writes = images.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)  # [N, H, W, C]
    in_channels, out_channels = reads.shape[3], writes.shape[3]
    result = reads.new_zeros(*kernel_size, out_channels, in_channels)
    sides = [
        [
            _meeting(
                reads.shape[1 + side], writes.shape[1 + side], place * dilation[side] - padding[side], stride[side]
            )
            for place in range(kernel_size[side])
        ]
        for side in (0, 1)
    ]
    for row, (rows_read, rows_written) in enumerate(sides[0]):
        for column, (columns_read, columns_written) in enumerate(sides[1]):
            read = reads[:, rows_read, columns_read].reshape(-1, in_channels)
            written = writes[:, rows_written, columns_written].reshape(-1, out_channels)
            if len(read):
                torch.mm(written.t(), read, out=result[row, column])
    return result.permute(2, 3, 0, 1)


class _SmallMap(torch.autograd.Function):
    """A convolution whose weight gradient is `weight_gradient`."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, how: Any) -> Any:
        ctx.save_for_backward(images, weight)
        ctx.how, ctx.has_bias = how, bias is not None
        return F.conv2d(images, weight, bias, *how)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        images, weight = ctx.saved_tensors
        stride, padding, dilation = ctx.how
        of_images, _, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, stride, padding, dilation, False, [0, 0], 1, [True, False, False]
        )
        of_weight = weight_gradient(images, gradient, weight.shape[2:], *ctx.how)
        of_bias = gradient.sum((0, 2, 3)) if ctx.has_bias else None
        return of_images, of_weight, of_bias, None


def _is_plain(convolution: nn.Conv2d) -> bool:
    return (
        type(convolution) is nn.Conv2d
        and convolution.groups == 1
        and convolution.padding_mode == "zeros"
        and not isinstance(convolution.padding, str)
        and min(convolution.in_channels, convolution.out_channels) >= _FEWEST_CHANNELS
        and not is_replaced(convolution)
    )


def _forward(convolution: nn.Conv2d, number: torch.dtype, images: torch.Tensor) -> torch.Tensor:
    positions = images.shape[-1] * images.shape[-2]
    few = positions * _CHANNELS_PER_POSITION <= min(convolution.in_channels, convolution.out_channels)
    computed = torch.bfloat16 if torch.is_autocast_enabled("cpu") else images.dtype
    if not few or images.dim() != 4 or images.device.type != "cpu" or computed != number:
        return nn.Conv2d.forward(convolution, images)
    weight, bias = convolution.weight, convolution.bias
    how = convolution.stride, convolution.padding, convolution.dilation
    out: torch.Tensor = _SmallMap.apply(
        images.to(number),
        weight.to(number),
        None if bias is None else bias.to(number),
        how,
    )
    return out


def _meeting(size_read: int, size_written: int, offset: int, stride: int) -> tuple[slice, slice]:
    """Along one side, the places that are read at an offset of the kernel, and those that they are written to."""
    first = max(0, -(offset // stride))  # the first written place w with w * stride + offset >= 0
    last = min(size_written - 1, (size_read - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + offset
    return slice(start, last * stride + offset + 1, stride), slice(first, last + 1)
