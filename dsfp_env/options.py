"""A function with some of its options set, checked against its signature.

All parameters but the first are options. A ``Literal`` annotation tells the values of one, ``int`` and ``float``
that it is a number; other annotations promise nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, get_args, get_origin

from dsfp_env.errors import InputError, choose


def with_options(
    kind: str, name: str, function: Callable[..., Any], options: Mapping[str, Any]
) -> Callable[..., Any]:
    """A `functools.partial` of a function with its options; the function itself, if there are none.

    Args:
        kind: What the function is, for the message ("criterion", ...).
        name: What it is called, for the message.
        function: The function.
        options: By name.

    Raises:
        InputError: If it is no function, or an option or the value of one is unknown.
    """
    if not callable(function):
        raise InputError(f"The {kind} {name!r} is of type {type(function).__name__}: expected a function.")
    if not options:
        return function
    accepted, any_name = _accepted(function)
    checked = dict(options)
    for option, value in options.items():
        if not accepted and not any_name:
            raise InputError(f"The {kind} {name!r} takes no options, and {option} = {value!r} came.")
        if option in accepted or not any_name:
            annotation = choose(f"{name!r} option", option, accepted)
            checked[option] = _checked(f"{name!r} option {option!r}", value, annotation)
    return partial(function, **checked)


def _accepted(function: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """Option -> annotation, and whether options of any other name are accepted too."""
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError):  # annotations that only a type checker can see
        signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    accepted = {parameter.name: parameter.annotation for parameter in parameters if parameter.kind in named}
    return accepted, any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)


def _checked(what: str, value: Any, annotation: Any) -> Any:
    """A value, if it is one that the annotation allows."""
    if get_origin(annotation) is Literal:
        return choose(f"value of {what}:", str(value), {str(one): one for one in get_args(annotation)})
    if annotation is int and type(value) is not int:
        raise InputError(f"The {what} came as {value!r}: expected a whole number.")
    if annotation is float and type(value) not in (int, float):
        raise InputError(f"The {what} came as {value!r}: expected a number.")
    return value
