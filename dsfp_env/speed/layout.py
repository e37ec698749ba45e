"""How images lie in memory, channels first or last: last only where a forward pass of the user's cannot tell.

Convolutions in bfloat16, and large ones in float32, are faster with channels last. But a forward pass may depend
on how its tensors lie: ``y.view(len(y), -1)`` fails, strides differ, and what is written in place through a
reshaped tensor may go into a copy. So a network is tried both ways, once; if it can tell, it gets channels first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.common.repeatable import repeatable

_TELLS = "_dsfp_env_tells_channels_last"  # an attribute of networks that do; their copies have it too


def settle_layout(network: nn.Module, images: torch.Tensor) -> None:
    """Try a network both ways, and remember for it and its copies whether it can tell.

    Args:
        network: It is left as it is, but for an attribute.
        images: A few ``[N, C, H, W]``.
    """
    vars(network).pop(_TELLS, None)
    if not bears_channels_last(network, images):
        vars(network)[_TELLS] = True


def layout_of(network: nn.Module) -> torch.memory_format:
    """How images of four dimensions should lie for a network, where that is ours to choose."""
    return torch.contiguous_format if vars(network).get(_TELLS) else torch.channels_last


@repeatable()  # or kernels that round otherwise would tell them apart
def bears_channels_last(network: nn.Module, images: torch.Tensor) -> bool:
    """Whether a network answers the same whether channels are first or last, in evaluation and in training."""
    if images.dim() != 4:
        return True
    return all(_answers_alike(network, images[:2], training) for training in (False, True))


@contextmanager
def weights_last(network: nn.Module) -> Iterator[None]:
    """Within this context, weights of convolutions lie as images do; a GPU copies them for every batch if not.

    Args:
        network: Whose layout is settled; its weights are contiguous.
    """
    weights = [one for one in network.parameters() if one.dim() == 4]
    for weight in weights:
        weight.data = weight.data.contiguous(memory_format=layout_of(network))
    try:
        yield
    finally:
        for weight in weights:
            weight.data = weight.data.contiguous()


@torch.no_grad()
def _answers_alike(network: nn.Module, images: torch.Tensor, training: bool) -> bool:
    answers = []
    for layout in (torch.contiguous_format, torch.channels_last):
        with own_random_numbers(images.device, seed=0):  # of dropout
            copied = copy.deepcopy(network).train(training)
            for module in copied.modules():
                if isinstance(module, nn.Conv2d):
                    module.register_forward_hook(partial(_lay, layout))
            try:
                answers.append(copied(images.clone(memory_format=layout)))
            except Exception as error:  # whatever a forward pass raises that cannot do with it
                raise_if_of_the_machine(error, "trying memory formats")
                answers.append(None)
    first, last = answers
    if first is None:  # it fails as it is, as normalisation of too few images does in training: that tells nothing
        return True
    if not (isinstance(first, torch.Tensor) and isinstance(last, torch.Tensor) and first.shape == last.shape):
        return False
    tolerance = 0.05 if training else 1e-3  # statistics of two images magnify what is rounded otherwise
    return torch.allclose(
        first, last, rtol=0, atol=tolerance * float(first.abs().nan_to_num().max()), equal_nan=True
    )


def _lay(layout: torch.memory_format, module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """A convolution's output, laid so."""
    return output.clone(memory_format=layout) if output.dim() == 4 else output
