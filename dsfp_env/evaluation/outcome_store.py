"""Outcomes on disk: what was measured once is not measured again, by no process and on no later day.

One SQLite file in the cache directory maps the key of an evaluation (see `fingerprints`) to the accuracy that was
measured. Any number of processes may use it at once, and each may be killed at any moment: a row is there or it
is not. The file is opened for every question, so nothing is held between them; it may be deleted at any time.

Rows are not forced to the disk one by one (a row takes 0.1 ms, and would take 20). If the machine itself fails,
some may be lost or damaged; every row carries a checksum, and one that does not match counts as absent.

A process forks only while none of its threads is within SQLite, whose mutexes would stay locked in the child.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import ClassVar, TypeVar

from dsfp_env.common.files import cache_directory

PATIENCE = 10.0  # seconds to wait for another process that writes; a row takes it 0.1 ms
_TABLE = "CREATE TABLE IF NOT EXISTS outcomes (key TEXT PRIMARY KEY, accuracy REAL, checksum TEXT) WITHOUT ROWID"

Answer = TypeVar("Answer")

_within = threading.RLock()  # held by who is within SQLite, and by who forks
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_within.acquire, after_in_parent=_within.release, after_in_child=_within.release)


class OutcomeStore:
    """The file ``outcomes.sqlite`` in the cache directory.

    Whatever is wrong with it costs time and nothing else: there is one warning, and evaluations are made anew.
    """

    _locked: ClassVar[set[Path]] = set()  # files that this process has waited for in vain, and waits for no more

    def __init__(self) -> None:
        self._failed: set[str] = set()  # what is not tried again

    @property
    def file(self) -> Path:
        """Where outcomes are kept."""
        return cache_directory() / "outcomes.sqlite"

    def find(self, keys: Iterable[str]) -> dict[str, float]:
        """The accuracies that are known, in [0, 1], by key."""

        def select(database: sqlite3.Connection) -> list[tuple[str, float, str]]:
            ask = "SELECT key, accuracy, checksum FROM outcomes WHERE key = ?"
            return [row for key in keys for row in database.execute(ask, (key,))]

        rows = self._use("read", select) or []
        return {key: accuracy for key, accuracy, checksum in rows if checksum == _checksum(key, accuracy)}

    def add(self, key: str, accuracy: float) -> None:
        """Keep an accuracy."""
        row = key, accuracy, _checksum(key, accuracy)
        self._use("written", lambda database: database.execute("REPLACE INTO outcomes VALUES (?, ?, ?)", row))

    def _use(self, how: str, work: Callable[[sqlite3.Connection], Answer]) -> Answer | None:
        """Do the work in a transaction; None if it cannot be done."""
        file = self.file
        if how in self._failed or file in self._locked:
            return None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with _within, closing(sqlite3.connect(file, timeout=PATIENCE)) as database, database:
                database.execute("PRAGMA synchronous = OFF")
                database.execute(_TABLE)
                return work(database)
        except (OSError, sqlite3.Error) as error:
            damaged = type(error) is sqlite3.DatabaseError  # what cannot be reached, or is locked, is a subclass
            if damaged and _set_aside(file):
                self._warn(f"{file} was damaged ({error}) and is now {_aside(file).name}; a new one is begun.")
                return None
            if not self._failed:
                self._warn(
                    f"Outcomes cannot be {how} in {file} ({error}); evaluations are made anew. Set DSFP_ENV_CACHE "
                    "to a directory that can be written, or say store=False."
                )
            self._failed.add(how)
            if "locked" in str(error):
                self._locked.add(file)
            return None

    @staticmethod
    def _warn(sentence: str) -> None:
        warnings.warn(sentence, stacklevel=2)


def _checksum(key: str, accuracy: float) -> str:
    return hashlib.sha256(f"{key} {accuracy!r}".encode()).hexdigest()[:16]


def _aside(file: Path) -> Path:
    return file.with_name(f"{file.name}.damaged")


def _set_aside(file: Path) -> bool:
    """Move a file and its rollback journal out of the way."""
    try:
        file.with_name(f"{file.name}-journal").unlink(missing_ok=True)
        file.replace(_aside(file))
    except OSError:
        return False
    return True
