"""Equal work gives equal numbers, on a GPU too: cuDNN as it always is, float32 not rounded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch


@contextmanager
def repeatable(exact: bool = True) -> Iterator[None]:
    """Within this context, equal work gives equal numbers on a GPU too.

    cuDNN is deterministic and tries no kernels out; and if ``exact``, float32 is float32: neither convolutions nor
    matrix products are rounded to TF32, which is torch's default for the former. On a CPU only the last matters:
    a matrix product of float32 is not rounded to bfloat16, whatever the caller has set.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = False, True
    try:
        with _exact_float32() if exact else nullcontext():
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Within this context, float32 is not rounded; by the names that the caller has used: torch mixes no two."""
    cudnn = torch.backends.cudnn
    on_cpu: Any = getattr(torch.backends.mkldnn, "matmul", None)
    try:
        before = cudnn.allow_tf32, torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller has used those of torch >= 2.9
        before = None
    if before is None:
        with _ieee_float32():
            yield
        return
    of_cpu = getattr(on_cpu, "fp32_precision", None)
    _set_float32(False, "highest")
    try:
        yield
    finally:
        _set_float32(*before)
        if of_cpu is not None:  # the old names set it with the GPU's, but not the other way round
            on_cpu.fp32_precision = of_cpu


def _set_float32(tf32: bool, precision: str) -> None:
    """Of convolutions, and of matrix products; what is set already is left alone."""
    if torch.backends.cudnn.allow_tf32 != tf32:
        torch.backends.cudnn.allow_tf32 = tf32
    if torch.get_float32_matmul_precision() != precision:
        torch.set_float32_matmul_precision(precision)


@contextmanager
def _ieee_float32() -> Iterator[None]:
    """`_exact_float32` by the names of torch >= 2.9."""
    backends: Any = torch.backends
    places = [*(getattr(backends.cudnn, name) for name in ("conv", "rnn")), backends.cuda.matmul]
    places += [getattr(backends.mkldnn, name) for name in ("conv", "rnn", "matmul")]
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = "ieee"
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
