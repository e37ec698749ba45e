"""What tensors hold, as a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch


def hash_of(values: Iterable[Any]) -> str:
    """SHA-256 of the shapes, types and bytes of tensors; of other values, as an extra state, what they show."""
    digest = hashlib.sha256()
    for tensor in values:
        if not isinstance(tensor, torch.Tensor):
            digest.update(repr(tensor).encode())
            continue
        digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def add_tensors(digest: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Let a hash of `hashlib` take in the names, types, shapes and bytes of tensors, whatever their order."""
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(bytes_of(tensor))


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a tensor's numbers, in their order; not a copy of them, if it is contiguous on the CPU."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
