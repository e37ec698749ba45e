"""Where and how tensors are computed: devices, threads, gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from itertools import chain
from typing import Any

import torch
from torch import nn

from dsfp_env.common.errors import InputError, first_line, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine

_FUSED = {"cpu", "cuda"}  # devices whose optimisers have such kernels in every torch that is supported


def choose_device(name: str = "auto") -> torch.device:
    """The device of that name; ``"auto"`` is a GPU if there is one.

    Returns:
        The device, by its whole name: ``"cuda"`` is the current GPU, such as ``cuda:0``.

    Raises:
        InputError: If there is no such device here.
    """
    if isinstance(name, str) and name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        tried = torch.empty(1, device=torch.device(name)).add_(1)
        tried.cpu()
    except Exception as error:  # whatever a device of another kind raises
        raise_if_of_the_machine(error, f"trying the device {shortened(name)}", "what else is on it")
        raise InputError(
            f"Device {shortened(name)} cannot be used here ({first_line(error)}). Expected a device that this "
            "machine and this build "
            "of torch have: use 'cpu', or 'auto' for a GPU if there is one."
        ) from error
    return tried.device


def device_name(device: torch.device) -> str:
    """What the device is, as far as numbers may depend on it."""
    cudnn = f", cuDNN {torch.backends.cudnn.version()}" if device.type == "cuda" else ""
    return f"{device.type} {processor_name(device)}{cudnn}"


def processor_name(device: torch.device) -> str:
    """A GPU's name; of a CPU, the instructions that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return torch.backends.cpu.get_cpu_capability()


def in_double(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor as float64: where it is, or on the CPU if its device has none."""
    return tensor.double() if has_float64(tensor.device) else tensor.cpu().double()


@lru_cache
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64; Apple's GPUs do not."""
    try:
        torch.zeros(1, dtype=torch.float64, device=device)
    except (TypeError, RuntimeError) as error:
        raise_if_of_the_machine(error, f"trying float64 on {device}", "what else is on it")
        return False
    return True


def device_of(network: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a network is, by its first parameter or buffer; otherwise, if it has none, as said."""
    first = next(chain(network.parameters(), network.buffers()), None)
    return otherwise if first is None else first.device


def fused(device: torch.device) -> bool | None:
    """Whether torch's optimisers are asked for one kernel an update; None, if they are to choose by themselves."""
    return True if device.type in _FUSED else None


def made_current(device: torch.device) -> AbstractContextManager[Any]:
    """A context in which this is the current device of its kind, for functions of torch that ask for no other."""
    of_its_kind = getattr(getattr(torch, device.type, None), "device", None)
    return nullcontext() if of_its_kind is None else of_its_kind(device)


def finish(device: torch.device) -> None:
    """Wait until a device has done all that it was asked for; a CPU has."""
    if device.type != "cpu":
        with made_current(device):
            getattr(torch, device.type).synchronize()


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
