"""What a run has measured, noted at once: what was stopped is told again when the run goes on, not measured again.

A line for each answer: what was asked, what came, and a checksum of both. A last line that was cut short counts as
never written; any other that does not match its checksum is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.reporting.records import NOTED, Noted
from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import append_line
from dsfp_env.common.json_files import lines_of, read_line
from dsfp_env.common.schemas import check_value
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import Plan

ANOTHER = "choose another folder with --out, or remove this one"
OUTCOME = "outcome"  # a question: what accuracy, in [0, 1], a plan comes to with a seed


class NotThisRun(InputError):
    """What a folder records is not what this run does."""


class Journal:
    """Answers by what was asked, in memory and in a file. Questions and answers are what JSON can say.

    Args:
        path: The file; nobody else writes to it.

    Raises:
        NotThisRun: If a line does not match its checksum.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Any] = {}
        for number, line in enumerate(lines_of(path, ANOTHER), start=1):
            question, answer = _read(line, path, number)
            self._known[json.dumps(question)] = answer

    def note(self, question: Sequence[Any], answer: Any) -> None:
        """Write an answer down, unless it is known."""
        key = json.dumps(question)
        if key not in self._known:
            text = json.dumps([question, answer])
            append_line(self._path, json.dumps({"noted": [question, answer], "checksum": _checksum(text)}))
            self._known[key] = answer

    def once(self, question: Sequence[Any], work: Callable[[], Any]) -> Any:
        """The answer that is known, or else that of the work, which is noted."""
        key = json.dumps(question)
        if key not in self._known:
            self.note(question, work())
        return self._known[key]

    def note_outcome(self, plan: Mapping[str, float], seed: int, outcome: Outcome) -> None:
        """Write the accuracy of an evaluation down, unless it is known."""
        self.note([OUTCOME, dict(plan), seed], outcome.accuracy)

    def noting(self, plans: Iterable[Plan], seed: int, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Pass outcomes on, each noted when it comes.

        Args:
            plans: Ratios in percent by agent.
            seed: That all were evaluated with.
            outcomes: Of these plans, in their order.
        """
        for plan, outcome in zip(plans, outcomes, strict=True):
            self.note_outcome(plan, seed, outcome)
            yield outcome

    def tell(self, evaluator: Evaluator) -> None:
        """Let an evaluator remember all outcomes."""
        for key, answer in self._known.items():
            what, *asked = json.loads(key)
            if what == OUTCOME:
                plan, seed = asked
                try:
                    evaluator.remember(plan, seed, answer)
                except InputError as error:
                    raise NotThisRun(f"{self._path} is of another network ({error}): {ANOTHER}.") from error

    def remove(self) -> None:
        """Remove the file: the run is at its end."""
        self._path.unlink(missing_ok=True)


def _read(line: str, path: Path, number: int) -> tuple[Any, Any]:
    """Question and answer."""
    try:
        noted = read_line(line, number, path, Noted, ANOTHER)
        right = noted["checksum"] == _checksum(json.dumps(noted["noted"]))
    except InputError:
        right = False
    if not right:
        raise NotThisRun(
            f"Line {number} of {path} does not match its checksum: it was changed since it was written. Choose "
            "another folder with --out, or remove this one."
        )
    question, answer = noted["noted"]
    what = f"Line {number} of {path}"
    try:
        check_value([question, answer], choose("kind of question", (*question, None)[0], NOTED), what)
    except InputError as error:
        raise NotThisRun(f"{what} cannot be used ({error}): {ANOTHER}.") from error
    return question, answer


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
