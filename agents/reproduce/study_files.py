"""The files of a study: what they are called, what may be in them, and whether they are of these settings.

| file                 | content                                                                       |
|----------------------|-------------------------------------------------------------------------------|
| `settings.json`      | the settings that results depend on, and the versions of what was used        |
| `NAME.json`          | what the piece of that name found, see `records`                              |
| `NAME.safetensors`   | the original network, scores of filters, or the network of a row              |
| `NAME.jsonl`         | what a search has tried, a line each                                          |
| `NAME.training`      | the fine-tuning that a piece is at, until it is done                          |
| `teacher-seedN`      | a folder: what the original network answered in fine-tunings with that seed   |
| `latencies.json`     | times of the networks, see `latencies`                                        |
| `results.json`       | all that was found so far, see `results`                                      |
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any

import torch

from agents.reporting.finals import FINALISTS
from agents.reporting.journal import ANOTHER
from agents.reporting.run_folder import SETTINGS, check_free, other_settings, versions, write_json
from agents.reproduce import records
from agents.reproduce.searching import lines_tried
from agents.reproduce.settings import StudySettings
from agents.reproduce.targets import RANDOM, SEARCH, SWEEP, names_in, names_of, piece_of
from dsfp_env.common.errors import InputError
from dsfp_env.common.folders import check_writable, named
from dsfp_env.common.json_files import read_file
from dsfp_env.common.tensor_files import read_tensors
from dsfp_env.common.versions import check_versions
from dsfp_env.evaluation.executors.options import WHERE

# Settings that may change from one start in a folder to the next.
HOW = (
    *("only", "data_root", "download", "device", "threads", "out", "weights"),
    *("quick", "figures", "estimate", "deployed", "results", "known", *WHERE),
)

# Settings of which more or less may be asked, in another start or of another folder: each piece is of one of them.
ASKED = records.Listed.__struct_fields__


class StudyFiles:
    """What lies in the folder of a study.

    Args:
        settings: Of the study.

    Attributes:
        asked: The settings.
        folder: Where it lies.
    """

    def __init__(self, settings: StudySettings) -> None:
        self.asked = settings
        self.folder = named(f"runs/reproduce-{settings.network}" if settings.out is None else settings.out)

    # What they are called.

    def of(self, name: str) -> Path:
        """Where a piece leaves what it found."""
        return self.folder / f"{name}.json"

    def weights(self, name: str) -> Path:
        """Where a piece leaves its tensors."""
        return self.folder / f"{name}.safetensors"

    def log(self, name: str) -> Path:
        """Where a search keeps what it tries."""
        return self.folder / f"{name}.jsonl"

    def training(self, name: str) -> Path:
        """Where a piece keeps the fine-tuning that it is at; a search, that of a finalist, by a number."""
        return self.folder / f"{name}.training"

    def teacher(self, seed: int) -> Path:
        """Where the original network's answers are kept, a file for each epoch of the fine-tunings with a seed."""
        return self.folder / f"teacher-seed{seed}"

    # What is in them.

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Leave what a piece found."""
        write_json(self.of(name), content)

    def read(self, name: str) -> dict[str, Any]:
        """What a piece found.

        Raises:
            InputError: If that cannot be read.
        """
        file = self.of(name)
        found: dict[str, Any] = read_file(file, records.schema_of(name), f"remove {file}, and it is made anew")
        return found

    def found(self, name: str) -> dict[str, Any] | None:
        """What a piece found, if it is done."""
        return self.read(name) if self.of(name).exists() else None

    def tensors(self, name: str) -> dict[str, torch.Tensor]:
        """The tensors that a piece left; those of earlier releases have no checksum.

        Raises:
            InputError: If they cannot be read.
        """
        path = self.weights(name)
        try:
            return read_tensors(path, signed=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be used ({error}): remove it and {self.of(name)}, and they are made anew."
            ) from error

    def settings(self) -> dict[str, Any]:
        """The settings that results depend on, as JSON has them."""
        return _as_json({name: value for name, value in asdict(self.asked).items() if name not in HOW})

    def usual(self) -> dict[str, Any]:
        """The same settings where nothing is said; what an earlier release did not write meant these."""
        return _as_json({one.name: one.default for one in fields(self.asked) if one.name not in HOW})

    def versions(self) -> dict[str, str] | None:
        """The versions that the study was begun with; an earlier release did not note them."""
        versions: dict[str, str] | None = self._begun_with().get("versions")
        return versions

    def _begun_with(self) -> dict[str, Any]:
        found: dict[str, Any] = read_file(self.folder / SETTINGS, records.Settings, ANOTHER)
        return found

    def remove_trainings(self, name: str) -> None:
        """Remove what only served a piece to go on, when it is done."""
        most = FINALISTS + len(self.asked.warm_start)
        for training in (name, *(f"{name}.{number}" for number in range(1, most + 1))):
            self.training(training).unlink(missing_ok=True)

    # Whether a study can begin or go on with them.

    def begin(self) -> None:
        """Write what the study is of, unless that is there.

        Raises:
            InputError: If the folder is neither free nor that of a study.
        """
        file = self.folder / SETTINGS
        if not file.exists():
            check_free(self.folder)
            write_json(file, {**self.settings(), "versions": versions()})

    def check(self, pieces: Mapping[str, str | None]) -> None:
        """Refuse a folder of other settings, or with files that cannot be used.

        What is asked may be more or less than before, if every name of a piece still means what it meant.

        Args:
            pieces: All names, and the kind that searches and rows are of.

        Raises:
            InputError: If the folder is refused.
        """
        there = self.check_settings()
        if there is None:
            return
        self._rename()
        begun_with = there["versions"]
        if begun_with is not None and any(not self.of(name).exists() for name in pieces):
            check_versions(f"The study in {self.folder}", begun_with, versions())
        called = {name: kind for kind, name in names_in(there).items()}
        meant = {kind: called.get(name, kind) for kind, name in names_of(self.asked.kinds).items()}
        for name, kind in pieces.items():
            self._check_piece(name, kind, meant)

    def check_settings(self) -> dict[str, Any] | None:
        """Refuse a folder of other settings; what it was begun with, or None if it is free.

        Raises:
            InputError: If the folder is refused.
        """
        check_writable(self.folder)
        if not (self.folder / SETTINGS).exists():
            check_free(self.folder)
            return None
        wanted, usual = self.settings(), self.usual()
        there = {**usual, **self._begun_with()}  # an earlier release had fewer
        begun_with = there.pop("versions", None)
        but_for_lists = there | {name: wanted[name] for name in ASKED}
        if sentence := other_settings(self.folder, "a study", but_for_lists, wanted, usual):
            raise InputError(sentence)
        return {**there, "versions": begun_with}

    def _check_piece(self, name: str, kind: str | None, meant: Mapping[str, str]) -> None:
        """Refuse files of a piece that cannot be used.

        Args:
            name: Of the piece.
            kind: That it is to be of, if it is a search or a row.
            meant: What the names of kinds stood for when the study was begun, by kind.
        """
        found = self.found(name)
        if kind is None:
            if found and not name.startswith(SWEEP):
                self.tensors(name)
            return
        if found and (of := found.get("kind") or meant[kind]) != kind:
            raise InputError(
                f"{self.of(name)} is of {of}, and {kind} would have that name, too: choose another folder with "
                "--out."
            )
        if found and not self.is_as_asked(name, found):
            raise InputError(
                f"{self.of(name)} is of an earlier release, which brought to the budget what a search ended "
                f"with alone: remove it, the file .jsonl beside it, and those of {name.removeprefix(SEARCH)}, "
                "and they are made anew."
            )
        lines_tried(self.log(name))

    def is_as_asked(self, name: str, found: Mapping[str, Any]) -> bool:
        """Whether a search has brought to the budget all that it tried, if that is asked; true of other pieces."""
        learns = name.startswith(SEARCH) and not name.startswith(f"{SEARCH}{RANDOM}-")
        return not (learns and self.asked.fill_budget) or bool(found.get("filled"))

    def _rename(self) -> None:
        """Give files of an earlier release, which had a learner's options in their names, the names of today."""
        settings = self.asked
        for kind, short in names_of(settings.kinds).items():
            for target, seed in product(settings.targets, settings.seeds):
                was, now = piece_of(kind, target, seed), piece_of(short, target, seed)
                for suffix in (".training", ".safetensors", ".jsonl", ".json"):
                    for first in (SEARCH, ""):
                        old, new = self.folder / f"{first}{was}{suffix}", self.folder / f"{first}{now}{suffix}"
                        if old != new and old.exists() and not new.exists():
                            old.rename(new)


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(settings)))
