"""Where files are kept, how they are written (whole or not at all), and which are trusted."""

from __future__ import annotations

import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import platformdirs


def cache_directory() -> Path:
    """Where trained networks and downloads are kept: ``$DSFP_ENV_CACHE``, or the user's cache directory.

    Without a home directory, as for a user of a container who has no entry anywhere, it is a temporary one.
    """
    if named := os.environ.get("DSFP_ENV_CACHE"):
        return Path(named)
    try:
        return Path(platformdirs.user_cache_path("dsfp_env"))
    except (RuntimeError, KeyError):  # of pathlib and of the password database
        return _temporary_cache()


def data_directory() -> Path:
    """Where downloaded data sets lie unless told otherwise."""
    return cache_directory() / "datasets"


@cache
def _temporary_cache() -> Path:
    directory = Path(tempfile.gettempdir()) / f"dsfp_env-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    warnings.warn(
        f"This user has no home directory: trained networks are kept in {directory}. Set DSFP_ENV_CACHE to a "
        "directory that stays.",
        stacklevel=3,
    )
    return directory


def write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file beside the path, then put it in its place; the directory is made if need be.

    It is on the disk before it takes the place, so that a machine that fails leaves the old file or the new one.

    Args:
        path: The file.
        write: Writes to the open file that it is given.

    Raises:
        OSError: If the file cannot be written; nothing is left then, and what was there before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(part, 0o666 & ~mask)  # as an ordinary file; temporary ones are private
        os.replace(part, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(part)
        raise


def read_regular(path: str | Path) -> bytes:
    """The content of an ordinary file.

    Raises:
        OSError: If there is none, or it is something else: reading a pipe would wait for ever.
    """
    check_regular(path)
    return Path(path).read_bytes()


def check_regular(path: str | Path) -> None:
    """Refuse what is no ordinary file, nor a link to one.

    Raises:
        OSError: If it is not.
        ValueError: If there cannot be a file of that name.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{str(path)!r} is no ordinary file")


def is_trusted(path: Path) -> bool:
    """Whether nobody but this user and the administrator can have written a file, or put it where it is.

    Asked before code from it is run. On systems without owners of files, always.
    """
    if not hasattr(os, "getuid"):
        return True
    try:
        found = [os.stat(place) for place in (path, path.parent)]
    except OSError:
        return False
    return all(one.st_uid in (0, os.getuid()) and not one.st_mode & 0o022 for one in found)


def whole_lines(path: Path) -> list[str]:
    """The lines of a file to which lines are appended; none if there is no file.

    One that was cut short, by a process that was killed while it wrote, is removed from the file.

    Args:
        path: Nobody else writes to it.

    Raises:
        OSError: If the file cannot be read or cut, or is no ordinary one.
    """
    try:
        content = read_regular(path)
    except FileNotFoundError:
        return []
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return content[:whole].decode(errors="replace").split("\n")[:-1]


def append_line(path: Path, line: str) -> None:
    """Append a line to a file, at once.

    Raises:
        OSError: If it cannot be.
    """
    with open(path, "ab") as file:
        file.write(f"{line}\n".encode())
