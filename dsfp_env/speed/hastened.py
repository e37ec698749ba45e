"""A network that trains by the fastest ways there are, within a context; outside of it, it is as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from dsfp_env.speed.compiled_norms import norms_compiled
from dsfp_env.speed.precision import is_fast, number_of
from dsfp_env.speed.weight_gradients import small_maps_by_products


@contextmanager
def hastened(network: nn.Module, images: torch.Tensor, precision: str, kernels: str) -> Iterator[None]:
    """Within this context, the layers of a network take the fastest way, unless it is to be exact.

    Args:
        network: In training mode.
        images: One ``[1, C, H, W]`` or more, float32, to see what is behind each normalisation.
        precision: One of `precision.PRECISIONS`, chosen.
        kernels: ``"compiled"`` or ``"torch"``, see `norm_kernel.choose_kernels`.

    Raises:
        InputError: If the kernel is asked for, and cannot be compiled here.
    """
    with ExitStack() as stack:
        if is_fast(precision):
            number = number_of(precision)
            stack.enter_context(small_maps_by_products(network, number))
            if kernels == "compiled":
                stack.enter_context(norms_compiled(network, images, number))
        yield
