"""How precisely a network computes: float32, or bfloat16 by autocast with channels last in memory."""

from __future__ import annotations

import torch
from torch import nn

from dsfp_env.speed.layout import layout_of

PRECISIONS = ("auto", "bfloat16", "float32")
_WORTH_CONVERTING = 500_000  # multiply-adds of an image; with fewer, converting costs what it saves


def suits_bfloat16(device: torch.device, macs: int) -> bool:
    """Whether a device has units for bfloat16, and an image enough multiply-adds for them."""
    if macs < _WORTH_CONVERTING:
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    asks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public way to ask
    return device.type == "cpu" and any(getattr(torch.cpu, ask, bool)() for ask in asks)


def computing(precision: str, device: torch.device) -> torch.autocast:
    """A context in which networks compute as precisely as named, ``"float32"`` or ``"bfloat16"``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def laid_out(images: torch.Tensor, precision: str, network: nn.Module | None = None) -> torch.Tensor:
    """Images ``[N, C, H, W]`` as the convolutions of a network like them best in this precision."""
    if precision == "float32":
        return images
    if images.dim() == 4:
        return images.to(torch.bfloat16, memory_format=layout_of(network) if network else torch.channels_last)
    return images.to(torch.bfloat16)
