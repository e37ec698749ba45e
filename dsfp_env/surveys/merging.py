"""Surveys of one task that were made in parts, put together."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import check_writable, contents
from dsfp_env.common.saying import say
from dsfp_env.surveys import files


def merge(parts: Sequence[Path], folder: Path) -> None:
    """Put surveys of one task together; what several have measured is taken from the first.

    Raises:
        InputError: If they are not of one task, or the folder is there already.
    """
    metas, rows = files.read_together(parts)
    if contents(folder):
        raise InputError(f"The folder {folder} exists: choose another with --out, so that nothing is lost.")
    check_writable(folder)
    unfinished = folder.with_name(f".{folder.name}.merging")  # it gets its name when it is whole
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for row in rows:
        files.append_row(unfinished, row)
    for name in (files.COSTS, files.NETWORK):
        shutil.copy(parts[0] / name, unfinished / name)
    machines = {str(one): one for meta in metas for one in meta["machines"]}
    files.write_meta(unfinished, {**metas[0], "machines": list(machines.values())})
    unfinished.rename(folder)
    say(f"{folder} has {len(rows)} rows")
