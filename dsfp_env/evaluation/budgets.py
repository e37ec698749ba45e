"""Budgets: how much of what the original network costs is allowed, in multiply-adds, parameters or time.

| argument            | of what                | example                           |
|---------------------|------------------------|-----------------------------------|
| ``macs_budget=``    | multiply-adds          | ``0.3``                           |
| ``params_budget=``  | parameters             | ``0.3``                           |
| ``latency_budget=`` | time of a forward pass | ``0.5``, ``"3.5ms"``, ``"800us"`` |

A number is a fraction of the original network's, in (0, 1). There is **one budget at a time**: agents see one
(``macs_budget`` of `observations`), the reward weighs by one, and yardsticks are brought to one equal cost.
Several that all bind are rare, since costs fall together: give the one that binds.

The time is that of `latency_model`: predicted from widths, so that it never rises with a ratio and differs between
no two equal questions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.ranges import is_finite
from dsfp_env.evaluation.interface import AnyEvaluator
from dsfp_env.evaluation.outcome import Outcome

MACS, PARAMS, LATENCY = KINDS = ("macs", "params", "latency")
WORDS = {MACS: "MACs", PARAMS: "parameters", LATENCY: "time of a forward pass"}
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}  # seconds


@dataclass(frozen=True)
class Budget:
    """What is allowed, of one kind of cost; a share of the original network's, or seconds.

    Raises:
        InputError: If the share is not in (0, 1), or the seconds are not positive.
    """

    of: str  # one of `KINDS`
    share: float | None = None  # of the original network's, in (0, 1)
    seconds: float | None = None  # of a forward pass, in place of a share

    def __post_init__(self) -> None:
        if self.share is not None and not 0 < self.share < 1:
            name = "time" if self.of == LATENCY else WORDS[self.of]
            raise InputError(
                f"The {name} budget is {shortened(self.share)}: expected a fraction of the original network's "
                f"{name} in (0, 1), for example 0.3."
            )
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise InputError(f"The time budget is {self.seconds} seconds: expected a time above 0.")

    def allowed(self, original: Outcome) -> float:
        """The share of the original network's cost that is allowed, in (0, 1).

        Raises:
            InputError: If it was given in seconds, and the original needs no more.
        """
        if self.share is not None:
            return self.share
        whole = _seconds_of(original)
        assert self.seconds is not None
        if self.seconds >= whole:
            raise InputError(
                f"The time budget is {self.seconds * 1e3:g} ms, and the original network takes "
                f"{whole * 1e3:.3g} ms as it is: expected less."
            )
        return self.seconds / whole

    def used(self, outcome: Outcome, original: Outcome) -> float:
        """What a network costs, relative to the original, in (0, 1]."""
        if self.of == LATENCY:
            return _seconds_of(outcome) / _seconds_of(original)
        return outcome.relative_macs if self.of == MACS else outcome.relative_params


def budget_from(
    macs_budget: float | Budget | None = None,
    params_budget: float | None = None,
    latency_budget: float | str | None = None,
) -> Budget | None:
    """The budget that these arguments mean; None if none is given.

    Raises:
        InputError: If more than one is given, or one is not what was expected.
    """
    given = {MACS: macs_budget, PARAMS: params_budget, LATENCY: latency_budget}
    names = [kind for kind, value in given.items() if value is not None]
    if len(names) > 1:
        raise InputError(
            f"{' and '.join(f'{name}_budget' for name in names)} were given: expected one budget, the one that "
            "binds."
        )
    if not names:
        return None
    (kind,) = names
    value: Any = given[kind]
    if isinstance(value, Budget):
        return value
    if kind == LATENCY and isinstance(value, str):
        return _parse_latency(value)
    if not isinstance(value, Real) or isinstance(value, bool):
        raise InputError(f"{kind}_budget is {shortened(value)}: expected a number in (0, 1), for example 0.3.")
    share: Any = value  # what no float can hold is refused there
    return Budget(kind, float(share) if is_finite(share) else share)


def cost_of(evaluator: AnyEvaluator, kind: str) -> Callable[[Mapping[str, float]], float]:
    """What a plan (ratios in percent by agent) costs, without measuring it: MACs, parameters, or seconds."""
    if kind == LATENCY:
        return evaluator.predicted_latency
    return lambda plan: getattr(evaluator.costs(plan), kind)


def whole_cost(original: Outcome, kind: str) -> float:
    """What the original network costs, of this kind."""
    return _seconds_of(original) if kind == LATENCY else float(getattr(original, kind))


def relative_cost_of(evaluator: AnyEvaluator, kind: str) -> Callable[[Mapping[str, float]], float]:
    """As `cost_of`, as a fraction of what the original network costs."""
    cost, whole = cost_of(evaluator, kind), whole_cost(evaluator.original, kind)
    return lambda plan: cost(plan) / whole


def _parse_latency(text: str) -> Budget:
    found = re.fullmatch(r"\s*([0-9.]+(?:e-?[0-9]+)?)\s*(us|ms|s)?\s*", text, re.IGNORECASE)
    try:
        if found is None:
            raise ValueError
        number, unit = float(found[1]), found[2]
    except ValueError:
        raise InputError(
            f"The time budget {text!r} cannot be read: expected a share of the original network's time, such as "
            "0.5, or a time with its unit, such as 3.5ms or 800us."
        ) from None
    return Budget(LATENCY, seconds=number * _UNITS[unit.lower()]) if unit else Budget(LATENCY, number)


def _seconds_of(outcome: Outcome) -> float:
    if outcome.latency is None:
        raise InputError(
            "A budget of time needs predicted times: give the evaluator or the environment "
            "latency=dsfp_env.LatencyPredictor()."
        )
    return outcome.latency
