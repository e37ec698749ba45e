"""Runs in the books of other programs: ``--track tensorboard``, ``wandb``, ``mlflow`` or ``trackio``.

A tracker is told the settings, then, by number of the evaluation, the reward, the best so far, accuracy and costs,
and what the learners say of their learning; in the end the result. It changes no number of a run, and one that
fails is left out from then on, with a warning. A run that goes on is told from its beginning.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from agents.callbacks import Callback
from agents.loop import Evaluation
from dsfp_env.common.choices import choose
from dsfp_env.common.optional import import_for

PROJECT = "dsfp_env"
SHOWN = ("accuracy", "relative_macs", "macs", "params")  # of what agents are told


class Book(Protocol):
    """Where numbers go."""

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """Some numbers by name, at a number of evaluations."""

    def close(self, numbers: Mapping[str, float]) -> None:
        """The last numbers; nothing if the run was stopped."""


OpenBook = Callable[[Any, Path, Mapping[str, Any]], Book]
"""(library, folder of the run, settings) -> a book."""


class TensorBoard:
    """Event files in ``tensorboard`` below the run folder; those of an earlier start of the run are overridden."""

    def __init__(self, library: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=0)
        text = "\n".join(f"    {name}: {value}" for name, value in settings.items())  # indented: as it stands
        self._writer.add_text("settings", text)

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """As scalars."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)

    def close(self, numbers: Mapping[str, float]) -> None:
        """As scalars, at step 0."""
        self.write(numbers, 0)
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, or of what has its interface; one that goes on has the same id."""

    def __init__(self, library: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        key = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        self._run = library.init(
            project=PROJECT, name=folder.name, id=key, resume="allow", dir=str(folder), config=dict(settings)
        )

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """As a step of the history."""
        self._run.log(dict(numbers), step=step)

    def close(self, numbers: Mapping[str, float]) -> None:
        """As the summary."""
        self._run.summary.update(dict(numbers))
        self._run.finish()


class Trackio:
    """A run of Trackio."""

    def __init__(self, library: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        self._library = library
        library.init(project=PROJECT, name=folder.name, config=dict(settings))

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """As a step."""
        self._library.log(dict(numbers), step=step)

    def close(self, numbers: Mapping[str, float]) -> None:
        """As one more step."""
        if numbers:
            self._library.log(dict(numbers))
        self._library.finish()


class MLflow:
    """A run of MLflow."""

    def __init__(self, library: Any, folder: Path, settings: Mapping[str, Any]) -> None:
        self._library = library
        library.set_experiment(PROJECT)
        library.start_run(run_name=folder.name)
        library.log_params({name: str(value) for name, value in settings.items()})

    def write(self, numbers: Mapping[str, float], step: int) -> None:
        """As metrics."""
        self._library.log_metrics(dict(numbers), step=step)

    def close(self, numbers: Mapping[str, float]) -> None:
        """As metrics without a step; a run that was stopped is marked so."""
        if numbers:
            self._library.log_metrics(dict(numbers))
        self._library.end_run("FINISHED" if numbers else "KILLED")


TRACKERS: dict[str, OpenBook] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def library_of(name: str) -> Any:
    """The library of a tracker.

    Raises:
        InputError: If there is no such tracker, or the library is not installed.
    """
    choose("tracker", name, TRACKERS)
    return import_for(f"--track {name}", name)


class Tracking(Callback):
    """Writes a run into a book.

    Args:
        name: In `TRACKERS`.
        folder: Of the run.

    Raises:
        InputError: If there is no such tracker, or its library is not installed.

    Warns:
        UserWarning: If the library fails; nothing more is written then.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._library, self._folder = name, library_of(name), folder
        self._book: Book | None = None
        self._best = float("-inf")

    def on_start(self, settings: Mapping[str, Any]) -> None:
        """Open the book."""

        def opened() -> None:
            self._book = TRACKERS[self._name](self._library, self._folder, settings)

        self._tried(opened)

    def on_evaluation(self, evaluation: Evaluation, learned: Mapping[str, float] | None) -> None:
        """Write numbers of an evaluation; those of learners as ``learned/...``."""
        shared = next(iter(evaluation.infos.values()))
        self._best = max(self._best, evaluation.score)
        numbers = {"reward": evaluation.score, "best_reward": self._best}
        numbers |= {name: float(shared[name]) for name in SHOWN if name in shared}
        numbers |= {
            f"ratios/{agent}": info["ratio"] for agent, info in evaluation.infos.items() if "ratio" in info
        }
        numbers |= {f"learned/{name}": float(number) for name, number in (learned or {}).items()}
        if (book := self._book) is not None:
            self._tried(lambda: book.write(numbers, evaluation.number))

    def on_end(self, result: Mapping[str, Any] | None) -> None:
        """Write the result's numbers, and close the book."""
        numbers = numbers_of(result or {})
        if (book := self._book) is not None:
            self._tried(lambda: book.close(numbers))
        self._book = None

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever the library raises
            self._book = None
            warnings.warn(
                f"--track {self._name} failed ({type(error).__name__}: {error}): the run goes on without it.",
                stacklevel=2,
            )


def numbers_of(result: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result by name, as in ``best/test_accuracy``; none of one without entries."""
    entries = {
        name: one for name, one in {**result, **result.get("baselines", {})}.items() if "reward" in _keys(one)
    }
    return {
        f"result/{name}/{what}": float(number)
        for name, entry in entries.items()
        for what, number in entry.items()
        if isinstance(number, (int, float))
    }


def _keys(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that cannot be used.

    Raises:
        InputError: If there is none of that name, or its library is not installed.
    """
    if name is not None:
        library_of(name)
