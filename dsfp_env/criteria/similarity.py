"""How much filters are like each other, as distributions (DCFF, Lin et al. 2021, arXiv 2107.06916).

For the C filters W_1 ... W_C of a layer and a temperature t:

    D_jk = ||W_j - W_k||                   Euclidean, over all weights of a filter, the bias left out
    P_j  = softmax over k of -D_jk / t     the distribution that stands for filter j
    I_j  = sum over k of KL(P_j || P_k)    its score; the highest stay
"""

from __future__ import annotations

import torch

from dsfp_env.common.devices import in_double
from dsfp_env.common.errors import InputError


def inter_similarity(filters: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Log P: how much each filter is like every other, as a distribution for each.

    Args:
        filters: ``[C, d]``, a filter in each row.
        temperature: t, positive.

    Returns:
        ``[C, C]`` float64, on the device of the filters (on the CPU, if that has no float64); row j is log P_j.

    Raises:
        InputError: If the temperature is not positive.
    """
    if not temperature > 0:
        raise InputError(f"The temperature of filter fusion is {temperature}: expected a positive number.")
    rows = in_double(filters.detach())
    # Not by matrix products: at low temperatures their rounding would tell equal filters apart.
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.log_softmax(-distances / temperature, 1)


def similarity_scores(log_p: torch.Tensor) -> torch.Tensor:
    """I: how much each filter is unlike the others; higher = keep.

    Args:
        log_p: ``[C, C]``, from `inter_similarity`.

    Returns:
        ``[C]`` float64, finite, since log P is: a P that underflows to 0 adds 0.
    """
    of_all = len(log_p) * log_p - log_p.sum(0)  # [C, C]: sum over k of log P_jg - log P_kg
    return (log_p.exp() * of_all).sum(1)
