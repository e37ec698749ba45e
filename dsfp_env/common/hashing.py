"""What tensors hold, as a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch


def hash_of(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 of the shapes, types and bytes of tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor's numbers, in their order; not a copy of them, if it is contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
