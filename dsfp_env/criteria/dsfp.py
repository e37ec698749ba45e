"""Differential Sensitivity Fusion (DSFP, arXiv 2509.05446, section III-A), as printed.

A filter F of a convolution is the slice ``weight[i]`` with ``bias[i]`` (``weight[:, i]`` if transposed); its
elements are F_1 ... F_N, and g is the gradient of the mean cross entropy L, in evaluation mode and float32,
averaged as |g| over batches.

    Grad(F)   = 1/N sum_i |dL/dF_i|
    Taylor(F) = sum_i |dL/dF_i * F_i|
    KL(F)     = mean over images of KL(p || q), p the network's output distribution and q that without F
    Imp(F)    = exp|Grad - Taylor| + exp|Taylor - KL| + 1/2 exp|Grad - KL|

Without F means its output is zero after the normalisation, that is before the activation. The score returned is
log Imp(F), by logsumexp in float64: the same order, and no overflow. What the paper leaves open is an option; the
first value is the default:

    kl             output: as above; fisher: the same to second order, in one pass; activation: KL between the
                   histograms of the filter's and the layer's activations, as in the abstract (see `divergences`)
    taylor         sum: as above; mean: 1/N of it
    normalisation  of each of the three terms, over the filters of a layer. none; minmax: (x - min) / (max - min);
                   zscore: (x - mean) / deviation; rank: average rank, from 0 to 1
    precision      of the forward passes of kl=output: float32; bfloat16
    end            of the order that is pruned. lowest: section III-A; highest, as the abstract may be read: the
                   score is -log Imp(F)

A dead filter, one for which all three are zero, goes first whatever the options; raw, its score is log 2.5.
(Activations may differ from the layer's though nothing depends on them: there, Grad and Taylor tell.)

In plain words: of raw terms the fused score ranks as the one with the largest units, in practice Taylor, in some
first layers the KL; of normalised terms it measures how much they disagree, not how much the filter matters
(measured, see docs/criteria.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError
from dsfp_env.criteria.criterion import Criterion, Evidence, Scores
from dsfp_env.criteria.divergences import Precision, activation_kl, fisher_kl, output_kl
from dsfp_env.criteria.gradients import mean_effect, mean_gradient, of_gradients, summed_effect


def dsfp(
    evidence: Evidence,
    *,
    kl: Literal["output", "activation", "fisher"] = "output",
    normalisation: Literal["none", "minmax", "zscore", "rank"] = "none",
    end: Literal["lowest", "highest"] = "lowest",
    taylor: Literal["sum", "mean"] = "sum",
    precision: Precision = "float32",
) -> Scores:
    """Differential Sensitivity Fusion: log Imp(F), with the options at the top of this file.

    Raises:
        InputError: If the value of an option is unknown, or bfloat16 is asked for where there is only float32.
    """
    divergence = choose("kl", kl, DIVERGENCES)
    if kl == "output":
        divergence = partial(divergence, precision=precision)
    elif precision != "float32":
        raise InputError(f"dsfp(kl={kl}) came with precision={precision}: expected kl=output with it, or float32.")
    normalise = choose("normalisation", normalisation, NORMALISATIONS)
    sign = choose("end", end, SIGNS)
    effect = choose("taylor", taylor, EFFECTS)
    gradients, taylors = of_gradients(evidence, mean_gradient, effect)
    divergences = divergence(evidence)
    scores = {}
    for path in evidence.layers:
        terms = gradients[path], taylors[path], divergences[path]
        dead = (terms[0] == 0) & (terms[1] == 0)
        if kl != "activation":
            dead &= terms[2] <= torch.finfo(torch.float32).eps  # two forward passes may round differently
        scores[path] = _dead_first(sign * fuse(*map(normalise, terms)), dead)
    return scores


def fuse(gradient: torch.Tensor, taylor: torch.Tensor, divergence: torch.Tensor) -> torch.Tensor:
    """Log of exp|g - t| + exp|t - k| + 1/2 exp|g - k|, elementwise in float64."""
    g, t, k = gradient.double(), taylor.double(), divergence.double()
    return torch.stack([(g - t).abs(), (t - k).abs(), (g - k).abs() - math.log(2)]).logsumexp(0)


def unchanged(term: torch.Tensor) -> torch.Tensor:
    """A term in its own units."""
    return term


def minmax(term: torch.Tensor) -> torch.Tensor:
    """A term ``[filters]`` from 0 to 1; zeros if it is constant."""
    low, high = term.aminmax()
    return torch.zeros_like(term) if low == high else (term - low) / (high - low)


def zscore(term: torch.Tensor) -> torch.Tensor:
    """A term ``[filters]`` with mean 0 and (population) standard deviation 1; zeros if it is constant."""
    constant = term.min() == term.max()  # its computed deviation need not be 0
    return torch.zeros_like(term) if constant else (term - term.mean()) / term.std(correction=0)


def rank(term: torch.Tensor) -> torch.Tensor:
    """Average rank of each value of a term ``[filters]``, from 0 to 1; 1/2 if it is constant."""
    from scipy.stats import rankdata  # takes half a second to import

    ranks = torch.from_numpy(rankdata(term.cpu().numpy()) - 1).to(term) / max(1, len(term) - 1)
    return ranks.where(term.isfinite(), math.nan)  # to be refused, not ranked


DIVERGENCES: dict[str, Criterion] = {"output": output_kl, "activation": activation_kl, "fisher": fisher_kl}

NORMALISATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": unchanged,
    "minmax": minmax,
    "zscore": zscore,
    "rank": rank,
}

SIGNS = {"lowest": 1, "highest": -1}

EFFECTS = {"sum": summed_effect, "mean": mean_effect}


def _dead_first(scores: torch.Tensor, dead: torch.Tensor) -> torch.Tensor:
    """Scores ``[filters]``, those of dead filters just below all others."""
    if dead.all():
        return scores
    below = scores[~dead].min().nextafter(torch.tensor(-math.inf, dtype=scores.dtype))
    return torch.where(dead, scores.minimum(below), scores)
