"""How long a forward pass takes, on the device at hand, deployed as said.

MACs do not tell: small layers are bound by memory and by overheads, and kernels like some widths better than
others. A time is a property of network, device, batch size, threads, precision and memory format together, so
these are recorded with it, and so is its noise.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from time import perf_counter

import numpy as np
import torch
from torch import nn

from dsfp_env.common.choices import choose, parse_call
from dsfp_env.common.devices import finish, threads_set
from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.ranges import Count, Positive, Threads, WholeNumber, check_fields

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STATISTICS = ("median", "minimum")
_SHORT = 2e-4  # seconds of a block, where the shortest counts


@dataclass(frozen=True)
class Latency:
    """The time of one forward pass."""

    seconds: float  # the median of all blocks, or their minimum
    spread: float  # interquartile range, seconds
    batch_size: int
    threads: int
    device: str
    precision: str = "float32"
    channels_last: bool = False
    statistic: str = "median"
    blocks: int = 0  # times that were taken, each the mean of several passes


@dataclass(frozen=True)
class LatencyMeter:
    """How to measure: `torch.utils.benchmark` in blocks, after a warm-up, in evaluation mode without gradients.

    With `rounds`, networks take turns, so that what disturbs the machine for a while disturbs all alike; on a
    machine that others use, ``statistic="minimum"`` leaves most of that out: blocks are then as short as can be.

    Raises:
        InputError: If a number is out of its range, there cannot be so many threads, or a precision or a statistic
            is unknown.
    """

    batch_size: Count = 1
    threads: Threads = 1
    min_run_time: Positive = 0.2  # seconds, in all rounds together
    precision: str = "float32"  # or "bfloat16": weights and images
    channels_last: bool = False  # in memory
    warm_up: WholeNumber = 3  # forward passes before the first is timed
    rounds: Count = 1
    statistic: str = "median"  # of the blocks; or "minimum"

    def __post_init__(self) -> None:
        choose("precision", self.precision, PRECISIONS)
        choose("statistic of times", self.statistic, dict.fromkeys(STATISTICS))
        check_fields(self)

    def measure(self, network: nn.Module, images: torch.Tensor) -> Latency:
        """Time a network.

        Args:
            network: The network; it is left as it is.
            images: ``[N, C, ...]`` on its device; repeated if there are fewer than a batch.

        Raises:
            InputError: If the network cannot compute in this precision.
        """
        return self.measure_many([network], images)[0]

    def measure_many(self, networks: Sequence[nn.Module], images: torch.Tensor) -> list[Latency]:
        """Time several networks, in turn in every round; see `measure`. A lazy sequence is gone over in each."""
        from torch.utils.benchmark import Timer  # brings torch's C++ tools along, and what they print

        batch = self._laid(images.repeat(-(-self.batch_size // len(images)), *[1] * (images.dim() - 1)))
        times: list[list[float]] = [[] for _ in networks]
        with torch.inference_mode():
            for _ in range(self.rounds):
                for network, of_one in zip(networks, times, strict=True):
                    modes = {module: module.training for module in network.modules()}
                    deployed = self._deployed(network)
                    timer = Timer(
                        "network(batch)",
                        globals={"network": deployed, "batch": batch},
                        num_threads=self.threads,
                        timer=partial(_now, batch.device),
                    )
                    self._warm(timer)
                    if self.statistic == "minimum":
                        of_one += self._short_blocks(deployed, batch)
                    else:
                        of_one += timer.blocked_autorange(min_run_time=self.min_run_time / self.rounds).times
                    for module, training in modes.items():
                        module.training = training
        return [self._latency(np.array(of_one), batch.device) for of_one in times]

    def _latency(self, times: np.ndarray, device: torch.device) -> Latency:
        low, median, high = np.quantile(times, (0.25, 0.5, 0.75)).tolist()
        return Latency(
            median if self.statistic == "median" else float(times.min()),
            high - low,
            self.batch_size,
            self.threads,
            _name(device),
            self.precision,
            self.channels_last,
            self.statistic,
            len(times),
        )

    def _short_blocks(self, network: nn.Module, batch: torch.Tensor) -> list[float]:
        """Seconds of a pass, of blocks so short that some fall between what else the machine does."""
        times, number, left = [], 1, self.min_run_time / self.rounds
        with threads_set(self.threads):
            while left > 0:
                start = _now(batch.device)
                for _ in range(number):
                    network(batch)
                times.append((_now(batch.device) - start) / number)
                left -= times[-1] * number
                number = max(1, round(_SHORT / min(times)))
        return times

    def _warm(self, timer: object) -> None:
        try:
            if self.warm_up:
                timer.timeit(self.warm_up)  # type: ignore[attr-defined]
        except RuntimeError as error:
            raise_if_of_the_machine(error, "timing a forward pass", f"a batch of {self.batch_size} images")
            raise InputError(
                f"The network cannot be timed in {self.precision} with batches of {self.batch_size} ({error}): "
                "expected one that computes so; try precision='float32'."
            ) from error

    def _deployed(self, network: nn.Module) -> nn.Module:
        """The network as it is timed: itself, or a copy."""
        if self.precision == "float32" and not self.channels_last:
            return network.eval()
        deployed = copy.deepcopy(network).eval().to(PRECISIONS[self.precision])
        return deployed.to(memory_format=torch.channels_last) if self.channels_last else deployed

    def _laid(self, images: torch.Tensor) -> torch.Tensor:
        """A batch, as the network takes it."""
        batch = images[: self.batch_size].to(PRECISIONS[self.precision])
        four = self.channels_last and batch.dim() == 4
        return batch.contiguous(memory_format=torch.channels_last) if four else batch


def parse_meter(text: str) -> LatencyMeter:
    """How to measure, in five rounds, from text such as ``batch_size=8, threads=2, precision=bfloat16``.

    Raises:
        InputError: If it cannot be read, or something in it is unknown or no such value.
    """
    _, said = parse_call("deployment", f"deployed({text})")
    kinds = {field.name: type(field.default) for field in fields(LatencyMeter)}
    for name, value in said.items():
        expected = choose("option of a deployment:", name, kinds)
        fits = type(value) in ((int, float) if expected is float else (expected,))
        if not fits:
            raise InputError(f"The {name} of a deployment came as {value!r}: expected a {expected.__name__}.")
    return LatencyMeter(**{"rounds": 5, **said})


def _now(device: torch.device) -> float:
    """The time in seconds, when the device has done its work; torch's own timer asks the current GPU only."""
    finish(device)
    return perf_counter()


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
