"""Dynamic-coded filter fusion (DCFF): filters stay for being unlike the others, fused with those they are like.

Lin et al. 2021 (arXiv 2107.06916). For the C filters W_1 ... W_C of a layer and a temperature t:

    D_jk = ||W_j - W_k||                   Euclidean, over all weights of a filter, the bias left out
    P_j  = softmax over k of -D_jk / t     the distribution that stands for filter j
    I_j  = sum over k of KL(P_j || P_k)    its score; the highest stay
    W'_j = sum over i of P_ji W_i          the fused filter; the bias likewise

At high temperatures P is uniform, and every fused filter is the mean of all. At low ones P is one-hot, fusion is
selection, and t I_j tends to the sum over k of D_jk, the criterion of FPGM (He et al. 2019).

What differs from the released code (github.com/lmbxmu/DCFF), and why. There KL is the mean over the entries of P,
not the sum, with an epsilon of 1e-7 in the logarithm; at t = 1 the order of the filters is the same. But P is in
float32, where it is 0 for far filters, and 0 log 0 is NaN; and scores that are not finite are not taken over. The
published temperature falls from 1 to 1/4622 after one epoch, and from then on P is one-hot. So the scores stay
what they were at the random initialisation, and the fused filters are the selected ones: *from epoch 1 on the
dynamic part of the released code is inactive*, and what it trains is a narrow network that began with an arbitrary
choice of filters. Here KL is computed from log P in float64. It is finite at every temperature, and the choice
goes on changing.

`training` trains with fusion, `published` has the networks of the paper.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping

import torch
from torch import nn

from dsfp_env.channels.layers import Convolution, filters_first, kind_of
from dsfp_env.common.choices import choose
from dsfp_env.criteria.similarity import inter_similarity

Schedule = Callable[[int, int], float]  # epoch from 0, epochs -> temperature

LOWEST = 1e-4  # temperature at the end of a training


def fused(network: nn.Module, keep: Mapping[str, torch.Tensor], temperature: float = 1.0) -> nn.Module:
    """Fuse the filters that a trained network keeps with those that it will lose.

    ``graph.slim(fused(network, keep, t), keep)`` is the compact network; recalibrate its batch normalisation. On
    trained networks fusion loses to selection where it does anything (see docs/dcff.md).

    Args:
        network: Of full width; it is left as it is.
        keep: From `ChannelGraph.keep`. Layers that keep all filters are left alone, and so are layers in groups,
            whose filters do not all read the same channels.
        temperature: t, positive.

    Returns:
        A copy of full width.

    Raises:
        InputError: If a path is no convolution, or the temperature is not positive.
    """
    copied = copy.deepcopy(network)
    convolutions = {path: one for path, one in network.named_modules() if isinstance(kind_of(one), Convolution)}
    for path, kept in keep.items():
        module = choose("convolution", path, convolutions)
        if len(kept) == module.out_channels or module.groups > 1:
            continue
        filters = filters_first(module, module.weight.detach())
        kept = kept.to(filters.device)
        mixture = inter_similarity(filters, temperature).exp().to(filters)[kept]  # [m, C]
        fusing = copied.get_submodule(path)
        for name, dim in (("weight", int(module.transposed)), ("bias", 0)):
            if (tensor := getattr(module, name)) is not None:
                mixed = torch.tensordot(mixture, tensor.detach(), ([1], [dim])).movedim(0, dim)
                getattr(fusing, name).detach().index_copy_(dim, kept, mixed)
    return copied


def published(epoch: int, epochs: int) -> float:
    """The temperature of the paper and its code: one-hot from the second epoch on.

    1/t = A / (1 + exp(-e)) + 1 - A/2 with A = 2 * 9999 (1 + exp(-E)) / (1 - exp(-E)), which is written here with
    tanh. It is 1 at epoch 0, 1/4622 at epoch 1, and 1e-4 but for a thousandth from epoch 8 on.
    """
    return 1 / (1 + (1 / LOWEST - 1) * math.tanh(epoch / 2) / math.tanh(epochs / 2))


def geometric(epoch: int, epochs: int) -> float:
    """Down from 1 to 1e-4 by the same factor every epoch, so that the filters really are fused for a while.

    Ours; the paper has none like it.
    """
    return LOWEST ** (epoch / max(epochs - 1, 1))


SCHEDULES: dict[str, Schedule] = {"published": published, "geometric": geometric}
