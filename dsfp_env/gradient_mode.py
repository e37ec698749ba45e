"""Gradients are recorded where they are needed, whatever mode the caller is in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def with_gradients() -> Iterator[None]:
    """Compute as usual, also under a caller's ``torch.no_grad`` or ``torch.inference_mode``.

    Libraries step environments in such modes; and what is computed in inference mode and kept could not be used
    for training later.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield
