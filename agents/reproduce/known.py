"""What is known of a study from a `results.json` of another folder or machine: that need not be made anew.

Rows and searches are taken over, by who they are of, at which target, with which seed. They stand beside those
that are made here, so they must be of the same network, of the same settings and made with the same versions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from agents.reporting.run_folder import different_settings, versions
from agents.reproduce.results import read_results
from agents.reproduce.study_files import ASKED, StudyFiles
from agents.reproduce.targets import BASE, SEARCH, Target, names_in, names_of, piece_of
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.versions import check_versions
from dsfp_env.evaluation.plans import Plan, check_agents
from dsfp_env.tasks.task import Task
from dsfp_env.training.recipes import FINE_TUNING, recipe_from

_NEAR = 0.001  # accuracies of one network on two machines, or with few images by one image
_OTHERWISE = "or leave --known away, and all is made anew"


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
        images = all(one["data"].startswith("imagefolder:") for one in (there, here))  # which may lie elsewhere
        compared = [name for name in {**here, **there} if name not in (*ASKED, "data")] + ["data"] * (not images)
        theirs, ours = ({name: one.get(name) for name in compared} for one in (there, here))
        if told := different_settings(theirs, ours, here):
            raise InputError(
                f"--known {file} is of a study with other settings: {told}. Give the same, {_OTHERWISE}."
            )
        if begun_with := self._results["versions"]:  # an earlier release did not note them
            check_versions(f"The study of --known {file}", begun_with, versions(), _OTHERWISE)
        if files.asked.weights is None and not files.of(BASE).exists():
            raise InputError(
                f"--known {file} is of a trained network: expected that with --weights, as its folder's "
                "base.safetensors."
            )
        if self._results["base"] is None:
            raise InputError(
                f"--known {file} has nothing yet, not even of the original network: {_OTHERWISE[3:]}."
            )

    def check_network(self, base: Mapping[str, Any], task: Task) -> None:
        """Refuse what is not of this network, as far as can be told.

        Args:
            base: What was found of it here, as `records.Base` says.
            task: It and its data.

        Raises:
            InputError: If something is not.
        """
        there, near = self._results["base"], max(_NEAR, 1.5 / len(task.test.labels))
        same = all(there[name] == base[name] for name in ("params", "macs", "filters"))
        if not same or abs(there["accuracy"] - base["accuracy"]) > near:
            raise InputError(
                f"--known {self._file} is of another original network: {_told(there)} there, {_told(base)} here. "
                "Give the base.safetensors of its folder with --weights, and another --out, "
                f"{_OTHERWISE}."
            )
        epochs = recipe_from(self._files.asked.fine_tuning, FINE_TUNING).epochs
        layers = task.graph.layers.keys()
        for name, row in self._results["rows"].items():
            if row["filters_kept"].keys() != layers or row["epochs"] != epochs:
                raise InputError(
                    f"In --known {self._file}, {name} has {row['epochs']} epochs and the layers "
                    f"{shortened([*row['filters_kept']])}: expected {epochs} and {shortened([*layers])}."
                )
        for name, found in {**self._results["searches"], **self._results["rows"]}.items():
            self._check_plan(name, found["ratios"], task)

    def _check_plan(self, name: str, plan: Plan, task: Task) -> None:
        """Refuse ratios that this network's agents cannot choose."""
        try:
            check_agents(plan, task.control.agents)
        except InputError as error:
            raise InputError(f"In --known {self._file}, {name}: {error}") from error
        for agent, one in task.control.agents.items():
            if not one.lowest <= plan[agent] <= one.highest:
                raise InputError(
                    f"In --known {self._file}, {name} has the ratio {plan[agent]:g} for {agent}: expected one in "
                    f"[{one.lowest:g}, {one.highest:g}]."
                )

    def of(self, kind: str, target: Target, seed: int) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """The search and the row of a learner, a rule or random search, as far as they are there."""
        names = names_in(self._results["settings"])
        if kind not in names:
            return None, None
        name = piece_of(names[kind], target, seed)
        return self._results["searches"].get(f"{SEARCH}{name}"), self._results["rows"].get(name)


def known_pieces(known: Sequence[Known], files: StudyFiles) -> dict[str, dict[str, Any]]:
    """What is asked, known and not there yet, by piece: of what several know, that of the first.

    A row that stands on a search is taken with that search alone, or where that very search is there.
    """
    asked, taken = files.asked, dict[str, dict[str, Any]]()
    for (kind, name), target, seed in product(names_of(asked.kinds).items(), asked.targets, asked.seeds):
        there = [one.of(kind, target, seed) for one in known]
        rows, piece = [row for _, row in there if row], piece_of(name, target, seed)
        if not asked.is_rule(kind):
            search = f"{SEARCH}{piece}"
            found = files.found(search)
            if found is None:
                found = next((one for one, _ in there if one and files.is_as_asked(search, one)), None)
                taken |= {search: {"kind": kind, **found}} if found else {}
            rows = [row for row in rows if found and found["ratios"] == row["ratios"]]
        if rows and not files.of(piece).exists():
            taken[piece] = {"kind": kind, **rows[0]}
    return taken


def _told(base: Mapping[str, Any]) -> str:
    return f"{base['params']:,} parameters, {base['macs']:,} multiply-adds and {base['accuracy']:.2%}"
