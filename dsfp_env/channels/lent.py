"""What a user lends us: a network, unwrapped, an example input, kept filters; each refused with a sentence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map

from dsfp_env.channels.layers import kind_of
from dsfp_env.channels.operations import tensors_in
from dsfp_env.common.errors import InputError

_WRAPPERS = {  # class -> the attribute that holds the network itself
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",  # of torch.compile
}


def unwrapped(network: Any) -> nn.Module:
    """The network itself, out of what distributes or compiles it.

    Raises:
        InputError: If it is no ``nn.Module``, was scripted, traced or exported, or is not initialised yet.
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"The network is a {type(network).__name__}: expected an nn.Module.")
    while (inside := _WRAPPERS.get(type(network).__name__)) and isinstance(
        getattr(network, inside, None), nn.Module
    ):
        network = getattr(network, inside)
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise InputError(
            f"{type(network).__name__} was scripted or traced by torch.jit, and its layers cannot be seen: "
            "expected the nn.Module that it was made of."
        )
    if isinstance(network, torch.fx.GraphModule) and not any(map(kind_of, network.modules())):
        raise InputError(
            f"{type(network).__name__} was exported, and its layers are gone: expected the nn.Module that it was "
            "made of."
        )
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(
                f"{name!r} of {type(network).__name__} is not initialised yet, as a lazy module's before its "
                "first batch: run the network on a batch once."
            )
    return network


class Example(NamedTuple):
    """What a network is run on: one image, or one of each of its inputs."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self, network: nn.Module) -> Any:
        """What the network answers."""
        return network(*self.args, **self.kwargs)

    def copied(self) -> Example:
        """The same numbers in memory of their own."""
        return Example(*tree_map(lambda one: one.clone() if isinstance(one, torch.Tensor) else one, tuple(self)))

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All of its tensors."""
        return tensors_in(tuple(self))

    @property
    def shapes(self) -> str:
        """For messages."""
        shapes = [str(tuple(tensor.shape)) for tensor in self.tensors]
        return f"shape {shapes[0]}" if len(shapes) == 1 else f"shapes {', '.join(shapes)}"


def one_example(example_input: Any, network: nn.Module) -> Example:
    """The first of an example's images, or of each of its inputs, on the device of a network.

    Args:
        example_input: A tensor ``[N, C, ...]``; or, for a network of several inputs, a tuple of what it takes, or
            a dictionary of what it takes by name. The first dimension of every tensor counts images.
        network: That takes it.

    Raises:
        InputError: If it is none of these.
    """
    several = isinstance(example_input, (tuple, list, dict))
    tensors = tensors_in(example_input)
    fits = bool(tensors) and (several or isinstance(example_input, torch.Tensor))
    if not fits or any(one.dim() < (1 if several else 2) or not len(one) for one in tensors):
        what = type(example_input).__name__
        if isinstance(example_input, torch.Tensor):
            what = f"tensor of shape {tuple(example_input.shape)}"
        raise InputError(
            f"The example input is a {what}: expected a tensor of one or more images, [N, C, ...], or a tuple or "
            "dictionary of such tensors for a network of several inputs."
        )
    device = next(network.parameters(), tensors[0]).device

    def first(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        return (one.clone() if one.is_inference() else one)[:1].to(device)

    if isinstance(example_input, dict):
        return Example((), tree_map(first, example_input))
    return Example(tree_map(first, tuple(example_input) if several else (example_input,)), {})


def kept_indices(path: str, kept: Any, width: int) -> np.ndarray:
    """The filters that a layer keeps, as indices.

    Args:
        path: Of the layer, for messages.
        kept: Indices, or a mask of ``width`` booleans; a tensor, an array or a list.
        width: How many filters there are.

    Raises:
        InputError: If they are none of these, or there is none.
    """
    try:
        numbers = kept.detach().cpu().numpy() if isinstance(kept, torch.Tensor) else np.asarray(kept)
    except (TypeError, ValueError):
        numbers = np.empty((0, 0), object)
    if numbers.dtype == bool and numbers.shape == (width,):
        numbers = numbers.nonzero()[0]
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        came = f"a {type(kept).__name__}" if numbers.ndim != 1 else f"{len(numbers)} of {numbers.dtype}"
        raise InputError(
            f"The kept filters of {path!r} are {came}: expected one or more indices in [0, {width - 1}], or a "
            f"mask of {width} booleans. Use the result of ChannelGraph.keep."
        )
    if not 0 <= int(numbers.min()) <= int(numbers.max()) < width:
        raise InputError(
            f"The kept filters of {path!r} run from {numbers.min()} to {numbers.max()}: expected indices in "
            f"[0, {width - 1}]."
        )
    return numbers
