"""Three readings of KL(F), the third term of DSFP: how a filter shows in a distribution.

The paper means the network's output with and without the filter (section III-A) or the filter's activations
(abstract), and leaves both open to an approximation. A filter's activations are its layer's output after the
normalisation and before the activation function; without the filter, they are zero.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

from dsfp_env.common.choices import choose
from dsfp_env.common.devices import in_double
from dsfp_env.common.errors import InputError
from dsfp_env.criteria.criterion import Evidence, Scores, activations_noted, check_positive, on_cpu, zero_scores
from dsfp_env.criteria.gradients import half_square, of_effects
from dsfp_env.criteria.silencing import Replay
from dsfp_env.speed.folding import fold, foldable
from dsfp_env.speed.inference_convolutions import hasten
from dsfp_env.speed.precision import computing, laid_out

Precision = Literal["float32", "bfloat16"]
_AT_ONCE = 16  # images that are remembered together; few, so that a pass has room for many filters
_LARGEST = {"cpu": 16 << 20}  # bytes of one answer of a pass: of larger ones, the allocator returns the memory
_LARGEST_ELSEWHERE = 256 << 20


def output_kl(
    evidence: Evidence,
    *,
    num_images: int = 256,
    precision: Precision = "float32",
    max_batch: int = 1024,
    max_memory: int = 2 << 30,
) -> Scores:
    """Divergence of the output distribution when the filter is silent (DSFP, section III-A.3).

    Exact: one forward pass per filter, several filters to a batch, what comes before the filter computed once.
    Answers that are masks have a distribution at each position, numbers stand for normal ones; see
    `Objective.divergence`.

    Args:
        evidence: The first ``num_images`` of its batches are used.
        num_images: Images to average over.
        precision: Of the forward passes; the distributions are compared in float64.
        max_batch: Images times filters in one pass.
        max_memory: Bytes for what the layers answered, which are remembered for some images at a time.

    Raises:
        InputError: If an option is not positive, or the precision unknown.
    """
    check_positive("output_kl", num_images=num_images, max_batch=max_batch, max_memory=max_memory)
    choose("precision", precision, dict.fromkeys(get_args(Precision)))
    images = torch.cat([batch.images for batch in evidence.batches])[:num_images]
    largest = _LARGEST.get(images.device.type, _LARGEST_ELSEWHERE)
    replay, points = _replay(evidence, images[:_AT_ONCE], precision)
    scores = zero_scores(evidence)
    with computing(precision, images.device):
        replay.remember(laid_out(images[:1], precision, evidence.network))
        in_all, widest = replay.num_bytes()  # of one image
        at_once = max(1, min(_AT_ONCE, max_memory // in_all, largest // widest))
        for part in images.split(at_once):
            replay.remember(laid_out(part, precision, evidence.network))
            for path, point in points.items():
                batch = min(max_batch, largest * len(part) // replay.num_bytes(point)[1])
                filters = torch.arange(len(scores[path]), device=images.device).split(max(1, batch // len(part)))
                divergences = torch.cat([_divergences(evidence, replay, point, some) for some in filters])
                scores[path] += divergences * (len(part) / len(images))
    return {path: score.clamp(min=0) for path, score in on_cpu(scores).items()}


def fisher_kl(evidence: Evidence) -> Scores:
    """The same to second order: half the mean over images of (sum over positions of activation * gradient)^2.

    The gradient is of the image's own loss with a label drawn from the network's own answer; in expectation, half
    the square is the quadratic form of the Fisher information, which is the Hessian of the KL divergence (Kullback
    and Leibler 1951; with given labels, Theis et al. 2018). One forward and backward pass per batch.
    """
    return of_effects(evidence, half_square, sampled=True)


@torch.no_grad()
def activation_kl(evidence: Evidence, *, bins: int = 64) -> Scores:
    """KL(filter's || layer's distribution of activations), by histograms (DSFP, abstract).

    The layer's histogram is the mean of its filters'; so the divergence is finite. A silent filter may well differ
    from the others: this reading does not ask what the network answers.

    Args:
        evidence: One forward pass for each of its batches.
        bins: Of equal width over the layer's values on the first batch; the outer ones hold what lies beyond.

    Raises:
        InputError: If ``bins`` is not positive, or an activation is not finite.
    """
    check_positive("activation_kl", bins=bins)
    counts: dict[str, torch.Tensor] = {}  # [filters, bins]
    ranges: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for images, _ in evidence.batches:
        with activations_noted(evidence) as activations:
            evidence.network(images)
        for path, calls in activations.items():
            values = torch.cat([call.transpose(0, 1).flatten(1) for call in calls], 1)  # [filters, n]
            if not values.isfinite().all():
                raise InputError(f"Criterion 'activation_kl': not all activations of layer {path!r} are finite.")
            low, high = ranges.setdefault(path, values.aminmax())
            counts[path] = counts.get(path, 0) + _histograms(values, low, high, bins)
    scores = {}
    for path, count in counts.items():
        numbers = in_double(count)
        p = numbers / numbers[0].sum()
        q = p.mean(0)
        scores[path] = (p.xlogy(p) - p.xlogy(q)).sum(1).clamp(min=0)
    return on_cpu(scores)


def _histograms(values: torch.Tensor, low: torch.Tensor, high: torch.Tensor, bins: int) -> torch.Tensor:
    """Counts ``[rows, bins]`` of each row of values."""
    width = ((high - low) / bins).clamp(min=torch.finfo(values.dtype).tiny)  # a layer may be constant
    bin_ = ((values - low) / width).clamp(0, bins - 1).long()
    first = torch.arange(len(values), device=values.device) * bins
    return torch.bincount((bin_ + first[:, None]).flatten(), minlength=len(values) * bins).view(-1, bins)


def _divergences(evidence: Evidence, replay: Replay, point: str, filters: torch.Tensor) -> torch.Tensor:
    """Mean over images of KL(p || q) for each of some filters, ``[filters]`` float64."""
    p = in_double(replay.logits)  # [images, classes]
    q = in_double(replay.without(point, filters))  # [filters, images, classes]
    return evidence.objective.divergence(p, q).mean(1)


def _replay(evidence: Evidence, images: torch.Tensor, precision: Precision) -> tuple[Replay, dict[str, str]]:
    """A replay of the network in its fastest form, and module path of each layer -> of what is to be silenced."""
    norms = {path: layer.norm for path, layer in evidence.layers.items() if layer.norm}
    folded = foldable(evidence.network, norms, images)
    network = hasten(fold(evidence.network, folded), precision)
    return Replay(network), {path: path if path in folded else norms.get(path, path) for path in evidence.layers}
