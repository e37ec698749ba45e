"""Tensors in a file with a checksum: what is read is what was written, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from dsfp_env.common.files import check_regular, write_whole
from dsfp_env.common.hashing import add_tensors


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors, whole or not at all.

    Raises:
        OSError: If they cannot be written.
    """
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = safetensors.torch.save(ready, {"sha256": checksum_of(ready)})
    write_whole(path, lambda file: file.write(content))


def read_tensors(path: Path, signed: bool = True) -> dict[str, torch.Tensor]:
    """What `write_tensors` wrote.

    Args:
        path: The file.
        signed: Whether one without a checksum is refused; what its checksum does not match always is.

    Raises:
        OSError: If there is no such file.
        ValueError: If it is damaged, or was not written so.
    """
    check_regular(path)
    try:
        with safetensors.safe_open(path, "pt") as file:
            expected = (file.metadata() or {}).get("sha256")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if (signed or expected is not None) and expected != checksum_of(tensors):
        raise ValueError(f"{path} is damaged: its checksum does not match")
    return tensors


def checksum_of(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    digest = hashlib.sha256()
    add_tensors(digest, tensors)
    return digest.hexdigest()
