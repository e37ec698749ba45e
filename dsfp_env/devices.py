"""Where tensors live, and how precisely the device computes with them."""

from __future__ import annotations

import torch

from dsfp_env.errors import InputError


PRECISIONS = ("auto", "bfloat16", "float32")
_WORTH_CONVERTING = 5_000_000  # multiply-adds of an image; below, converting costs more than it saves


def choose_precision(precision: str, device: torch.device, macs: int) -> str:
    """``"float32"`` or ``"bfloat16"``; ``"auto"`` is bfloat16 if the device has units for it and the work is worth it.

    Args:
        precision: One of `PRECISIONS`.
        device: Where the work is done.
        macs: Multiply-adds of one image.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        asks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # torch has no public way to ask
        native = device.type == "cpu" and any(getattr(torch.cpu, ask, bool)() for ask in asks)
    return "bfloat16" if native and macs >= _WORTH_CONVERTING else "float32"


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``"auto"`` is a GPU if there is one.

    Raises:
        InputError: If there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).add_(1).cpu()
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"Device {name!r} cannot be used here ({reason}). Expected a device that this machine and this build "
            "of torch have: use 'cpu', or 'auto' for a GPU if there is one."
        ) from error
    return device
