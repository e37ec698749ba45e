"""Numbers in their ranges: said beside a parameter's type, and checked when one is given.

@ranges_checked
def __init__(self, env, *, step_size: Share = 0.5, memory: Count = 64) -> None: ...
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from dsfp_env.common.errors import InputError, shortened

Function = TypeVar("Function", bound=Callable[..., Any])

MOST_THREADS = max(256, os.cpu_count() or 1)  # of the CPU, in one process; with very many, torch crashes


@dataclass(frozen=True)
class Range:
    """Which finite numbers are fine, and how that is said."""

    words: str
    holds: Callable[[float], bool]


Share = Annotated[float, Range("from 0 to 1", lambda number: 0 <= number <= 1)]
Positive = Annotated[float, Range("above 0", lambda number: number > 0)]
NotNegative = Annotated[float, Range("0 or more", lambda number: number >= 0)]
Finite = Annotated[float, Range("that is finite", lambda number: True)]
Count = Annotated[int, Range("1 or more", lambda number: number >= 1)]
Several = Annotated[int, Range("2 or more", lambda number: number >= 2)]
WholeNumber = Annotated[int, Range("0 or more", lambda number: number >= 0)]
ShareBelowOne = Annotated[float, Range("in [0, 1)", lambda number: 0 <= number < 1)]
Batch = Annotated[
    int, Range("2 or more, since batch statistics of one image are none", lambda number: number >= 2)
]
Threads = Annotated[int, Range(f"from 1 to {MOST_THREADS}", lambda number: 1 <= number <= MOST_THREADS)]
ThreadsOrZero = Annotated[int, Range(f"from 0 to {MOST_THREADS}", lambda number: 0 <= number <= MOST_THREADS)]


def ranges_checked(method: Function) -> Function:
    """A method, such as a constructor, that refuses numbers out of the ranges that its annotations say."""

    @wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_numbers(f"option of {type(self).__name__}:", kwargs, method)
        return method(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def check_fields(settings: Any) -> None:
    """Refuse numbers and truth values of a dataclass that its annotations do not allow.

    Raises:
        InputError: For the first that is none, or out of its range.
    """
    kind = type(settings)
    for name, annotation in _hints(kind).items():
        value = getattr(settings, name)
        if annotation is bool and not isinstance(value, bool):
            raise InputError(f"{kind.__name__}.{name} is {shortened(value)}: expected True or False.")
        if expected := _expected(value, annotation):
            raise InputError(f"{kind.__name__}.{name} is {shortened(value)}: expected {expected}.")


def check_numbers(kind: str, given: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Refuse numbers that a function's annotations do not allow.

    Args:
        kind: What they are, for the message.
        given: By name of the parameter.
        function: Or a class.

    Raises:
        InputError: For the first that is no number, or out of its range.
    """
    hints = _hints(function.__init__ if inspect.isclass(function) else function)
    for name, value in given.items():
        if expected := _expected(value, hints.get(name)):
            raise InputError(f"The {kind} {name} = {shortened(value)} cannot be used: expected {expected}.")


def _hints(annotated: Any) -> dict[str, Any]:
    try:
        return get_type_hints(annotated, include_extras=True)
    except (NameError, AttributeError, TypeError):  # annotations of the user's own, for type checkers only
        return {}


def _expected(value: Any, annotation: Any) -> str | None:
    """What an annotation wants in words, if a value is something else."""
    if get_origin(annotation) is not Annotated:
        others = [one for one in get_args(annotation) if one is not type(None)]
        return _expected(value, others[0]) if value is not None and len(others) == 1 else None  # X | None
    kind, range_ = get_args(annotation)[:2]
    whole = kind is int
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if fits and is_finite(value) and range_.holds(value):
        return None
    return f"a {'whole ' * whole}number {range_.words}"


def is_finite(number: Any) -> bool:
    """Whether a number is finite, and none that no float can hold."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False
