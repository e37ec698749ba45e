"""The folder that a command writes: whether it can be written, and that nobody else writes it meanwhile."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dsfp_env.common.errors import InputError

try:
    import fcntl
except ImportError:  # there is none on Windows: nobody is kept out there
    fcntl = None  # type: ignore[assignment]

PART = re.compile(r".+\.[a-z0-9_]{8}\.part")  # names of files that are not whole yet, see `files.write_whole`


def contents(folder: Path) -> list[Path]:
    """What a folder holds, if there is one, in order, without what a killed process was just writing."""
    return sorted(path for path in folder.iterdir() if not PART.fullmatch(path.name)) if folder.is_dir() else []


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written; nothing is created.

    Raises:
        InputError: If it cannot.
    """
    place = folder.absolute()
    while not (place.exists() or place.is_symlink()):
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"The folder {folder} cannot be written ({place} is {'read-only' if place.is_dir() else 'a file'}): "
            "choose another with --out."
        )


def remove_parts(folder: Path) -> None:
    """Remove what a killed process was just writing; for who holds the folder."""
    for path in folder.glob("*.part"):
        if PART.fullmatch(path.name):
            with suppress(OSError):  # it may be read-only: then they stay
                path.unlink()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep others out of a folder that exists, for as long as this lasts or this process lives.

    Raises:
        InputError: If another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"Another process works in the folder {folder}: wait for its end, or choose another with --out."
            ) from error
        except OSError:  # a file system without locks: nobody is kept out
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Work in a folder that exists beside others who share it, each at something else.

    Who is alone removes what killed processes were just writing there, and below.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # others are there, or it is a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                remove_parts(place)
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether another process holds a folder."""
    try:
        with held(folder):
            return False
    except InputError:
        return True
