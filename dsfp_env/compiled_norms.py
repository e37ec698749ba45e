"""Batch normalisation of bfloat16 by a kernel of our own, compiled on first use; an extra that is asked for.

On the CPU, torch's own goes through few channels (a slim network's first layers have eight) a number or two at a
time, and takes as long as the convolutions do. ``batch_norm.cpp`` beside this file computes the same from strips
that are always wide. It needs a C++ compiler once; the result is kept in the cache directory.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsfp_env.errors import InputError
from dsfp_env.files import cache_directory, write_whole

_SOURCE = Path(__file__).with_name("batch_norm.cpp")
_NAME = "dsfp_env_batch_norm"
_FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}


@contextmanager
def norms_compiled(network: nn.Module) -> Iterator[None]:
    """Within this context, the network's plain batch normalisations use the kernel when they train in bfloat16.

    Raises:
        InputError: If the kernel cannot be compiled here.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and _is_plain(module)]
    for norm in norms:
        vars(norm)["forward"] = partial(_forward, kernel(), norm)
    try:
        yield
    finally:
        for norm in norms:
            del vars(norm)["forward"]


@cache
def kernel() -> Any:
    """The compiled functions ``forward`` and ``backward``; see ``batch_norm.cpp``.

    Raises:
        InputError: If they cannot be compiled here.
    """
    flags = ("-O3", *_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()))
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    facts = _SOURCE.read_bytes() + repr((flags, torch.__version__, suffix)).encode()
    file = cache_directory() / f"{_NAME}-{hashlib.sha256(facts).hexdigest()[:16]}{suffix}"
    if not file.exists():
        _compile(flags, file)
    loader = importlib.machinery.ExtensionFileLoader(_NAME, str(file))
    spec = importlib.util.spec_from_file_location(_NAME, file, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def _compile(flags: tuple[str, ...], file: Path) -> None:
    """Compile in a directory of its own, so that no process waits for another, and put the result in its place."""
    try:
        from torch.utils import cpp_extension  # takes a second

        with tempfile.TemporaryDirectory() as place:
            cpp_extension.load(_NAME, [str(_SOURCE)], extra_cflags=list(flags), build_directory=place)
            (built,) = (one for one in Path(place).iterdir() if one.suffix in (".so", ".pyd", ".dylib"))
            with built.open("rb") as source:
                write_whole(file, partial(shutil.copyfileobj, source))
    except Exception as error:  # whatever a compiler that is absent, old or broken makes torch raise
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f'Fidelity(kernels="compiled") needs a C++ compiler and ninja, and they failed ({reason}). Install '
            "them (a package such as build-essential; pip install ninja), or leave kernels at 'torch'."
        ) from error


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation in training mode; also returns mean and biased variance, ``[C]``."""

    @staticmethod
    def forward(ctx: Any, functions: Any, images: torch.Tensor, weight: Any, bias: Any, eps: float) -> Any:
        output, mean, variance = functions.forward(images, weight, bias, eps)
        ctx.save_for_backward(images, weight, mean, variance)
        ctx.functions, ctx.eps = functions, eps
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return (None, *ctx.functions.backward(gradient, *ctx.saved_tensors, ctx.eps), None)


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype == torch.float32
        and "forward" not in vars(norm)
    )


def _forward(functions: Any, norm: Any, images: torch.Tensor) -> Any:
    fits = images.dtype == torch.bfloat16 and images.device.type == "cpu" and images.dim() == 4
    if not (norm.training and fits and images.is_contiguous(memory_format=torch.channels_last)):
        return nn.BatchNorm2d.forward(norm, images)
    output, mean, variance = _BatchNorm.apply(functions, images, norm.weight, norm.bias, norm.eps)
    count = images.numel() // images.shape[1]
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)
    return output
