"""A surrogate on disk: a folder of NumPy arrays, and a `meta.json` that says what they are.

| file         | what                                                                                        |
|--------------|---------------------------------------------------------------------------------------------|
| `meta.json`  | schema, name, what the survey says of its task, how well the model does (`trust`), checksums |
| `costs.npz`  | what plans cost, exactly: see `channels.cost_tables`                                        |
| `model.npz`  | the networks of the ensemble                                                                |
| `survey.npz` | what was measured: classes lost by coupled set ``[N, sets]``, accuracies ``[N, 2]``, seeds   |

Nothing here is pickled. What does not fit together is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta

from dsfp_env.channels.cost_tables import CostTables
from dsfp_env.common.array_files import read_arrays, write_arrays
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import check_regular, write_whole
from dsfp_env.common.json_files import read_file
from dsfp_env.common.schemas import Hash, Name, Natural, Positive, Strict
from dsfp_env.surrogates.ensemble import Ensemble
from dsfp_env.tables.files import checksum, checksum_of
from dsfp_env.tables.meta import AboutAgent, AboutOriginal, AboutSplits

SCHEMA = 2
META, COSTS, MODEL, DATA = "meta.json", "costs.npz", "model.npz", "survey.npz"


class AboutSurrogate(Strict):
    """What `meta.json` says."""

    schema: Annotated[int, Meta(ge=1, le=SCHEMA)]
    task: Name
    splits: AboutSplits
    agents: Annotated[dict[Name, AboutAgent], Meta(min_length=1)]
    original: AboutOriginal
    criterion: Name
    fidelity: dict[str, int | float | str]
    task_seed: Natural
    task_hash: str
    split_hash: str
    machines: list[dict[str, str]]
    rows: Positive  # that the model was fitted to
    sources: dict[Name, Positive]  # how many of each
    trust: dict[str, Any]  # what the fitting found; see `fit_surrogate`
    files: dict[str, Hash] | None = None
    checksum: Hash | None = None


class Content(NamedTuple):
    """What a folder holds."""

    meta: dict[str, Any]
    costs: CostTables
    ensemble: Ensemble
    data: dict[str, np.ndarray]


def write(folder: Path, meta: Mapping[str, Any], costs: CostTables, ensemble: Ensemble, data: Any) -> None:
    """Write a surrogate; `meta.json` last, so that a folder with it is whole."""
    contents = {COSTS: costs.arrays(), MODEL: ensemble.arrays(), DATA: data}
    for name, arrays in contents.items():
        write_arrays(folder / name, arrays)
    whole = {**meta, "files": {name: checksum(folder / name) for name in contents}}
    text = json.dumps({**whole, "checksum": checksum_of(whole)}, indent=1) + "\n"
    write_whole(folder / META, lambda file: file.write(text.encode()))


def read(folder: Path) -> Content:
    """A surrogate, checked.

    Raises:
        InputError: If the folder is none, or was changed since.
    """
    expected = "expected a folder that `python -m dsfp_env.fit_surrogate` has made"
    meta = read_file(folder / META, AboutSurrogate, expected)
    if meta["schema"] != SCHEMA:
        raise InputError(
            f"The surrogate {folder} is of an older kind ({meta['schema']}, this version reads {SCHEMA}): make it "
            "anew with `python -m dsfp_env.fit_surrogate`."
        )
    told = {name: value for name, value in meta.items() if name != "checksum"}
    if meta.get("checksum") != checksum_of(told):
        raise InputError(f"The surrogate {folder} is damaged: {META} was changed. Get it anew, or make it anew.")
    arrays = {name: _arrays(folder, name, meta["files"]) for name in (COSTS, MODEL, DATA)}
    try:
        costs, ensemble = CostTables(**arrays[COSTS]), Ensemble.from_arrays(arrays[MODEL])
        fits = arrays[DATA]["lost"].shape[1] == len(costs.sizes) == len(ensemble.centre)
    except (KeyError, TypeError, IndexError) as error:
        raise InputError(f"The surrogate {folder} cannot be used ({error}): {expected}.") from error
    if not fits or len(costs.set_of_layer) != len(meta["agents"]):
        raise InputError(f"The surrogate {folder} cannot be used: its files do not agree; {expected}.")
    return Content(meta, costs, ensemble, arrays[DATA])


def _arrays(folder: Path, name: str, checksums: Mapping[str, str]) -> dict[str, np.ndarray]:
    path = folder / name
    damaged = f"The surrogate {folder} is damaged: {name} is not the file that {META} tells of. Get it anew."
    try:
        check_regular(path)
        if checksum(path) != checksums.get(name):
            raise InputError(damaged)
        return read_arrays(path)
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{damaged} ({error})") from error
