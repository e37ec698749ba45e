"""The folder that a command writes: whether it can be written, and that nobody else writes it meanwhile."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dsfp_env.common.errors import InputError, shortened

try:
    import fcntl
except ImportError:  # there is none on Windows: nobody is kept out there
    fcntl = None  # type: ignore[assignment]

_LONGEST_NAME = 180  # bytes; a disk takes 255, and more is put behind it
PART = re.compile(r".+\.[a-z0-9_]{8}\.part")  # names of files that are not whole yet, see `files.write_whole`


def contents(folder: Path) -> list[Path]:
    """What a folder holds, if there is one, in order, without what a killed process was just writing."""
    return sorted(path for path in folder.iterdir() if not PART.fullmatch(path.name)) if folder.is_dir() else []


def named(name: str, option: str = "--out") -> Path:
    """A folder by what somebody called it; whether it exists is another question.

    Args:
        name: Its path.
        option: That it was said with, for the message.

    Raises:
        InputError: If there cannot be a folder of that name, or it cannot be looked at.
    """
    folder = Path(name)
    longest = max(folder.parts, key=len, default="")  # a name that is too long is, wherever
    try:
        if not name:
            raise ValueError("it is empty")
        for place in (Path(folder.anchor) / longest, folder / ("x" * _LONGEST_NAME)):
            with suppress(FileNotFoundError, NotADirectoryError):
                os.lstat(place)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{option} is {shortened(name)}, which cannot be a folder "
            f"({getattr(error, 'strerror', None) or error}): choose another."
        ) from error
    return folder


def fitting(name: str) -> str:
    """The name of a file or folder; a long one ends in a hash of the whole, so that others are others."""
    whole = name.encode(errors="surrogateescape")
    if len(whole) <= _LONGEST_NAME:
        return name
    cut = whole[: _LONGEST_NAME - 20].decode(errors="ignore")
    return f"{cut}-{hashlib.sha256(whole).hexdigest()[:16]}"


def check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written; nothing is left behind.

    Raises:
        InputError: If it cannot.
    """
    place = folder.absolute()
    while not os.path.lexists(place):
        place = place.parent
    why = None
    if not place.is_dir():
        why = "a link to nothing" if not place.exists() else "a file"
    elif not os.access(place, os.W_OK | os.X_OK):
        why = "read-only"
    else:
        try:
            with tempfile.TemporaryFile(
                dir=place
            ):  # the administrator may, where the system does not, as in /proc
                pass
        except OSError as error:
            why = f"a folder that takes no file: {error.strerror}"
    if why:
        raise InputError(f"The folder {folder} cannot be written ({place} is {why}): choose another with --out.")


def remove_parts(folder: Path) -> None:
    """Remove what a killed process was just writing; for who holds the folder."""
    for path in folder.glob("*.part"):
        if PART.fullmatch(path.name):
            with suppress(OSError):  # it may be read-only: then they stay
                path.unlink()


@contextmanager
def held(place: Path, otherwise: str = "choose another with --out") -> Iterator[None]:
    """Keep others out of a folder or file that exists, for as long as this lasts or this process lives.

    Args:
        place: It.
        otherwise: What who comes second may do but wait, for the message.

    Raises:
        InputError: If another process holds it.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(place, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"Another process works {'in the folder' if place.is_dir() else 'at'} {place}: wait for its end, "
                f"or {otherwise}."
            ) from error
        except OSError:  # a file system without locks: nobody is kept out
            pass
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared(folder: Path, begin: Callable[[], object] = lambda: None) -> Iterator[Callable[[], bool]]:
    """Work in a folder that exists beside others who share it, each at something else.

    Who is alone removes what killed processes were just writing there, and below.

    Args:
        folder: It.
        begin: Done by who is alone; others wait for its end.

    Yields:
        Whether nobody else is there by now; nobody comes after that.
    """
    if fcntl is None:
        begin()
        yield lambda: True
        return
    descriptor = os.open(folder, os.O_RDONLY)

    def alone() -> bool | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return None
        return True

    try:
        at_first = alone()
        if at_first:
            for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
                remove_parts(place)
        if at_first is not False:
            begin()
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield lambda: alone() is not False
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether another process holds a folder."""
    try:
        with held(folder):
            return False
    except InputError:
        return True
