"""Batch normalisation in training mode by a kernel of our own, ``batch_norm.c`` beside this file.

On the CPU, torch's takes as long as the convolutions of a slim network do: it goes through eight channels a few
numbers at a time, and its threads get in each other's way. The kernel computes the same from strips that are wide
whatever the channels, together with the ReLU and the 2x2 max pool behind it. It is compiled when it is first
needed, which takes a second, checked against torch, and kept in the cache directory with a checksum. It is code:
it is loaded from there only if nobody else can have written it. Where there is no C compiler, torch does the work.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from dsfp_env.common.errors import InputError
from dsfp_env.common.files import cache_directory, is_trusted, write_whole
from dsfp_env.common.signed_bytes import content_of, signed
from dsfp_env.speed.precision import is_fast, number_of

KERNELS = ("auto", "compiled", "torch")
ALONE, RECTIFIED, POOLED = 0, 1, 2  # what is behind a normalisation: nothing, a ReLU, a ReLU and a 2x2 max pool
EVENTUALLY = (
    lambda output: output,
    F.relu,
    lambda output: F.max_pool2d(F.relu(output), 2),
)
_SOURCE = Path(__file__).with_name("batch_norm.c")
_FLAGS = {
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}


def choose_kernels(kernels: str, precision: str, device: torch.device) -> str:
    """``"compiled"`` or ``"torch"``; ``"auto"`` is compiled, if that can be done here.

    The kernel is for the fast precisions on the CPU; all else is torch's.

    Args:
        kernels: One of `KERNELS`.
        precision: One of `precision.PRECISIONS`, chosen.
        device: Where the work is done.
    """
    if not is_fast(precision) or device.type != "cpu":
        return "torch"
    if kernels != "auto":
        return kernels
    try:
        kernel(number_of(precision))
    except InputError:
        return "torch"
    return "compiled"


def batch_norm(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, behind: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch normalisation in training mode, with what is behind it; differentiable.

    Args:
        images: ``[N, C, H, W]``, bfloat16 or float32, channels last, on the CPU.
        weight: ``[C]``, float32.
        bias: ``[C]``, float32.
        eps: Added to the variance.
        behind: `ALONE`, `RECTIFIED`, or, if height and width are even, `POOLED`.

    Returns:
        The output, and the mean and the biased variance of the images, ``[C]``.

    Raises:
        InputError: If the kernel cannot be compiled here.
    """
    output, mean, variance = _BatchNorm.apply(kernel(images.dtype), images, weight, bias, eps, behind)
    return output, mean, variance


@cache
def kernel(number: torch.dtype) -> ctypes.CDLL:
    """The library with the functions ``forward`` and ``backward``; see ``batch_norm.c``.

    Args:
        number: Of activations: bfloat16 or float32.

    Raises:
        InputError: If it cannot be compiled, or loaded, here.
    """
    flags = ("-O3", "-fPIC", "-fopenmp", *_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()))
    flags += ("-DFLOAT32",) if number is torch.float32 else ()
    facts = _SOURCE.read_bytes() + repr(flags).encode()
    file = cache_directory() / "compiled" / f"batch_norm-{hashlib.sha256(facts).hexdigest()[:16]}.so"
    try:
        return _from_cache(file, number) or _compiled(flags, file, number)
    except (OSError, AttributeError, subprocess.SubprocessError, ArithmeticError) as error:
        reason = " ".join((getattr(error, "stderr", None) or str(error)).split())[:300]
        raise InputError(
            f'Fidelity(kernels="compiled") needs a C compiler with OpenMP, such as gcc; that failed ({reason}). '
            "Install one (a package such as build-essential; CC may name it), or say kernels='torch'."
        ) from error


def _from_cache(file: Path, number: torch.dtype) -> ctypes.CDLL | None:
    """The library as it was kept, if it is there, whole, and nobody else's; its threads are torch's."""
    if not is_trusted(file):
        return None
    try:
        content_of(file.read_bytes())
        library = ctypes.CDLL(str(file))
        _check(library, number)
    except (OSError, ValueError, AttributeError, ArithmeticError):  # damaged, of another system: compiled anew
        return None
    return library


def _compiled(flags: tuple[str, ...], file: Path, number: torch.dtype) -> ctypes.CDLL:
    """Compile in a directory of its own, so that no process waits for another; keep what computes rightly."""
    compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("gcc") or shutil.which("cc") or ""]
    if not compiler[0]:
        raise OSError("there is none")
    with tempfile.TemporaryDirectory() as place:
        built = Path(place)
        for arguments in (
            [*flags, "-c", str(_SOURCE), "-o", str(built / "one.o")],
            ["-shared", str(built / "one.o"), "-o", str(built / "one.so"), "-lm"],  # with no threads of its own
        ):
            subprocess.run([*compiler, *arguments], check=True, capture_output=True, text=True)
        content = (built / "one.so").read_bytes()
        library = ctypes.CDLL(str(built / "one.so"))
    _check(library, number)
    with suppress(OSError):  # of a cache that cannot be written: compiled anew next time
        file.parent.parent.mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(mode=0o700, exist_ok=True)  # nobody else's, whatever this user's files are
        write_whole(file, lambda part: part.write(signed(content)))
        file.chmod(0o644)
    return library


def _check(library: ctypes.CDLL, number: torch.dtype) -> None:
    """See that it computes what torch does, here and now.

    Raises:
        ArithmeticError: If it does not.
    """
    images = torch.linspace(-3, 5, 2 * 3 * 4 * 4).to(number).view(2, 4, 4, 3).permute(0, 3, 1, 2)
    weight, bias = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 1.0, -1.0])
    output, _, _ = _run_forward(library, images, weight, bias, 1e-5, POOLED)
    expected = EVENTUALLY[POOLED](F.batch_norm(images.float(), None, None, weight, bias, training=True))
    if not torch.allclose(output.float(), expected, rtol=0.02, atol=0.02):
        raise ArithmeticError("its numbers are wrong")


class _Shape(ctypes.Structure):
    """As in ``batch_norm.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "channels")),
        *((name, ctypes.c_int) for name in ("relu", "pool")),
    )


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation in training mode, with what is behind it; and mean and biased variance, ``[C]``."""

    @staticmethod
    def forward(
        ctx: Any, library: ctypes.CDLL, images: torch.Tensor, weight: Any, bias: Any, eps: float, behind: int
    ) -> Any:
        output, mean, variance = _run_forward(library, images, weight, bias, eps, behind)
        ctx.save_for_backward(images, weight, bias, mean, variance)
        ctx.how = library, eps, behind
        ctx.mark_non_differentiable(mean, variance)
        return output, mean, variance

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        library, eps, behind = ctx.how
        images, weight, bias, mean, variance = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images, of_weight, of_bias = (torch.empty_like(one) for one in (images, weight, bias))
        library.backward(
            ctypes.byref(_shape(images, behind)),
            *map(_address, (gradient, images, of_images, weight, bias, mean, variance)),
            ctypes.c_double(eps),
            *map(_address, (of_weight, of_bias)),
        )
        return None, of_images, of_weight, of_bias, None, None


def _run_forward(
    library: ctypes.CDLL, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, behind: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    mean, variance = torch.empty_like(weight), torch.empty_like(weight)
    count, channels, height, width = images.shape
    shape = (count, channels, height // 2, width // 2) if behind == POOLED else images.shape
    output = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    library.forward(
        ctypes.byref(_shape(images, behind)),
        *map(_address, (images, output, weight, bias)),
        ctypes.c_double(eps),
        *map(_address, (mean, variance)),
    )
    return output, mean, variance


def _shape(images: torch.Tensor, behind: int) -> _Shape:
    count, channels, height, width = images.shape
    return _Shape(count, height, width, channels, behind >= RECTIFIED, behind >= POOLED)


def _address(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())
