"""Plain two-dimensional convolutions, run in the way that is fastest for the size of their images.

Libraries of convolutions are made for large images. A convolution whose kernel is no smaller than its image joins
nearly every input with every output: as one matrix it needs fewer multiply-adds. Of other small images, products
of their patches with the weight are faster in bfloat16; in float32, channels are better first in memory. Of large
images they are better last. Measured on the CPU (docs/performance.md); a GPU runs them all as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env.common.forwards import replace_forward
from dsfp_env.speed.layout import layout_of

_SMALL = 16  # pixels of an image
_LARGEST_MATRIX = 1 << 24  # elements


def hasten(network: nn.Module, precision: str) -> nn.Module:
    """Make the plain convolutions of a network faster, in place; they are not to be trained any more.

    Args:
        network: In evaluation mode. Its parameters stay as they are.
        precision: ``"float32"``, or ``"bfloat16"``: in which the convolutions compute and answer.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
            replace_forward(module, InferenceConvolution(module, precision, layout_of(network)))
    return network


class InferenceConvolution:
    """Answers as a convolution does.

    Args:
        convolution: Of two dimensions, padded with zeros.
        precision: ``"float32"`` (as the weight is), or ``"bfloat16"``.
        layout: How outputs lie; whichever way is fastest, unless they must be contiguous.
    """

    def __init__(
        self, convolution: nn.Conv2d, precision: str, layout: torch.memory_format = torch.channels_last
    ) -> None:
        self._layout = layout
        self.groups = convolution.groups
        self._how: Any = convolution.stride, convolution.padding, convolution.dilation
        dtype = torch.bfloat16 if precision == "bfloat16" else convolution.weight.dtype
        self._weight = convolution.weight.detach().to(dtype)
        self._bias = None if convolution.bias is None else convolution.bias.detach().to(dtype)
        self._matrices: dict[torch.Size, tuple[torch.Tensor, torch.Size]] = {}  # by shape of an image

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map images ``[N, in_channels, H, W]`` to outputs ``[N, out_channels, H', W']``."""
        output = self._answer(images)
        return output.contiguous() if self._layout is torch.contiguous_format else output

    def _answer(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self._weight.dtype)
        if images.device.type != "cpu" or images.dim() != 4:
            return self._convolved(images, self._bias)
        pixels, kernel = images[0, 0].numel(), self._weight[0, 0].numel()
        fits = self.groups == 1 and pixels**2 * self._weight[:, :, 0, 0].numel() <= _LARGEST_MATRIX
        if 1 < pixels <= kernel and fits:
            return self._as_matrix(images)
        if pixels > _SMALL:
            return self._convolved(images.contiguous(memory_format=torch.channels_last), self._bias)
        if self._weight.dtype == torch.bfloat16 and self.groups == 1:
            return self._of_each_patch(images)
        return self._convolved(images.contiguous(), self._bias)

    def _convolved(self, images: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        stride, padding, dilation = self._how
        return F.conv2d(images, self._weight, bias, stride, padding, dilation, self.groups)

    def _as_matrix(self, images: torch.Tensor) -> torch.Tensor:
        """By the matrix ``[in_channels * H * W, out_channels * H' * W']``; a row is what one input gives."""
        shape = images.shape[1:]
        if shape not in self._matrices:
            inputs = torch.eye(shape.numel(), dtype=images.dtype).view(-1, *shape)
            rows = self._convolved(inputs, None)
            self._matrices[shape] = rows.flatten(1), rows.shape[1:]
        matrix, out_shape = self._matrices[shape]
        output = (images.flatten(1) @ matrix).view(-1, *out_shape)
        return output if self._bias is None else output.add_(self._bias[:, None, None])

    def _of_each_patch(self, images: torch.Tensor) -> torch.Tensor:
        """By the weight as a matrix, for all patches ``[N * H' * W', kH * kW * in_channels]``."""
        (rows, columns), (below, beside), (apart, aside) = self._how
        padded = F.pad(images, (beside, beside, below, below)).permute(0, 2, 3, 1)  # [N, H, W, in_channels]
        height, width = self._weight.shape[2:]
        patches = padded.unfold(1, (height - 1) * apart + 1, rows).unfold(2, (width - 1) * aside + 1, columns)
        patches = patches[..., ::apart, ::aside].permute(0, 1, 2, 4, 5, 3)  # [N, H', W', kH, kW, in_channels]
        weight = self._weight.permute(2, 3, 1, 0).flatten(0, 2)  # [kH * kW * in_channels, out_channels]
        product = patches.reshape(-1, len(weight)) @ weight
        output = product if self._bias is None else product.add_(self._bias)
        return output.view(*patches.shape[:3], -1).permute(0, 3, 1, 2)
