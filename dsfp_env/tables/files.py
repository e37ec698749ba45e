"""A table on disk: a folder of NumPy arrays, and a `meta.json` that says what they are.

| file                  | what                                                                            |
|-----------------------|---------------------------------------------------------------------------------|
| `meta.json`           | schema, task, agents, levels, recipe, seeds, versions, checksums                |
| `correct.npy`         | images answered rightly, ``[joint actions, fidelities, seeds, splits]``         |
| `seconds.npy`         | of one evaluation, ``[joint actions, fidelities]``, mean over seeds             |
| `costs.npy`           | MACs, parameters and filters, ``[joint actions, 3]``                            |
| `filters_kept.npy`    | by agent, ``[joint actions, agents]``                                           |
| `network.safetensors` | the trained original network                                                    |

Joint actions are in the order of their levels, the last agent's changing fastest. Fidelities are `FIDELITIES`,
splits are `SPLITS`. Accuracies are kept as numbers of images, so that they are exact.

While a table is being made, what is not measured yet is the largest number of its type, and there are no
checksums. Nothing here is pickled. What does not fit together is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dsfp_env.common.errors import InputError
from dsfp_env.common.files import check_regular, read_regular, write_whole
from dsfp_env.tables.meta import FIDELITIES as FIDELITIES
from dsfp_env.tables.meta import SCHEMA as SCHEMA
from dsfp_env.tables.meta import SPLITS as SPLITS
from dsfp_env.tables.meta import check_meta

COSTS = ("macs", "params", "filters")
META, NETWORK = "meta.json", "network.safetensors"


class Arrays(NamedTuple):
    """The arrays of a table; see the top of this file."""

    correct: np.ndarray
    seconds: np.ndarray
    costs: np.ndarray
    filters_kept: np.ndarray


def shapes(meta: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape that every array must have."""
    joint_actions = len(meta["levels"]) ** len(meta["agents"])
    return {
        "correct": (joint_actions, len(FIDELITIES), len(meta["seeds"]), len(SPLITS)),
        "seconds": (joint_actions, len(FIDELITIES)),
        "costs": (joint_actions, len(COSTS)),
        "filters_kept": (joint_actions, len(meta["agents"])),
    }


def levels_of(rows: ArrayLike, agents: int, levels: int) -> np.ndarray:
    """The levels of the joint actions in these places, ``[...]`` -> ``[..., agents]``."""
    return np.stack(np.unravel_index(np.asarray(rows), (levels,) * agents), axis=-1)


def smallest_type(largest: int) -> np.dtype:
    """The smallest unsigned type whose largest number is larger than this one."""
    return next(np.dtype(t) for t in (np.uint8, np.uint16, np.uint32) if np.iinfo(t).max > largest)


def is_measured(correct: np.ndarray) -> np.ndarray:
    """Of which joint actions everything is known, ``[joint actions]`` bool."""
    return (correct != np.iinfo(correct.dtype).max).all((1, 2, 3))


def read_meta(folder: Path) -> dict[str, Any]:
    """What a folder says about itself.

    Raises:
        InputError: If it is no table of this schema.
    """
    try:
        text = read_regular(folder / META).decode()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} is no table: {META} cannot be read ({error}). Expected a folder that "
            "`python -m dsfp_env.tabulate` has made."
        ) from error
    return check_meta(text, f"{META} of {folder}")


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write `meta.json`, whole or not at all."""
    text = json.dumps(meta, indent=1) + "\n"
    write_whole(folder / META, lambda file: file.write(text.encode()))


def create(folder: Path, meta: Mapping[str, Any], costs: np.ndarray, filters_kept: np.ndarray) -> None:
    """Begin a table in which nothing is measured yet."""
    shape, kind = shapes(meta), smallest_type(max(meta["splits"].values()))
    unmeasured = {
        "correct": np.full(shape["correct"], np.iinfo(kind).max, kind),
        "seconds": np.full(shape["seconds"], np.nan, np.float32),
        "costs": costs.astype(np.int64),
        "filters_kept": filters_kept.astype(np.uint16),
    }
    for name, array in unmeasured.items():
        write_whole(folder / f"{name}.npy", partial(np.save, arr=array, allow_pickle=False))
    write_meta(folder, meta)  # last: a folder with it has all arrays


def finish(folder: Path, meta: Mapping[str, Any]) -> None:
    """Add checksums: the table is whole."""
    names = [f"{name}.npy" for name in Arrays._fields] + [NETWORK]
    checksums = {name: checksum(folder / name) for name in names}
    whole = {key: value for key, value in meta.items() if key != "checksum"} | {"files": checksums}
    write_meta(folder, {**whole, "checksum": checksum_of(whole)})


def read(folder: Path) -> tuple[dict[str, Any], Arrays]:
    """A whole table, checked; its arrays are mapped, read-only.

    Raises:
        InputError: If the folder is no table, is not finished, or was changed since.
    """
    meta = read_meta(folder)
    if "checksum" not in meta:
        left = int((~is_measured(open_arrays(folder, meta).correct)).sum())
        raise InputError(
            f"The table {folder} is not finished: {left} joint actions are left. The command that began it goes "
            "on."
        )
    told = {key: value for key, value in meta.items() if key != "checksum"}
    if "files" not in meta or checksum_of(told) != meta["checksum"]:
        raise InputError(f"The table {folder} is damaged: {META} was changed. Get it anew, or make it anew.")
    for name, expected in meta["files"].items():
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"The table {folder} is not whole: {name} is missing. Get it anew, or make it anew.")
        if checksum(folder / name) != expected:
            raise InputError(
                f"The table {folder} is damaged: {name} is not the file that {META} tells of. Get it anew, or "
                "make it anew."
            )
    arrays = open_arrays(folder, meta)
    _check_numbers(folder, meta, arrays)
    return meta, arrays


def _check_numbers(folder: Path, meta: Mapping[str, Any], arrays: Arrays) -> None:
    """Refuse numbers that no measurement gives."""
    images = np.array([meta["splits"][split] for split in SPLITS])
    filters = np.array([agent["filters"] for agent in meta["agents"].values()])
    whole = np.array([meta["original"][name] for name in COSTS])
    fine = {
        "correct.npy": (arrays.correct >= 0).all() and (arrays.correct <= images).all(),
        "seconds.npy": np.isfinite(arrays.seconds).all() and (arrays.seconds >= 0).all(),
        "costs.npy": (arrays.costs >= 1).all() and (arrays.costs <= whole).all(),
        "filters_kept.npy": (arrays.filters_kept >= 1).all() and (arrays.filters_kept <= filters).all(),
    }
    for name, holds in fine.items():
        if not holds:
            raise InputError(f"The table {folder} is damaged: {name} has numbers that cannot be. Make it anew.")


def open_arrays(folder: Path, meta: Mapping[str, Any], writable: bool = False) -> Arrays:
    """Map the arrays of a table, finished or not.

    Args:
        folder: Its folder.
        meta: Its `meta.json`.
        writable: Whether what is measured may be written into them.

    Raises:
        InputError: If one is missing, is no array, or has not the shape that `meta.json` implies.
    """
    opened = {}
    for name, shape in shapes(meta).items():
        try:
            check_regular(folder / f"{name}.npy")
            array = np.load(folder / f"{name}.npy", mmap_mode="r+" if writable else "r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"The table {folder} is damaged: {name}.npy cannot be read ({error}).") from error
        kind = np.float32 if name == "seconds" else np.integer
        if array.shape != shape or not np.issubdtype(array.dtype, kind):
            raise InputError(
                f"The table {folder} is damaged: {name}.npy has shape {array.shape} of {array.dtype}, expected "
                f"{shape} of {kind.__name__}."
            )
        opened[name] = array
    return Arrays(**opened)


def checksum(file: Path) -> str:
    """SHA-256 of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def checksum_of(meta: Mapping[str, Any]) -> str:
    """SHA-256 of what a `meta.json` says."""
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
