"""NumPy arrays by name in a file, without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dsfp_env.common.files import check_regular, write_whole


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file, whole or not at all."""
    write_whole(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote.

    Raises:
        OSError: If the file cannot be read, or is no ordinary one.
        ValueError: If it holds something else, as do EOFError.
    """
    check_regular(path)
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
