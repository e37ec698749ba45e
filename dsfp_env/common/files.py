"""Where files are kept, and how they are written: whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import platformdirs


def cache_directory() -> Path:
    """Where trained networks and downloads are kept: ``$DSFP_ENV_CACHE``, or the user's cache directory."""
    return Path(os.environ.get("DSFP_ENV_CACHE") or platformdirs.user_cache_path("dsfp_env"))


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside the path, then put it in its place; the directory is made if need be.

    Args:
        path: The file.
        write: Writes to the open file that it is given.

    Raises:
        OSError: If the file cannot be written; nothing is left then, and what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f"{path.name}.", suffix=".part", delete=False
    ) as part:
        try:
            write(part)
        except BaseException:
            os.unlink(part.name)
            raise
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(part.name, 0o666 & ~mask)  # as an ordinary file; temporary ones are private
    os.replace(part.name, path)
