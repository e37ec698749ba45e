"""Criteria that look at no image: functions of a layer's weights or its normalisation's scale, and of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dsfp_env.channels.layers import filters_first
from dsfp_env.common.devices import in_double
from dsfp_env.criteria.criterion import Evidence, Scores, on_cpu, scaled_norms
from dsfp_env.criteria.similarity import inter_similarity, similarity_scores


def l1(evidence: Evidence) -> Scores:
    """Sum of |weight| (Li et al. 2017)."""
    return _of_weights(evidence, lambda filters: filters.abs().sum(1))


def l2(evidence: Evidence) -> Scores:
    """Euclidean norm of the weights (He et al. 2018)."""
    return _of_weights(evidence, lambda filters: filters.norm(dim=1))


def fpgm(evidence: Evidence) -> Scores:
    """Sum of the distances to the layer's other filters: those near the geometric median go (He et al. 2019)."""
    exact = "donot_use_mm_for_euclid_dist"  # the fast way does not give 0 for equal filters
    return _of_weights(evidence, lambda filters: torch.cdist(filters, filters, compute_mode=exact).sum(1))


def dcff(evidence: Evidence, *, temperature: float = 1.0) -> Scores:
    """How much a filter's similarities to the others differ from theirs (DCFF; Lin et al. 2021).

    Args:
        evidence: Gives the weights.
        temperature: Of the similarities; see `similarity.inter_similarity`.

    Raises:
        InputError: If the temperature is not positive.
    """
    return _of_weights(evidence, lambda filters: similarity_scores(inter_similarity(filters, temperature)))


def bn_scale(evidence: Evidence) -> Scores:
    """Absolute scale of the normalisation after the layer (network slimming; Liu et al. 2017).

    Raises:
        InputError: If a layer has no normalisation, or one without a scale.
    """
    norms = scaled_norms(evidence, "bn_scale", instead="l1")
    scales = {path: evidence.network.get_submodule(norm).get_parameter("weight") for path, norm in norms.items()}
    return on_cpu({path: in_double(scale.detach()).abs() for path, scale in scales.items()})


def random(evidence: Evidence) -> Scores:
    """Uniform random numbers: the yardstick for every other criterion."""
    return {
        path: torch.rand(layer.out_channels, generator=evidence.rng, dtype=torch.float64)
        for path, layer in evidence.layers.items()
    }


def _of_weights(evidence: Evidence, function: Callable[[torch.Tensor], torch.Tensor]) -> Scores:
    """A function of each layer's weights ``[filters, elements]``."""
    modules: dict[str, Any] = {path: evidence.network.get_submodule(path) for path in evidence.layers}
    return on_cpu(
        {
            path: function(in_double(filters_first(module, module.weight.detach())))
            for path, module in modules.items()
        }
    )
