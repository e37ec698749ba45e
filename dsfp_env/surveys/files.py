"""A survey on disk: a folder with what was measured of some joint actions of a task.

| file                  | what                                                                             |
|-----------------------|----------------------------------------------------------------------------------|
| `meta.json`           | schema, task, agents, original network, fidelity, criterion, machines            |
| `rows.jsonl`          | of each joint action and seed: ratios, images answered rightly, source, checksum |
| `costs.npz`           | what plans cost, see `channels.cost_tables`                                      |
| `network.safetensors` | the trained original network                                                     |

Lines are appended; the last may be cut short, and counts as never written. Any other that does not match its
checksum is refused. Nothing here is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta

from dsfp_env.channels.cost_tables import CostTables
from dsfp_env.common.array_files import read_arrays, write_arrays
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import append_line, write_whole
from dsfp_env.common.json_files import lines_of, read_file, read_line
from dsfp_env.common.schemas import Name, Natural, Percent, Strict
from dsfp_env.tables.meta import SPLITS, AboutAgent, AboutOriginal, AboutSplits
from dsfp_env.tables.same_task import check_same

SCHEMA = 1
META, ROWS, COSTS, NETWORK = "meta.json", "rows.jsonl", "costs.npz", "network.safetensors"
_OTHERWISE = "remove it, or choose another folder with --out"


class _Meta(Strict):
    schema: Annotated[int, Meta(ge=SCHEMA, le=SCHEMA)]
    task: Name
    task_seed: Natural
    task_hash: str
    split_hash: str
    splits: AboutSplits
    agents: Annotated[dict[Name, AboutAgent], Meta(min_length=1)]
    original: AboutOriginal
    criterion: Name
    fidelity: dict[str, int | float | str]
    machines: list[dict[str, str]]


class Row(Strict):
    """What was measured of one joint action with one seed."""

    ratios: list[Percent]  # in the order of the agents
    seed: Natural
    right: Annotated[list[Natural], Meta(min_length=2, max_length=2)]  # images answered rightly, by split
    seconds: float
    source: Name  # how it came into the survey: a kind of `designs`, or a learner's run


class _Line(Strict):
    row: Row
    checksum: str


class Survey(NamedTuple):
    """All that was measured of N joint actions."""

    meta: dict[str, Any]
    ratios: np.ndarray  # [N, agents], percent
    seeds: np.ndarray  # [N] int64
    accuracy: np.ndarray  # [N, 2] float64: on the validation split, and on the test split
    sources: list[str]
    costs: CostTables

    @property
    def classes_lost(self) -> np.ndarray:
        """How many classes of each coupled set go, ``[N, sets]``."""
        return self.costs.classes_lost(self.ratios / 100)


def read_meta(folder: Path) -> dict[str, Any]:
    """What a folder says about itself.

    Raises:
        InputError: If it is no survey of this schema.
    """
    meta: dict[str, Any] = read_file(
        folder / META, _Meta, "expected a folder that `python -m dsfp_env.survey` made"
    )
    return meta


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write `meta.json`, whole or not at all."""
    text = json.dumps(meta, indent=1) + "\n"
    write_whole(folder / META, lambda file: file.write(text.encode()))


def read_rows(folder: Path, agents: int) -> list[dict[str, Any]]:
    """The rows, as they were appended.

    Args:
        folder: Of a survey; nobody else writes to it.
        agents: How many there are.

    Raises:
        InputError: If a line was changed since it was written, or has another number of ratios.
    """
    path, rows = folder / ROWS, []
    for number, line in enumerate(lines_of(path, _OTHERWISE), start=1):
        content = read_line(line, number, path, _Line, _OTHERWISE)
        row: dict[str, Any] = content["row"]
        if content["checksum"] != _checksum(row) or len(row["ratios"]) != agents:
            raise InputError(f"Line {number} of {path} was changed since it was written: {_OTHERWISE}.")
        rows.append(row)
    return rows


def append_row(folder: Path, row: Mapping[str, Any]) -> None:
    """Add what was measured of a joint action."""
    append_line(folder / ROWS, json.dumps({"row": row, "checksum": _checksum(row)}))


def key_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a row from others: its ratios, and its seed."""
    return (*row["ratios"], row["seed"])


def read_together(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What surveys of one task say about themselves, and their rows; of equal questions the first answer.

    Raises:
        InputError: If a folder is none, is damaged, or they are not of one task.
    """
    metas = [read_meta(folder) for folder in folders]
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for folder, meta in zip(folders, metas, strict=True):
        check_same("survey", folders[0], metas[0], folder, meta)
        for row in read_rows(folder, len(meta["agents"])):
            rows.setdefault(key_of(row), row)
    return metas, list(rows.values())


def read_survey(folders: Sequence[Path]) -> Survey:
    """What one survey, or several of one task, have measured; raises as `read_together`, and without a row."""
    metas, rows = read_together(folders)
    if not rows:
        raise InputError(f"{folders[0]} has no row: expected a survey with joint actions that were measured.")
    images = [metas[0]["splits"][split] for split in SPLITS]
    return Survey(
        metas[0],
        np.array([row["ratios"] for row in rows], np.float64),
        np.array([row["seed"] for row in rows], np.int64),
        np.array([row["right"] for row in rows], np.float64) / images,
        [row["source"] for row in rows],
        read_costs(folders[0]),
    )


def write_costs(folder: Path, costs: CostTables) -> None:
    """Write `costs.npz`."""
    write_arrays(folder / COSTS, costs.arrays())


def read_costs(folder: Path) -> CostTables:
    """What `costs.npz` holds.

    Raises:
        InputError: If it cannot be read.
    """
    path = folder / COSTS
    try:
        return CostTables(**read_arrays(path))
    except (OSError, ValueError, TypeError, EOFError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}): {_OTHERWISE}.") from error


def _checksum(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]
