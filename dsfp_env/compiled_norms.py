"""Batch normalisation of bfloat16 by a kernel of our own, ``batch_norm.c`` beside this file.

On the CPU, torch's takes as long as the convolutions of a slim network do: it goes through eight channels a few
numbers at a time, and its threads get in each other's way. The kernel computes the same from strips that are wide
whatever the channels, together with the ReLU behind it, if there is one. It is compiled when it is first needed,
which takes a second, and kept in the cache directory. Where there is no C compiler, torch does the work.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env.errors import InputError
from dsfp_env.files import cache_directory, write_whole

KERNELS = ("auto", "compiled", "torch")
_SOURCE = Path(__file__).with_name("batch_norm.c")
_FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}


def choose_kernels(kernels: str, precision: str, device: torch.device) -> str:
    """``"compiled"`` or ``"torch"``; ``"auto"`` is compiled, if that can be done here.

    The kernel is for bfloat16 on the CPU; all else is torch's.

    Args:
        kernels: One of `KERNELS`.
        precision: ``"float32"`` or ``"bfloat16"``.
        device: Where the work is done.
    """
    if precision != "bfloat16" or device.type != "cpu":
        return "torch"
    if kernels != "auto":
        return kernels
    try:
        kernel()
    except InputError:
        return "torch"
    return "compiled"


@contextmanager
def norms_compiled(network: nn.Module, images: torch.Tensor) -> Iterator[None]:
    """Within this context, the network's plain batch normalisations use the kernel when they train in bfloat16.

    Args:
        network: In training mode.
        images: A few ``[N, C, H, W]``, float32, to see that a ReLU is used by nobody else.

    Raises:
        InputError: If the kernel cannot be compiled here.
    """
    functions = kernel()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d) and _is_plain(module)]
    pairs = {norm: relu for norm, relu in _norms_and_relus(network).items() if norm in norms}
    if not _same_logits(network, pairs, images):
        pairs = {}
    for norm in norms:
        vars(norm)["forward"] = partial(_forward, functions, norm, norm in pairs)
    for relu in pairs.values():
        vars(relu)["forward"] = _nothing
    try:
        yield
    finally:
        for module in (*norms, *pairs.values()):
            del vars(module)["forward"]


@cache
def kernel() -> ctypes.CDLL:
    """The library with the functions ``forward`` and ``backward``; see ``batch_norm.c``.

    Raises:
        InputError: If it cannot be compiled, or loaded, here.
    """
    flags = ("-O3", "-fPIC", "-fopenmp", *_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()))
    facts = _SOURCE.read_bytes() + repr(flags).encode()
    file = cache_directory() / f"batch_norm-{hashlib.sha256(facts).hexdigest()[:16]}.so"
    try:
        if not file.exists():
            _compile(flags, file)
        library = ctypes.CDLL(str(file))  # its threads are torch's, so it is linked to no others
        _check(library)
    except (OSError, AttributeError, subprocess.SubprocessError, ArithmeticError) as error:
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())[:300]
        raise InputError(
            f'Fidelity(kernels="compiled") needs a C compiler with OpenMP, such as gcc; that failed ({reason}). '
            "Install one (a package such as build-essential; CC may name it), or say kernels='torch'."
        ) from error
    return library


def _compile(flags: tuple[str, ...], file: Path) -> None:
    """Compile in a directory of its own, so that no process waits for another, and put the result in its place."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise OSError("there is none")
    with tempfile.TemporaryDirectory() as place:
        built = Path(place)
        for command in (
            [compiler, *flags, "-c", str(_SOURCE), "-o", str(built / "one.o")],
            [compiler, "-shared", str(built / "one.o"), "-o", str(built / "one.so"), "-lm"],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        with (built / "one.so").open("rb") as source:
            write_whole(file, partial(shutil.copyfileobj, source))


def _check(library: ctypes.CDLL) -> None:
    """See that it computes what torch does, here and now.

    Raises:
        ArithmeticError: If it does not.
    """
    images = torch.linspace(-3, 5, 2 * 3 * 4 * 4).bfloat16().view(2, 4, 4, 3).permute(0, 3, 1, 2)
    weight, bias = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 1.0, -1.0])
    output, _, _ = _run_forward(library, images, weight, bias, 1e-5, True)
    expected = F.relu(F.batch_norm(images.float(), None, None, weight, bias, training=True))
    if not torch.allclose(output.float(), expected, rtol=0.02, atol=0.02):
        raise ArithmeticError("its numbers are wrong")


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation in training mode; also returns mean and biased variance, ``[C]``."""

    @staticmethod
    def forward(
        ctx: Any, library: ctypes.CDLL, images: torch.Tensor, weight: Any, bias: Any, eps: float, relu: bool
    ) -> Any:
        output, mean, variance = _run_forward(library, images, weight, bias, eps, relu)
        ctx.save_for_backward(images, weight, bias, mean, variance)
        ctx.how = library, eps, relu
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        library, eps, relu = ctx.how
        images, weight, bias, mean, variance = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images, of_weight, of_bias = (torch.empty_like(one) for one in (images, weight, bias))
        library.backward(
            *map(_address, (gradient, images, of_images)),
            *_sizes(images),
            *map(_address, (weight, bias, mean, variance)),
            ctypes.c_double(eps),
            ctypes.c_int(relu),
            *map(_address, (of_weight, of_bias)),
        )
        return None, of_images, of_weight, of_bias, None, None


def _run_forward(
    library: ctypes.CDLL, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, relu: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    output, mean, variance = torch.empty_like(images), torch.empty_like(weight), torch.empty_like(weight)
    library.forward(
        *map(_address, (images, output)),
        *_sizes(images),
        *map(_address, (weight, bias)),
        ctypes.c_double(eps),
        ctypes.c_int(relu),
        *map(_address, (mean, variance)),
    )
    return output, mean, variance


def _address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _sizes(images: torch.Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_int64(images.numel()), ctypes.c_int64(images.shape[1])


def _forward(library: ctypes.CDLL, norm: Any, relu: bool, images: torch.Tensor) -> Any:
    """Instead of a normalisation's own forward, and of that of the ReLU behind it."""
    fits = images.dtype == torch.bfloat16 and images.device.type == "cpu" and images.dim() == 4
    if not (norm.training and fits and images.is_contiguous(memory_format=torch.channels_last)):
        output = nn.BatchNorm2d.forward(norm, images)
        return F.relu(output) if relu else output
    output, mean, variance = _BatchNorm.apply(library, images, norm.weight, norm.bias, norm.eps, relu)
    count = images.numel() // images.shape[1]
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)
    return output


def _nothing(images: torch.Tensor) -> torch.Tensor:
    return images


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    return (
        type(norm) is nn.BatchNorm2d
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and norm.weight.dtype == torch.float32
        and norm.weight.is_contiguous()
        and norm.bias.is_contiguous()
        and "forward" not in vars(norm)
    )


def _norms_and_relus(network: nn.Module) -> dict[nn.BatchNorm2d, nn.Module]:
    """Normalisation -> the ReLU that follows it in an `nn.Sequential`, where both have that one place."""
    places: dict[nn.Module, int] = {}
    for _, module in network.named_modules(remove_duplicate=False):
        places[module] = places.get(module, 0) + 1
    return {
        norm: relu
        for sequence in network.modules()
        if isinstance(sequence, nn.Sequential)
        for norm, relu in zip(list(sequence)[:-1], list(sequence)[1:], strict=True)
        if isinstance(norm, nn.BatchNorm2d) and type(relu) is nn.ReLU and places[norm] == 1 == places[relu]
    }


@torch.no_grad()
def _same_logits(network: nn.Module, pairs: Mapping[nn.BatchNorm2d, nn.Module], images: torch.Tensor) -> bool:
    """Whether the network answers the same if normalisations rectify, and the ReLUs behind them do nothing."""
    network.eval()
    expected = network(images)
    hooks = [norm.register_forward_hook(lambda module, inputs, output: F.relu(output)) for norm in pairs]
    hooks += [relu.register_forward_hook(lambda module, inputs, output: inputs[0]) for relu in pairs.values()]
    same = torch.equal(network(images), expected)
    for hook in hooks:
        hook.remove()
    network.train()
    return same
