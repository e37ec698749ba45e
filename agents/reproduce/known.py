"""What is known of a study from a `results.json` of another folder or machine: that need not be made anew.

Rows and searches are taken over, by who they are of, at which target, with which seed. They stand beside those
that are made here, so they must be of the same network, of the same settings and made with the same versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from agents.reporting.run_folder import different_settings, versions
from agents.reproduce.results import read_results
from agents.reproduce.study_files import StudyFiles
from agents.reproduce.targets import SEARCH, kinds_of, names_of, piece_of
from dsfp_env.common.errors import InputError
from dsfp_env.common.versions import check_versions

# What is asked of a study may be more or less than what is known of it, and its data may lie elsewhere.
ASKED = ("data", "rates", "macs_budgets", "seeds", "agents", "yardsticks")
_NEAR = 0.001  # accuracies of one network on two machines, or with few images by one image


class Known:
    """What a file tells of a study.

    Args:
        file: A `results.json`.
        files: Of the study that is to go on.

    Raises:
        InputError: If the file cannot be read, or is of another study.
    """

    def __init__(self, file: Path, files: StudyFiles) -> None:
        self._file, self._files = file, files
        self._results = read_results(file)
        there, here = {**files.usual(), **self._results["settings"]}, files.settings()
        kinds = [settings["data"].partition(":")[0] for settings in (there, here)]
        compared = [name for name in here if name not in ASKED] + ["data"] * (kinds[0] != kinds[1])
        theirs, ours = ({name: one[name] for name in compared} for one in (there, here))
        if told := different_settings(theirs, ours, here):
            raise InputError(f"--known {file} is of a study with other settings: {told}.")
        check_versions(f"The study of --known {file}", self._results["versions"], versions())

    def check_base(self, base: Mapping[str, Any], images: int) -> None:
        """Refuse results of another original network, as far as can be told.

        Args:
            base: What was found of the one here.
            images: Of the test split.

        Raises:
            InputError: If they are.
        """
        there, near = self._results["base"], max(_NEAR, 1.5 / images)
        if there is None or there["params"] != base["params"] or abs(there["accuracy"] - base["accuracy"]) > near:
            told = "not there" if there is None else f"of {there['params']} parameters and {there['accuracy']:.2%}"
            raise InputError(
                f"--known {self._file} is of another original network: that is {told}, and this is of "
                f"{base['params']} parameters and {base['accuracy']:.2%}. Give the same with --weights."
            )

    def take_over(self) -> list[str]:
        """Leave the files of what is known and not there yet; returns the names of the pieces."""
        settings, theirs = self._files.asked, self._results["settings"]
        found = {**self._results["searches"], **self._results["rows"]}
        there = names_of(kinds_of(theirs["yardsticks"], theirs["agents"]))
        taken = []
        for kind, name in names_of(settings.kinds).items():
            for target, seed, first in product(settings.targets, settings.seeds, (SEARCH, "")):
                piece = f"{first}{piece_of(name, target, seed)}"
                known = found.get(f"{first}{piece_of(there.get(kind, ''), target, seed)}")
                if known and self._files.is_as_asked(piece, known) and not self._files.of(piece).exists():
                    self._files.write(piece, known)
                    taken.append(piece)
        return taken
