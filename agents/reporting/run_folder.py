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
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import dsfp_env
from agents.loop import Evaluation
from agents.reporting import records
from agents.reporting.journal import ANOTHER, Journal, NotThisRun
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import append_line, write_whole
from dsfp_env.common.folders import check_writable, contents, fitting, held, is_held, remove_parts
from dsfp_env.common.json_files import lines_of, read_file, read_line
from dsfp_env.common.versions import check_versions, versions_of
from dsfp_env.evaluation.executors.options import WHERE

PACKAGES = ("torch", "torchvision", "numpy", "gymnasium", "pettingzoo", "scikit-learn")
HOW = ("out", "store", "download", "config", "track", *WHERE)  # settings that results do not depend on
SETTINGS, EVALUATIONS, JOURNAL, RESULT = "settings.json", "evaluations.jsonl", "journal.jsonl", "result.json"
SUMMARY = "summary.json"  # of several seeds
RUNS = "runs"  # the pieces of a study


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
    before = read_settings(folder)
    there, here = before["settings"], json.loads(json.dumps(dict(settings)))
    if unknown := there.keys() - here.keys():
        raise NotThisRun(f"{folder / SETTINGS} has the setting {min(unknown)!r}, which there is not: {ANOTHER}.")
    kept = {name: value for name, value in here.items() if name not in HOW}
    if sentence := other_settings(folder, "a run", there, {**there, **kept}, there):
        raise NotThisRun(sentence)
    if not is_finished(folder):
        check_versions(f"The unfinished run in {folder}", before["versions"], versions())
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


@contextmanager
def claimed(folder: Path, what: str, same: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[None]:
    """Keep a folder of many runs for one purpose, and others out of it meanwhile.

    What it is for is written down, or seen to be the same. Files that a killed process, or a worker that was
    killed, was just writing are removed at the beginning and at the end.

    Args:
        folder: Free, or claimed before.
        what: It holds, for the message.
        same: What must be equal for work in it to go on.
        settings: What was asked.

    Raises:
        InputError: If it is for something else, is used by another process, or cannot be written. One that is
            raised within, before anything was done, leaves no trace of the claim.
    """
    check_claim(folder, what, same)
    made = missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with held(folder), _without_parts(folder, folder / RUNS):
        check_claim(folder, what, same)  # another process may have been faster
        if not (folder / SETTINGS).exists():
            content = {"same": dict(same), "settings": dict(settings), "versions": versions()}
            write_json(folder / SETTINGS, content)
        try:
            yield
        except InputError:
            withdraw(folder, made)
            raise


@contextmanager
def _without_parts(*folders: Path) -> Iterator[None]:
    try:
        for folder in folders:
            remove_parts(folder)
        yield
    finally:
        for folder in folders:
            remove_parts(folder)


def check_claimed_versions(folder: Path, what: str) -> None:
    """Refuse to make more runs in a folder that was claimed with other versions than these.

    Raises:
        InputError: If one differs.
    """
    check_versions(f"{what[0].upper()}{what[1:]} in {folder}", claimed_versions(folder), versions())


def claimed_versions(folder: Path) -> dict[str, str]:
    """The versions that the runs in a folder were made with."""
    return dict(read_settings(folder)["versions"])


def check_claim(folder: Path, what: str, same: Mapping[str, Any]) -> None:
    """Refuse what `claimed` would; nothing is written.

    Raises:
        InputError: As `claimed` does.
    """
    if not (folder / SETTINGS).exists():
        check_free(folder)
        return
    check_writable(folder)
    there = read_settings(folder)
    before = there.get("same")
    if before is None:
        raise InputError(f"The folder {folder} holds a run, not {what}: choose another with --out.")
    if sentence := other_settings(folder, what, before, json.loads(json.dumps(dict(same))), there["settings"]):
        raise InputError(sentence)


def other_settings(
    folder: Path, what: str, there: Mapping[str, Any], here: Mapping[str, Any], options: Container[str]
) -> str:
    """What is said of a folder that was begun with other settings, in the words of a command line.

    Args:
        folder: Of what was begun.
        what: It holds.
        there: What it was begun with, by name; None, or no value, is an option that was not given.
        here: What was asked.
        options: The names that are options of the command.

    Returns:
        The sentence; nothing if nothing differs.
    """
    said = different_settings(there, here, options)
    return said and (
        f"The folder {folder} already holds {what} with other settings: {said}. Give the same, or choose another "
        "with --out."
    )


def different_settings(there: Mapping[str, Any], here: Mapping[str, Any], options: Container[str]) -> str:
    """What differs, for a sentence; nothing if nothing does. Arguments as for `other_settings`."""
    return "; ".join(
        f"{'--' + name.replace('_', '-') if name in options else name} is {_both(there.get(name), here.get(name))}"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    )


def _both(there: Any, here: Any) -> str:
    """Two values of a setting, as they are typed; as Python writes them if that is the same, as of 4 and "4"."""
    was, came = _typed(there), _typed(here)
    if was == came:
        was, came = repr(there), repr(here)
    return f"{was} there, and {came} came"


def _typed(value: Any) -> str:
    """A setting as it is typed."""
    if value is None:
        return "not given"
    if value in ("", []):
        return "nothing"
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def as_file_name(text: str) -> str:
    """The text, with a dash for whatever has no place in the name of a file."""
    return fitting("".join(letter if letter.isalnum() or letter in "_-@" else "-" for letter in text))


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
        self._made = missing(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(held(folder))
            check_same(folder, settings)  # another process may have been faster
            remove_parts(folder)
            if not (folder / SETTINGS).exists():
                write_json(folder / SETTINGS, {"settings": dict(settings), "versions": versions()})
            self.evaluations: list[dict[str, Any]] = []
            self.result = read_result(folder)
            self._lines = [] if self.result else lines_of(folder / EVALUATIONS, ANOTHER)
            self.recorded = _parsed(folder, self._lines)
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
        return _parsed(self.folder, lines_of(self.folder / EVALUATIONS, ANOTHER))

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`; one that is whole is never replaced by one of an interrupted run."""
        whole = not result.get("interrupted")
        if whole or read_result(self.folder) is None:
            write_json(self.folder / RESULT, result)
        if whole:
            self.journal.remove()

    def withdraw(self) -> None:
        """Leave no trace, if nothing was done."""
        withdraw(self.folder, self._made)

    def _refusal(self, place: int, why: str) -> NotThisRun:
        return NotThisRun(
            f"Line {place + 1} of {self.folder / EVALUATIONS} is not what this run comes to ({why}). It was "
            "changed, or other code made it, or the learner does not repeat itself: choose another folder "
            "with --out, or remove this one."
        )


def withdraw(folder: Path, made: Sequence[Path]) -> None:
    """Leave no trace of runs, if nothing was done; of the folders that were made for them the innermost first."""
    if [path.name for path in contents(folder)] == [SETTINGS]:
        (folder / SETTINGS).unlink()
        with suppress(OSError):  # somebody else has put something there
            for one in made:
                one.rmdir()


def missing(folder: Path) -> list[Path]:
    """The folder and those above it that do not exist, the innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def _parsed(folder: Path, lines: Sequence[str]) -> list[dict[str, Any]]:
    try:
        return [
            read_line(line, number, folder / EVALUATIONS, records.Line, ANOTHER)
            for number, line in enumerate(lines, start=1)
        ]
    except InputError as error:
        raise NotThisRun(*error.args) from error


def is_finished(folder: Path) -> bool:
    """Whether a run, or one of several seeds, is at its end."""
    return (folder / SUMMARY).exists() or read_result(folder) is not None


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result of a run that is at its end; None if there is none, or one of an interrupted run.

    Raises:
        InputError: If it cannot be read.
    """
    if not (folder / RESULT).exists():
        return None
    result: dict[str, Any] = read_file(folder / RESULT, dict[str, Any], ANOTHER)
    interrupted = "interrupted" in result
    read_file(folder / RESULT, records.Interrupted if interrupted else records.Result, ANOTHER)
    return None if interrupted else result


def read_settings(folder: Path) -> dict[str, Any]:
    """What `settings.json` holds.

    Raises:
        InputError: If it cannot be read.
    """
    return read_file(folder / SETTINGS, records.Settings, ANOTHER)


def versions() -> dict[str, str]:
    """Of what is used."""
    return {"dsfp_env": dsfp_env.__version__, **versions_of(*PACKAGES)}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
