"""Batch normalisation of bfloat16 by a kernel of our own, ``batch_norm.c`` beside this file.

On the CPU, torch's takes as long as the convolutions of a slim network do: it goes through eight channels a few
numbers at a time, and its threads get in each other's way. The kernel computes the same from strips that are wide
whatever the channels, together with the ReLU behind it and the 2x2 max pool behind that, if there are. It is
compiled when it is first needed, which takes a second, and kept in the cache directory. Where there is no C
compiler, torch does the work.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
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
ALONE, RECTIFIED, POOLED = 0, 1, 2  # what is behind a normalisation: nothing, a ReLU, a ReLU and a 2x2 max pool
_EVENTUALLY = (
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
        images: A few ``[N, C, H, W]``, float32, to see what is behind each normalisation.

    Raises:
        InputError: If the kernel cannot be compiled here.
    """
    library = kernel()
    modules = [module for module in network.modules() if "forward" not in vars(module)]
    norms: list[nn.Module] = [m for m in modules if isinstance(m, nn.BatchNorm2d) and _is_plain(m)]
    relus: list[nn.Module] = [m for m in modules if type(m) is nn.ReLU]
    pools: list[nn.Module] = [m for m in modules if type(m) is nn.MaxPool2d and _is_two_by_two(m)]

    def install(behind: Mapping[nn.Module, int]) -> None:
        for norm in norms:
            vars(norm)["forward"] = partial(_forward, library, norm, behind.get(norm, ALONE))
        for done, others in ((RECTIFIED, relus), (POOLED, pools)):
            for module in others:
                vars(module)["forward"] = partial(_unless_done, done, module)

    network.eval()
    with torch.no_grad():
        expected, behind = _listen(network, norms, relus, pools, images)
        install(behind)
        if not torch.equal(network(images), expected):  # somebody else looks at what a normalisation writes
            install({})
    network.train()
    try:
        yield
    finally:
        for module in (*norms, *relus, *pools):
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
    output, _, _ = _run_forward(library, images, weight, bias, 1e-5, POOLED)
    expected = _EVENTUALLY[POOLED](F.batch_norm(images.float(), None, None, weight, bias, training=True))
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


def _forward(library: ctypes.CDLL, norm: Any, behind: int, images: torch.Tensor) -> Any:
    """Instead of a normalisation's own forward, and of those of what is behind it."""
    fits = images.dtype == torch.bfloat16 and images.device.type == "cpu" and images.dim() == 4
    if images.dim() == 4 and any(size % 2 for size in images.shape[2:]):
        behind = min(behind, RECTIFIED)  # the pool leaves something out
    if not (norm.training and fits and images.is_contiguous(memory_format=torch.channels_last)):
        return _told(_EVENTUALLY[behind](nn.BatchNorm2d.forward(norm, images)), behind)
    output, mean, variance = _BatchNorm.apply(library, images, norm.weight, norm.bias, norm.eps, behind)
    count = images.numel() // images.shape[1]
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)
    norm.num_batches_tracked.add_(1)
    return _told(output, behind)


def _told(output: Any, done: int) -> Any:
    """An output that says what is done already."""
    output.done = done
    return output


def _unless_done(what: int, module: Any, images: torch.Tensor) -> Any:
    """Instead of the forward of a ReLU, or of a pool."""
    return images if getattr(images, "done", ALONE) >= what else type(module).forward(module, images)


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


def _is_two_by_two(pool: nn.MaxPool2d) -> bool:
    settings = pool.kernel_size, pool.stride, pool.padding, pool.dilation
    plain = [value if isinstance(value, int) else value[0] if len(set(value)) == 1 else 0 for value in settings]
    return plain == [2, 2, 0, 1] and not pool.ceil_mode and not pool.return_indices


def _listen(
    network: nn.Module,
    norms: Sequence[nn.Module],
    relus: Sequence[nn.Module],
    pools: Sequence[nn.Module],
    images: torch.Tensor,
) -> tuple[torch.Tensor, dict[nn.Module, int]]:
    """A network's answer to images, and what took the output of each normalisation."""
    behind: dict[nn.Module, int] = {}
    written: dict[int, tuple[nn.Module, torch.Tensor, int]] = {}  # id of an output -> its normalisation, itself
    takes: dict[nn.Module, nn.Module] = {}  # a module -> the normalisation whose output it is at

    def write(norm: nn.Module, inputs: object, output: torch.Tensor) -> None:
        behind[norm] = ALONE
        written[id(output)] = norm, output, output._version  # in place it may become something else

    def take(what: int, module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        norm, _, version = written.get(id(inputs[0]), (None, None, None))
        if norm is not None and behind[norm] == what - 1 and version == inputs[0]._version:
            behind[norm], takes[module] = what, norm

    def pass_on(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        if module in takes:
            written[id(output)] = takes.pop(module), output, output._version

    hooks = [norm.register_forward_hook(write) for norm in norms]
    for what, modules in ((RECTIFIED, relus), (POOLED, pools)):
        hooks += [module.register_forward_pre_hook(partial(take, what)) for module in modules]
        hooks += [module.register_forward_hook(pass_on) for module in modules]
    answer = network(images)
    for hook in hooks:
        hook.remove()
    return answer, behind
