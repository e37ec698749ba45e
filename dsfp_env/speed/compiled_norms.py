"""A network that trains with the kernel of `norm_kernel`: each normalisation does what is behind it, too.

What that is, a ReLU, or a ReLU and a 2x2 max pool, is found by listening: who takes the very output of whom. Then
the network must answer the same; it would not, if somebody else looked at that output.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from dsfp_env.common.forwards import forwards_restored, is_replaced, replace_forward
from dsfp_env.speed.norm_kernel import ALONE, EVENTUALLY, POOLED, RECTIFIED, batch_norm, kernel


@contextmanager
def norms_compiled(network: nn.Module, images: torch.Tensor, number: torch.dtype) -> Iterator[None]:
    """Within this context, the network's plain batch normalisations use the kernel when they train.

    Args:
        network: In training mode.
        images: A few ``[N, C, H, W]``, float32, to see what is behind each normalisation.
        number: Of the activations that the kernel is for.

    Raises:
        InputError: If the kernel cannot be compiled here.
    """
    kernel(number)  # it is not too late to say that there is none
    modules = [module for module in network.modules() if not is_replaced(module)]
    norms: list[nn.Module] = [m for m in modules if isinstance(m, nn.BatchNorm2d) and _is_plain(m)]
    relus: list[nn.Module] = [m for m in modules if type(m) is nn.ReLU]
    pools: list[nn.Module] = [m for m in modules if type(m) is nn.MaxPool2d and _is_two_by_two(m)]

    def install(behind: Mapping[nn.Module, int]) -> None:
        for norm in norms:
            replace_forward(norm, partial(_forward, norm, number, behind.get(norm, ALONE)))
        for done, others in ((RECTIFIED, relus), (POOLED, pools)):
            for module in others:
                replace_forward(module, partial(_unless_done, done, module))

    network.eval()
    with forwards_restored((*norms, *relus, *pools)):
        with torch.no_grad():
            expected, behind = _listen(network, norms, relus, pools, images)
            install(behind)
            if not torch.equal(network(images), expected):  # somebody else looks at what a normalisation writes
                install({})
        network.train()
        yield


def _forward(norm: Any, number: torch.dtype, behind: int, images: torch.Tensor) -> Any:
    """Instead of a normalisation's own forward, and of those of what is behind it."""
    fits = images.dtype == number and images.device.type == "cpu" and images.dim() == 4
    if images.dim() == 4 and any(size % 2 for size in images.shape[2:]):
        behind = min(behind, RECTIFIED)  # the pool leaves something out
    if not (norm.training and fits and images.is_contiguous(memory_format=torch.channels_last)):
        return _told(EVENTUALLY[behind](nn.BatchNorm2d.forward(norm, images)), behind)
    output, mean, variance = batch_norm(images, norm.weight, norm.bias, norm.eps, behind)
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
        and not is_replaced(norm)
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
