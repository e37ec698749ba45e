"""Something chosen by name, with options if there are any: ``dsfp(kl=fisher, end=highest)``, ``fast(epochs=10)``.

A choice is one of some known names, or ``package.module:attribute`` of the user's own. Options are checked
against the signature of what was chosen: all parameters but the first are options; a ``Literal`` annotation tells
the values of one, ``int`` and ``float`` that it is a number; other annotations promise nothing.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, get_args, get_origin

from dsfp_env.common.errors import InputError, UnknownArgument, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def choose(kind: str, name: str, options: Mapping[str, Any], *, importable: bool = False) -> Any:
    """Return ``options[name]``, or refuse an unknown name with the nearest known one.

    Args:
        kind: What is being chosen, for the message ("task", "reward", ...).
        name: The name that came.
        options: The known names.
        importable: Whether ``"package.module:attribute"`` is accepted too.

    Raises:
        InputError: If the name is unknown, or the module or attribute does not exist.
    """
    if not isinstance(name, str):
        raise InputError(f"The {kind} is {shortened(name)}: expected one of: {', '.join(sorted(options))}.")
    if importable and ":" in name:
        return _import(kind, name)
    if name in options:
        return options[name]
    own = ", or 'package.module:attribute' for one of your own" if importable else ""
    known = ", ".join(sorted(options))
    raise InputError(
        f"Unknown {kind} {shortened(name)}.{did_you_mean(name, options)} Expected one of: {known}{own}."
    )


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A question that names the nearest of the known names, with a space before it; nothing if none is near."""
    near = difflib.get_close_matches(name[:100], options, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _import(kind: str, path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (Exception, SystemExit) as error:  # whatever a module of the user's own raises when it is imported
        raise_if_of_the_machine(error, f"importing the {kind} {path!r}", "what else is in memory")
        why = f"it ends with {error!r}" if isinstance(error, SystemExit) else str(error) or type(error).__name__
        raise InputError(
            f"Could not import the {kind} {path!r} ({why}). Expected 'package.module:attribute', "
            "importable from the current directory or installed."
        ) from error


def names_checked(
    function: Callable[Concatenate[frozenset[str], Parameters], Result],
) -> Callable[Parameters, Result]:
    """A function that refuses arguments of unknown names with the nearest known one.

    Args:
        function: Its first parameter, which callers do not see, is the names of the arguments that were given.
    """
    whole = inspect.signature(function)
    signature = whole.replace(parameters=list(whole.parameters.values())[1:])
    known = signature.parameters

    @wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        for name in kwargs:
            try:
                choose(f"argument of {function.__name__}:", name, known)
            except InputError as error:
                raise UnknownArgument(*error.args) from None
        given = frozenset(signature.bind(*args, **kwargs).arguments)
        return function(given, *args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


def parse_call(kind: str, text: str) -> tuple[str, dict[str, Any]]:
    """Take a call in text apart; a bare name is a call without options.

    Args:
        kind: What is being chosen, for the message ("criterion", "recipe", ...).
        text: Values are numbers, strings, booleans, None, or bare words, which count as strings.

    Returns:
        The name, and the options.

    Raises:
        InputError: If the text is no such call.
    """
    if not isinstance(text, str):
        raise InputError(f"The {kind} is {shortened(text)}: expected text such as 'name(option=value)'.")
    name, bracket, rest = text.partition("(")
    if not bracket:
        return text.strip(), {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not name.strip():
            raise ValueError("it is no call")
        options = {word.arg: _value(word.value) for word in call.keywords if word.arg}
        if len(options) < len(call.args) + len(call.keywords):
            raise ValueError("options are named, each once")
        return name.strip(), options
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:  # the last two: of nesting
        raise InputError(
            f"The {kind} {shortened(text)} cannot be read ({error}): expected a name, or a name with options such "
            "as 'name(option=value, other=2)'; a value that is neither a word nor a number is in quotes."
        ) from error


def _value(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)


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
