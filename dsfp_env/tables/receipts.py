"""A checksum for every joint action of a table, in `rows.npy`: what was damaged since is measured anew.

A table that is whole is checked by those of its files, in `meta.json`; it does not need this one.
"""

from __future__ import annotations

import zlib
from functools import partial
from pathlib import Path

import numpy as np

from dsfp_env.common.files import write_whole
from dsfp_env.tables.files import Arrays, is_measured

ROWS = "rows.npy"


def open_receipts(folder: Path, arrays: Arrays) -> np.ndarray:
    """The checksums of the joint actions, ``[joint actions]`` uint32, mapped; 0 where nothing is measured.

    Without a file that can be used, what is measured is taken as it is.
    """
    file = folder / ROWS
    try:
        receipts = np.load(file, mmap_mode="r+", allow_pickle=False)
        if receipts.shape == (len(arrays.correct),) and receipts.dtype == np.uint32:
            return receipts
    except (OSError, ValueError, EOFError):
        pass
    taken = np.zeros(len(arrays.correct), np.uint32)
    for row in is_measured(arrays.correct).nonzero()[0]:
        taken[row] = receipt(arrays, int(row))
    write_whole(file, partial(np.save, arr=taken, allow_pickle=False))
    return np.load(file, mmap_mode="r+", allow_pickle=False)


def receipt(arrays: Arrays, row: int) -> int:
    """The checksum of what was measured of a joint action; never 0."""
    return zlib.crc32(arrays.correct[row].tobytes() + arrays.seconds[row].tobytes()) or 1


def forget_damaged(arrays: Arrays, receipts: np.ndarray) -> int:
    """Make joint actions that do not fit their checksums unmeasured; returns how many there were."""
    measured = is_measured(arrays.correct)
    damaged = [row for row in range(len(receipts)) if (receipts[row] > 0) | measured[row]]
    damaged = [row for row in damaged if not measured[row] or receipts[row] != receipt(arrays, row)]
    for row in damaged:
        arrays.correct[row], arrays.seconds[row], receipts[row] = np.iinfo(arrays.correct.dtype).max, np.nan, 0
    return len(damaged)
