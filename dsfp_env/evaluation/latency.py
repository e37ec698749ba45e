"""How long a forward pass takes, on the device at hand.

MACs do not tell: small layers are bound by memory and by overheads, and kernels like some widths better than
others. A time is a property of network, device, batch size and threads together, so these are recorded with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
from torch import nn

from dsfp_env.common.devices import finish
from dsfp_env.common.ranges import Count, Positive, Threads, check_fields


@dataclass(frozen=True)
class Latency:
    """The time of one forward pass."""

    seconds: float  # median
    spread: float  # interquartile range, seconds
    batch_size: int
    threads: int
    device: str


@dataclass(frozen=True)
class LatencyMeter:
    """How to measure: `torch.utils.benchmark` in blocks, after a warm-up, in evaluation mode without gradients.

    Raises:
        InputError: If a number is not positive, or there cannot be so many threads.
    """

    batch_size: Count = 1
    threads: Threads = 1
    min_run_time: Positive = 0.2  # seconds

    def __post_init__(self) -> None:
        check_fields(self)

    def measure(self, network: nn.Module, images: torch.Tensor) -> Latency:
        """Time a network.

        Args:
            network: The network; its mode is the same afterwards.
            images: ``[N, C, ...]`` on its device; repeated if there are fewer than a batch.
        """
        from torch.utils.benchmark import Timer  # brings torch's C++ tools along, and what they print

        repeats = -(-self.batch_size // len(images))
        batch = images.repeat(repeats, *[1] * (images.dim() - 1))[: self.batch_size]
        modes = {module: module.training for module in network.modules()}
        timer = Timer(
            "network(batch)",
            globals={"network": network.eval(), "batch": batch},
            num_threads=self.threads,
            timer=partial(_now, batch.device),
        )
        with torch.inference_mode():
            measurement = timer.blocked_autorange(min_run_time=self.min_run_time)
        for module, training in modes.items():
            module.training = training
        return Latency(measurement.median, measurement.iqr, self.batch_size, self.threads, _name(batch.device))


def _now(device: torch.device) -> float:
    """The time in seconds, when the device has done its work; torch's own timer asks the current GPU only."""
    finish(device)
    return perf_counter()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
