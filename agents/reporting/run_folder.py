"""The folder that a run leaves: what was asked, what was tried, and what came out.

| file                 | content                                                                  |
|----------------------|--------------------------------------------------------------------------|
| `settings.json`      | the settings, and the versions of what was used                          |
| `evaluations.jsonl`  | one line per evaluation, written as it happens                           |
| `result.json`        | the original, best and greedy networks and the baselines                 |
| `pruned.safetensors` | the best network; `dsfp_env.load_pruned` reads it                        |
| `summary.png`        | a picture of the run                                                     |
| `report.html`        | all of it as a page, made from the other files and `report.json`         |
| `report.json`        | what the page shows and no other file holds, see `report_data`           |
| `report-*`           | the pictures of the page, as SVG and PDF                                 |
| `config.yaml`        | the settings, for `--config`                                             |
| `tensorboard`        | event files, with `--track tensorboard`                                  |
| `journal.jsonl`      | what was measured, until the run is at its end, see `journal`            |

Files other than the `.jsonl` appear whole or not at all. A folder without a result, or with that of an interrupted
run, is of an unfinished one: the same settings go on in it. The run is made again from its beginning, and every
evaluation that the journal knows is told in place of being measured, so the learners are where they were; what
comes is compared with what `evaluations.jsonl` records. Nothing in `result.json` depends on the clock or
on the place: equal settings give an equal file.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dsfp_env
from agents.loop import Evaluation
from agents.reporting.journal import Journal, NotThisRun
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import append_line, whole_lines, write_whole
from dsfp_env.common.folders import check_writable, contents, held, is_held, remove_parts

PACKAGES = ("torch", "torchvision", "numpy", "gymnasium", "pettingzoo", "scikit-learn")
HOW = ("out", "workers", "store", "download", "config", "track")  # settings that results do not depend on
SETTINGS, EVALUATIONS, JOURNAL, RESULT = "settings.json", "evaluations.jsonl", "journal.jsonl", "result.json"
SUMMARY = "summary.json"  # of several seeds


def check_free(folder: Path) -> None:
    """Refuse a folder that holds files or cannot be written; nothing is created.

    Raises:
        InputError: If a run cannot be written there.
    """
    if contents(folder):
        raise InputError(f"The folder {folder} is not empty: choose another with --out, or remove it first.")
    check_writable(folder)


def check_same(folder: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that these settings can neither begin nor go on in; nothing is created.

    Raises:
        InputError: If it holds something else, or cannot be written.
    """
    if not (folder / SETTINGS).exists():
        check_free(folder)
        return
    before = read_json(folder / SETTINGS)
    there, here = before.get("settings", {}), json.loads(json.dumps(dict(settings)))
    for name in here:
        if name not in HOW and there.get(name) != here[name]:
            raise NotThisRun(
                f"The folder {folder} already holds a run with other settings: --{name.replace('_', '-')} is "
                f"{there.get(name)!r} there, and {here[name]!r} came. Give the same, or choose another with --out."
            )
    if not is_finished(folder):
        _check_versions(folder, before.get("versions", {}))
        check_writable(folder)


def goes_on_in(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder holds an unfinished run with these settings, that no other process is at."""
    if not (folder / SETTINGS).exists() or is_finished(folder) or is_held(folder):
        return False
    try:
        check_same(folder, settings)
    except InputError:
        return False
    return True


def _check_versions(folder: Path, before: Mapping[str, str]) -> None:
    for name, now in versions().items():
        if before.get(name) != now:
            raise NotThisRun(
                f"The unfinished run in {folder} was begun with {name} {before.get(name)}, and this is {now}, "
                "whose numbers may differ: go on with the former, or choose another folder with --out."
            )


def claim(folder: Path, what: str, same: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write down what a folder of many runs is for, or see that it is for the same.

    Args:
        folder: Free, or claimed before.
        what: It holds, for the message.
        same: What must be equal for work in it to go on.
        settings: What was asked.

    Raises:
        InputError: If it is for something else, or cannot be written.
    """
    check_claim(folder, what, same)
    if not (folder / SETTINGS).exists():
        write_json(folder / SETTINGS, {"same": dict(same), "settings": dict(settings), "versions": versions()})


def check_claim(folder: Path, what: str, same: Mapping[str, Any]) -> None:
    """Refuse what `claim` would; nothing is written.

    Raises:
        InputError: As `claim` does.
    """
    if not (folder / SETTINGS).exists():
        check_free(folder)
        return
    check_writable(folder)
    before = read_json(folder / SETTINGS).get("same")
    if before != json.loads(json.dumps(dict(same))):
        raise InputError(
            f"The folder {folder} holds {what} with {before}, and {same} was asked for: choose another with --out."
        )


def as_file_name(text: str) -> str:
    """The text, with a dash for whatever has no place in the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "_-@" else "-" for letter in text)


class RunFolder:
    """The files of one run, begun or gone on with. A context manager: others are kept out meanwhile.

    Args:
        folder: Free, or that of a run with the same settings.
        settings: What was asked.

    Attributes:
        result: Of a run that is at its end; None before.
        recorded: Lines that a run before this one has written.
        evaluations: Lines that this run has come to.
        journal: What was measured.
        repeatable: Whether the same command can go on.

    Raises:
        InputError: If the folder is of another run, is used by another process, or cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        check_same(folder, settings)
        self.folder, self.repeatable = folder, True
        self._made = _missing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(held(folder))
            check_same(folder, settings)  # another process may have been faster
            remove_parts(folder)
            if not (folder / SETTINGS).exists():
                write_json(folder / SETTINGS, {"settings": dict(settings), "versions": versions()})
            self.evaluations: list[dict[str, Any]] = []
            self.result = read_result(folder)
            self._lines = [] if self.result else whole_lines(folder / EVALUATIONS)
            self.recorded = [_parsed(folder, number, line) for number, line in enumerate(self._lines, start=1)]
            self.journal = Journal(folder / JOURNAL)
            if self.result:
                self.journal.remove()
            self._held = stack.pop_all()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def add(self, evaluation: Evaluation) -> None:
        """Append one evaluation, or see that it is the one that is recorded.

        Raises:
            NotThisRun: If another is recorded in its place.
        """
        shared = next(iter(evaluation.infos.values()))
        line = {
            "evaluation": evaluation.number,
            "ratios": evaluation.ratios,
            "validation_accuracy": shared["accuracy"],
            "macs": shared["macs"],
            "relative_macs": shared["relative_macs"],
            "params": shared["params"],
            "reward": evaluation.score,
        }
        text, place = json.dumps(line), len(self.evaluations)
        if place >= len(self._lines):
            append_line(self.folder / EVALUATIONS, text)
        elif text != self._lines[place]:
            name = next(
                (one for one in line if self.recorded[place].get(one) != json.loads(text)[one]), "its form"
            )
            raise self._refusal(place, f"{name} is {self.recorded[place].get(name)} there, {line.get(name)} here")
        self.evaluations.append(line)

    def check_all_came(self) -> None:
        """See that the search came to every line that is recorded.

        Raises:
            NotThisRun: If there are more.
        """
        if len(self.recorded) > len(self.evaluations):
            raise self._refusal(len(self.evaluations), f"the search ends after {len(self.evaluations)}")

    def so_far(self) -> list[dict[str, Any]]:
        """What is recorded by now, by this run or one before it."""
        lines = whole_lines(self.folder / EVALUATIONS)
        return [_parsed(self.folder, number, line) for number, line in enumerate(lines, start=1)]

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; one that is whole is never replaced by one of an interrupted run."""
        whole = not result.get("interrupted")
        if whole or read_result(self.folder) is None:
            write_json(self.folder / RESULT, result)
        if whole:
            self.journal.remove()

    def withdraw(self) -> None:
        """Leave no trace, if nothing was done."""
        if [path.name for path in contents(self.folder)] == [SETTINGS]:
            (self.folder / SETTINGS).unlink()
            with suppress(OSError):  # somebody else has put something there
                for made in self._made:
                    made.rmdir()

    def _refusal(self, place: int, why: str) -> NotThisRun:
        return NotThisRun(
            f"Line {place + 1} of {self.folder / EVALUATIONS} is not what this run comes to ({why}). It was "
            "changed, or other code made it, or the learner does not repeat itself: choose another folder "
            "with --out, or remove this one."
        )


def _missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, the innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def _parsed(folder: Path, number: int, line: str) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or "reward" not in parsed:
        raise NotThisRun(
            f"Line {number} of {folder / EVALUATIONS} cannot be read: it was changed since it was written. Choose "
            "another folder with --out, or remove this one."
        )
    return parsed


def is_finished(folder: Path) -> bool:
    """Whether a run, or one of several seeds, is at its end."""
    return (folder / SUMMARY).exists() or read_result(folder) is not None


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a run that is at its end; None if there is none, or one of an interrupted run."""
    if not (folder / RESULT).exists():
        return None
    result = read_json(folder / RESULT)
    return None if result.get("interrupted") else result


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds.

    Raises:
        InputError: If it holds none, or cannot be read.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): choose another folder with --out, or remove this one."
        ) from error
    if not isinstance(content, dict):
        raise InputError(
            f"{path} holds no settings or result: choose another folder with --out, or remove this one."
        )
    return content


def versions() -> dict[str, str]:
    """Of what is used."""
    ours = {"dsfp_env": dsfp_env.__version__, "python": platform.python_version()}
    return ours | {package: version(package) for package in PACKAGES}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
