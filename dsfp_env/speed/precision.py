"""How precisely a network computes: exactly as torch does, in float32 by faster ways, or in bfloat16.

The fast ways change the last digits, and nothing else: channels lie last in memory, batch normalisation is a
kernel of our own in training, and folded into the convolution before it in evaluation. bfloat16, by autocast, is
for processors with units for it.
"""

from __future__ import annotations

import torch
from torch import nn

from dsfp_env.speed.layout import layout_of

PRECISIONS = ("auto", "bfloat16", "fast_float32", "float32")
_WORTH_CONVERTING = 500_000  # multiply-adds of an image; with fewer, converting costs what it saves


def is_worth_hastening(macs: int) -> bool:
    """Whether an image has enough multiply-adds for the fast ways."""
    return macs >= _WORTH_CONVERTING


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device has units for bfloat16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public way to ask
    return device.type == "cpu" and any(getattr(torch.cpu, ask, bool)() for ask in asks)


def is_fast(precision: str) -> bool:
    """Whether it is one of those whose last digits are not torch's."""
    return precision in ("bfloat16", "fast_float32")


def without_bfloat16(device: torch.device) -> str:
    """The fastest that a device has besides."""
    return "fast_float32" if device.type == "cpu" else "float32"


def chosen(precision: str, device: torch.device) -> str:
    """A precision that is not ``"auto"``, which means the fastest on a device, for networks that bear it."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16(device) else without_bfloat16(device)


def number_of(precision: str) -> torch.dtype:
    """What activations are."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def computing(precision: str, device: torch.device) -> torch.autocast:
    """A context in which networks compute as precisely as named."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def laid_out(images: torch.Tensor, precision: str, network: nn.Module | None = None) -> torch.Tensor:
    """Images ``[N, C, H, W]`` as the convolutions of a network like them best in this precision."""
    if precision == "float32":
        return images
    number = number_of(precision)
    if images.dim() == 4:
        return images.to(number, memory_format=layout_of(network) if network else torch.channels_last)
    return images.to(number)
