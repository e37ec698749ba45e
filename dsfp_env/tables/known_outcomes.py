"""What evaluators that measure nothing have in common: no workers, no times, and one way they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.training.distillation import Fidelity

_HOW = ("precision", "threads", "kernels")  # fields of a fidelity that say how it is done, not what


class KnownOutcomes:
    """A base of evaluators.

    Attributes:
        kind: Of what they know outcomes from, in a word.
    """

    kind: str
    latency = None  # there are no times of forward passes
    timed = False
    min_filters = round_to = 1  # as tables and surveys are made

    def evaluate_many(
        self,
        plans: Iterable[Mapping[str, float]],
        seed: int | Sequence[int] = 0,
        workers: int | None = None,
    ) -> list[Outcome]:
        """Of many, in their order."""
        raise NotImplementedError

    def start_many(
        self,
        plans: Iterable[Mapping[str, float]],
        seed: int | Sequence[int] = 0,
        workers: int | None = None,
    ) -> Iterator[Outcome]:
        """As `evaluate_many`."""
        return iter(self.evaluate_many(plans, seed))

    def predicted_latency(self, ratios: Mapping[str, float]) -> float:
        """Raises InputError: there are no times."""
        raise InputError(
            f"A {self.kind} has no times: expected a budget of MACs or parameters, or backend='live'."
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> KnownOutcomes:
        return self  # what is known does not change

    def close(self) -> None:
        """Nothing is open."""


def same_work(asked: Fidelity, made: Fidelity) -> bool:
    """Whether a fidelity is that of outcomes, however it was done."""
    return replace(asked, **{name: getattr(made, name) for name in _HOW}) == made


def work_of(fidelity: Fidelity) -> dict[str, Any]:
    """What is done, without how."""
    return {name: value for name, value in asdict(fidelity).items() if name not in _HOW}


def check_made(kind: str, name: str, criterion: str, asked: Mapping[str, Any]) -> None:
    """Refuse what outcomes were not made with. A criterion's name alone is that criterion, whatever its options.

    Args:
        kind: ``"table"`` or ``"surrogate"``.
        name: Of its task.
        criterion: That it was made with.
        asked: ``criterion``, ``min_filters``, ``round_to`` and ``latency``, as the environment was told.

    Raises:
        InputError: If one is another.
    """
    made = {"criterion": criterion, "min_filters": 1, "round_to": 1, "latency": None}
    for argument, value in asked.items():
        if argument == "criterion" and isinstance(value, str) and value == criterion.partition("(")[0]:
            continue
        if type(value) not in (type(made[argument]), int) or value != made[argument]:
            raise InputError(
                f"The {kind} {name!r} was made with {argument}={made[argument]!r}, and {shortened(value)} was "
                "asked for: expected the same, or backend='live'."
            )
