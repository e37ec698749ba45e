"""Normalisation folded into the convolution before it: what it does in evaluation mode, at no cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

from dsfp_env.channels.tracing import share_parameters
from dsfp_env.channels.verification import same_logits
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.repeatable import repeatable


def fold(network: nn.Module, norms: Mapping[str, str]) -> nn.Module:
    """A network that answers the same in evaluation mode, without some of its batch normalisations.

    Args:
        network: Left as it is.
        norms: Module path of a convolution -> that of the batch normalisation that alone takes its output; from
            `foldable`.

    Returns:
        A copy in evaluation mode; it shares the parameters that did not change.
    """
    folded = share_parameters(network)
    for path, norm_path in norms.items():
        convolution: Any = folded.get_submodule(path)
        norm: Any = folded.get_submodule(norm_path)
        convolution.weight, convolution.bias = fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,
            norm.running_var,
            norm.eps,
            norm.weight,
            norm.bias,
            transpose=isinstance(convolution, _ConvTransposeNd),
        )
        folded.set_submodule(norm_path, nn.Identity())
    return folded


@torch.no_grad()
@repeatable()
def foldable(network: nn.Module, norms: Mapping[str, str], images: torch.Tensor) -> dict[str, str]:
    """Those normalisations that can be folded: with them, the network answers what it answers without.

    Args:
        network: In evaluation mode.
        norms: Module path of a convolution -> that of a normalisation that takes its output.
        images: A few ``[N, C, H, W]`` to compare the answers for.
    """
    uses = Counter(norms.values())  # more than one, if convolutions share it
    candidates = {
        path: norm
        for path, norm in norms.items()
        if uses[norm] == 1 and _has_statistics(network.get_submodule(norm))
    }
    expected = network(images)
    if _answers(network, candidates, images, expected):
        return candidates
    return {path: norm for path, norm in candidates.items() if _answers(network, {path: norm}, images, expected)}


def _has_statistics(norm: nn.Module) -> bool:
    return isinstance(norm, _BatchNorm) and norm.running_mean is not None


def _answers(network: nn.Module, norms: Mapping[str, str], images: torch.Tensor, expected: torch.Tensor) -> bool:
    try:
        return same_logits(fold(network, norms)(images), expected)
    except Exception as error:  # whatever a network raises whose parts are not what they were
        raise_if_of_the_machine(error, "folding normalisations")
        return False
