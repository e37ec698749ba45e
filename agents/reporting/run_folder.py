"""The folder that a run leaves: what was asked, what was tried, and what came out.

| file                 | content                                                                  |
|----------------------|--------------------------------------------------------------------------|
| `settings.json`      | the settings, and the versions of what was used                          |
| `evaluations.jsonl`  | one line per evaluation, written as it happens                           |
| `result.json`        | the original, best and greedy networks and the baselines                 |
| `pruned.safetensors` | the best network; `dsfp_env.load_pruned` reads it                        |
| `summary.png`        | a picture of the run                                                     |

Files other than `evaluations.jsonl` appear whole or not at all. Nothing in `result.json` depends on the clock or
on the place: equal settings give an equal file.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dsfp_env
from agents.loop import Evaluation
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole

PACKAGES = ("torch", "torchvision", "numpy", "gymnasium", "pettingzoo", "scikit-learn")


def check_free(folder: Path) -> None:
    """Refuse a folder that holds files or cannot be written; nothing is created.

    Raises:
        InputError: If a run cannot be written there.
    """
    if folder.is_dir() and any(folder.iterdir()):
        what = "already holds a run" if (folder / "settings.json").exists() else "is not empty"
        raise InputError(f"The folder {folder} {what}: choose another with --out, or remove it first.")
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(
            f"The folder {folder} cannot be written ({place} is {'read-only' if place.is_dir() else 'a file'}): "
            "choose another with --out."
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
    path = folder / "settings.json"
    if not path.exists():
        check_free(folder)
        write_json(path, {"same": dict(same), "settings": dict(settings), "versions": versions()})
        return
    before = json.loads(path.read_text()).get("same")
    if before != same:
        raise InputError(
            f"The folder {folder} holds {what} with {before}, and {same} was asked for: choose another with --out."
        )


def as_file_name(text: str) -> str:
    """The text, with a dash for whatever has no place in the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "_-@" else "-" for letter in text)


class RunFolder:
    """Writes the files of one run.

    Args:
        folder: Must be free, see `check_free`.
        settings: What was asked.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        check_free(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.evaluations: list[dict[str, Any]] = []
        self._write_json("settings.json", {"settings": dict(settings), "versions": versions()})

    def add(self, evaluation: Evaluation) -> None:
        """Append one evaluation."""
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
        self.evaluations.append(line)
        with open(self.folder / "evaluations.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def best_so_far(self) -> dict[str, Any]:
        """The first line with the highest reward."""
        return max(self.evaluations, key=lambda line: line["reward"])

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write `result.json`."""
        self._write_json("result.json", result)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_json(self.folder / name, content)


def versions() -> dict[str, str]:
    """Of what is used."""
    ours = {"dsfp_env": dsfp_env.__version__, "python": platform.python_version()}
    return ours | {package: version(package) for package in PACKAGES}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))
