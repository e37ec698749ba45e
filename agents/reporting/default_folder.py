"""Where a run goes that is not told where: to the unfinished one of the same command, or to a free name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

from dsfp_env.common.folders import fitting


def default_folder(name: str, is_unfinished: Callable[[Path], bool]) -> Path:
    """The first folder of ``runs/NAME``, ``runs/NAME-2``, ... that does not exist, or is to go on.

    Args:
        name: What the run is; whatever has no place in the name of a folder becomes a dash.
        is_unfinished: Whether a folder that exists holds a run that this one goes on with.
    """
    name = fitting(name.replace(":", "-").replace("/", "-"))
    candidates = (Path("runs") / (name if n == 1 else f"{name}-{n}") for n in itertools.count(1))
    return next(folder for folder in candidates if not folder.exists() or is_unfinished(folder))
