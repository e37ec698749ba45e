"""While a learner is made: it may seed torch, for the weights of its networks, and that leaves no trace.

Learners of torch seed it themselves, ``torch.manual_seed(int(rng.integers(2**63)))`` from the generator that they
are handed, or ``torch.manual_seed(seed)`` if they are for all layers. What they draw later, in ``act`` or
``update``, they draw from a ``torch.Generator`` of their own, or under ``torch.random.fork_rng``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def torch_left_alone() -> Iterator[None]:
    """Within this context torch's generator of the CPU may be seeded; afterwards it is as it was."""
    import torch  # here, as what makes learners is also asked for their options only

    with torch.random.fork_rng(devices=[]):
        yield
