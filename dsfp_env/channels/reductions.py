"""Sums, means, norms and the like: which channels each number reads is told by the dimensions alone.

A sum or a norm over *all* channels of something is special: channels of zeros add nothing to it. So it is the same
whether a channel is removed or masked, and binds none of them, as long as a masked channel is zero there.
"""

from __future__ import annotations

import torch

from dsfp_env.channels.labels import compact, pairs
from dsfp_env.channels.operations import Operation

NEUTRAL = {"sum", "nansum", "linalg_vector_norm", "norm"}
REDUCTIONS = NEUTRAL | {"mean", "amax", "amin", "logsumexp", "var", "std"}


def reduced_dims(operation: Operation, dims: int) -> set[int]:
    """The dimensions over which an operation reduces a tensor of so many."""
    over = operation.argument("dim")
    over = range(dims) if over in (None, []) else [over] if isinstance(over, int) else over
    return {dim % dims for dim in over} if dims else set()


def is_neutral(operation: Operation) -> bool:
    """Whether zeros add nothing to what an operation computes."""
    order = operation.argument("ord") or operation.argument("p") or 0
    return operation.base in NEUTRAL and order >= 0


def reduces_all(labels: torch.Tensor, over: set[int]) -> bool:
    """Whether each number is one of all channels; they must be told apart along these dimensions, and no other."""
    varying = {dim for dim, size in enumerate(compact(labels)[0].shape) if size > 1}
    return bool(varying) and varying <= over


def reduce_labels(labels: torch.Tensor, over: set[int], dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of the result, to be broadcast to its shape, and pairs ``[2, n]`` of channels that one number reads.

    Args:
        labels: Of what is reduced.
        over: These dimensions.
        dims: Of the result.
    """
    labels = compact(labels)[0]
    highest = labels.amax(sorted(over), keepdim=True) if over else labels
    met = pairs(highest.expand_as(labels), labels)
    result = highest if dims == labels.dim() else highest.squeeze(sorted(over))
    return result, met[:, (met > 0).all(0)]
