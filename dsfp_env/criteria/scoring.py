"""Filter scores by name: one number for every filter of every layer; higher = keep.

A criterion is a function of `criterion.Evidence`; `CRITERIA` has those that are known by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral

import torch
from torch import nn

from dsfp_env.channels.coupling import PrunableLayer
from dsfp_env.common.choices import choose, parse_call, with_options
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.random_numbers import LARGEST_EVALUATION_SEED, check_seed
from dsfp_env.common.repeatable import repeatable
from dsfp_env.criteria.criterion import Criterion, Evidence, Scores
from dsfp_env.criteria.divergences import activation_kl, fisher_kl, output_kl
from dsfp_env.criteria.dsfp import dsfp
from dsfp_env.criteria.gradients import (
    fisher,
    grad,
    taylor,
    taylor_activation,
    taylor_bn,
)
from dsfp_env.criteria.weights import bn_scale, dcff, fpgm, l1, l2, random
from dsfp_env.datasets.labelled_images import LabelledImages, draw_batches
from dsfp_env.training.objectives import Objective


@repeatable()
def score_network(
    network: nn.Module,
    layers: Mapping[str, PrunableLayer],
    train: LabelledImages,
    criterion: str | Criterion,
    *,
    num_batches: int = 8,
    batch_size: int = 128,
    seed: int = 0,
    objective: Objective | None = None,
) -> Scores:
    """Score every filter of some layers; for the arguments see `dsfp_env.score_filters`."""
    for what, number in (("num_batches", num_batches), ("batch_size", batch_size)):
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise InputError(f"{what} is {shortened(number)}: expected a whole number, 1 or more.")
    check_seed(seed, "The seed of the scores", LARGEST_EVALUATION_SEED)
    function = criterion if callable(criterion) else parse_criterion(criterion)
    images, labels = train
    size = min(batch_size, len(labels))
    indices = draw_batches(len(labels), size, min(num_batches, len(labels) // size), seed).to(labels.device)
    batches = [LabelledImages(images[i], labels[i]) for i in indices]
    name = criterion if isinstance(criterion, str) else getattr(function, "__name__", repr(function))
    rng = torch.Generator().manual_seed(seed)
    evidence = Evidence(network, layers, batches, rng, objective or Objective())
    own = callable(criterion) or ":" in name
    scores = _told(name, function, evidence) if own else function(evidence)
    return {path: _checked(name, layer, scores) for path, layer in layers.items()}


def parse_criterion(text: str) -> Criterion:
    """A criterion by text, with options if there are any: ``"taylor"``, ``"dsfp(kl=fisher, end=highest)"``.

    Args:
        text: A name in `CRITERIA` or ``"package.module:function"``; options may follow in parentheses.

    Returns:
        The function; with options, a `functools.partial` of it.

    Raises:
        InputError: If the text is no such call, or the criterion, an option or the value of one is unknown.
    """
    name, options = parse_call("criterion", text)
    return with_options("criterion", name, choose("criterion", name, CRITERIA, importable=True), options)


CRITERIA: dict[str, Criterion] = {
    "dsfp": dsfp,
    "grad": grad,
    "taylor": taylor,
    "taylor_activation": taylor_activation,
    "taylor_bn": taylor_bn,
    "fisher": fisher,
    "output_kl": output_kl,
    "activation_kl": activation_kl,
    "fisher_kl": fisher_kl,
    "l1": l1,
    "l2": l2,
    "fpgm": fpgm,
    "dcff": dcff,
    "bn_scale": bn_scale,
    "random": random,
}


def _told(name: str, function: Criterion, evidence: Evidence) -> Scores:
    """What a function of the user's own says.

    Raises:
        InputError: If it raises, or gives no dictionary.
    """
    expected = "expected a function of the evidence that gives a tensor of scores by module path of every layer"
    try:
        scores: object = function(evidence)
    except InputError:
        raise
    except Exception as error:  # whatever it raises
        raise_if_of_the_machine(error, f"computing the criterion {name!r}")
        raise InputError(
            f"The criterion {name!r} failed ({type(error).__name__}: {error}): {expected}."
        ) from error
    if not isinstance(scores, Mapping):
        raise InputError(f"The criterion {name!r} gave {shortened(scores)}: {expected}.")
    return dict(scores)


def _checked(criterion: str, layer: PrunableLayer, scores: Mapping[str, torch.Tensor]) -> torch.Tensor:
    came = scores.get(layer.path)
    if came is not None and not isinstance(came, torch.Tensor):
        raise InputError(
            f"Criterion {criterion!r} gave layer {layer.path!r} {shortened(came)}: expected a tensor with one "
            f"finite score per filter, ({layer.out_channels},)."
        )
    if came is None or tuple(came.shape) != (layer.out_channels,) or not torch.isfinite(came).all():
        what = "none" if came is None else f"shape {tuple(came.shape)}, values {came.flatten()[:3].tolist()}..."
        raise InputError(
            f"Criterion {criterion!r} gave layer {layer.path!r} {what}: expected one finite score per filter, "
            f"({layer.out_channels},)."
        )
    return came.detach().to("cpu", torch.float64)
