"""Where and how tensors are computed: devices, threads, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dsfp_env.common.errors import InputError


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


def device_name(device: torch.device) -> str:
    """What the device is, as far as numbers may depend on it."""
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


@contextmanager
def threads_set(threads: int) -> Iterator[None]:
    """Within this context, torch computes with so many threads of the CPU; 0: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def with_gradients() -> Iterator[None]:
    """Compute as usual, also under a caller's ``torch.no_grad`` or ``torch.inference_mode``.

    Libraries step environments in such modes; and what is computed in inference mode and kept could not be used
    for training later.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
