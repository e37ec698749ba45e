"""torch's own random number generators: seeded for a piece of work, and left as they were.

`torch.manual_seed` seeds the generators of all devices. Here only those that the work draws from are seeded: the
CPU's, and that of the device it runs on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch

from dsfp_env.common.devices import made_current
from dsfp_env.common.errors import InputError, shortened

LARGEST_SEED = 2**32 - 1  # what NumPy's and torch's generators all take
LARGEST_EVALUATION_SEED = 2**63 - 1  # what torch's take


def check_seed(seed: int, what: str = "The seed", largest: int = LARGEST_SEED) -> None:
    """Refuse a seed that a generator would not take.

    Args:
        seed: What came.
        what: It is, for the message.
        largest: That is fine.

    Raises:
        InputError: If it is no whole number from 0 to the largest.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= seed <= largest:
        raise InputError(f"{what} is {shortened(seed)}: expected a whole number from 0 to {largest}.")


@contextmanager
def own_random_numbers(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """A context at whose end torch's generators, of the CPU and of this device, are as they were.

    Args:
        device: Where the work is done; the generators of other devices are not touched.
        seed: What both generators begin with; if None, they go on from where they are.
    """
    on_cpu, there = torch.get_rng_state(), generator_state(device)
    try:
        if seed is not None:
            torch.default_generator.manual_seed(int(seed))
            if (module := _module(device)) is not None:
                with made_current(device):
                    module.manual_seed(int(seed))
        yield
    finally:
        torch.set_rng_state(on_cpu)
        set_generator_state(device, there)


def generator_state(device: torch.device) -> torch.Tensor | None:
    """State of a device's generator, bytes on the CPU; None if it has none of its own, as the CPU."""
    if (module := _module(device)) is None:
        return None
    with made_current(device):
        return module.get_rng_state()


def set_generator_state(device: torch.device, state: torch.Tensor | None) -> None:
    """Give a device's generator a state that it had; nothing happens if that is None."""
    if state is not None and (module := _module(device)) is not None:
        with made_current(device):
            module.set_rng_state(state)


def _module(device: torch.device) -> Any:
    """The module of torch for a device with a generator of its own, such as `torch.cuda`; else None."""
    module = getattr(torch, device.type, None)
    return module if hasattr(module, "set_rng_state") else None
