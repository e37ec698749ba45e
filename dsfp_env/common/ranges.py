"""Numbers in their ranges: said beside a parameter's type, and checked when one is given.

@ranges_checked
def __init__(self, env, *, step_size: Share = 0.5, memory: Count = 64) -> None: ...
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from numbers import Integral, Real
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from dsfp_env.common.errors import InputError

Function = TypeVar("Function", bound=Callable[..., Any])


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


def ranges_checked(method: Function) -> Function:
    """A method, such as a constructor, that refuses numbers out of the ranges that its annotations say."""

    @wraps(method)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        check_numbers(f"option of {type(self).__name__}:", kwargs, method)
        return method(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def check_numbers(kind: str, given: Mapping[str, Any], function: Callable[..., Any]) -> None:
    """Refuse numbers that a function's annotations do not allow.

    Args:
        kind: What they are, for the message.
        given: By name of the parameter.
        function: Or a class.

    Raises:
        InputError: For the first that is no number, or out of its range.
    """
    try:
        hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    except (NameError, AttributeError, TypeError):  # annotations of the user's own, for type checkers only
        return
    for name, value in given.items():
        _check(f"{kind} {name} = {value!r}", value, hints.get(name))


def _check(what: str, value: Any, annotation: Any) -> None:
    if get_origin(annotation) is not Annotated:
        others = [one for one in get_args(annotation) if one is not type(None)]
        if value is not None and len(others) == 1:  # X | None
            _check(what, value, others[0])
        return
    kind, range_ = get_args(annotation)[:2]
    whole = kind is int
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not fits or not math.isfinite(value) or not range_.holds(value):
        raise InputError(f"The {what} cannot be used: expected a {'whole ' * whole}number {range_.words}.")
