"""Settings as a command's help shows them: the command's own options first, then a group for each base class.

A group is called as its class: the fields of ``TaskOptions`` are "task options". What the help says of a field is
the string below it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import Field, field, fields, make_dataclass
from itertools import pairwise
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import tyro

Settings = TypeVar("Settings")

_WORDS = {str: "STR", int: "INT", float: "FLOAT"}  # for a value that may be left out


def parse(settings: type[Settings], default: Settings | None = None, **how: Any) -> Settings:
    """Read settings from a command line.

    Args:
        settings: A dataclass.
        default: Has what is not said; unless given, the class has.
        **how: As for `tyro.cli`.

    Raises:
        SystemExit: After ``--help``, and for what is no option.
    """
    hints, texts = get_type_hints(settings, include_extras=True), _texts(settings)
    groups: dict[type[Any], list[Any]] = {one: [] for one in settings.__mro__}
    for one in fields(settings):  # type: ignore[arg-type]
        shown = _shown(hints[one.name], texts.get(one.name, ""))
        option = one.name, Annotated[hints[one.name], shown], _default(one, default)
        groups[_origin(settings, one.name)].append(option)
    own = groups.pop(settings)
    parts = {_title(one): _record(options) for one, options in groups.items() if options}
    whole = _record([*own, *parts.items()])
    said = dict(vars(tyro.cli(whole, config=[tyro.conf.OmitArgPrefixes], **how)))
    for title in parts:
        said |= vars(said.pop(title))
    return settings(**said)


def _shown(hint: Any, text: str) -> Any:
    """How the help shows an option; of one that may be left out, it does not tell that this is None."""
    kinds = get_args(hint)
    if NoneType not in kinds:
        return tyro.conf.arg(help=text)
    return tyro.conf.arg(help=text, metavar=_WORDS.get(kinds[0]), help_behavior_hint=_unless_none)


def _default(one: Field[Any], given: Any) -> Any:
    """For a field of a dataclass: as before, but for what was given."""
    if given is not None:
        return field(default_factory=lambda: getattr(given, one.name))
    return field(default=one.default, default_factory=one.default_factory)


def _unless_none(default: str) -> str:
    return "" if default == "None" else f"(default: {default})"


def _record(options: Iterable[Any]) -> type[Any]:
    """A dataclass with these fields."""
    made = make_dataclass("Options", options, kw_only=True)
    made.__doc__ = ""  # a group has a title only
    return made


def _origin(settings: type[Any], name: str) -> type[Any]:
    """The base class that a field comes from, which may have another default there."""
    return next(one for one in reversed(settings.__mro__) if name in inspect.get_annotations(one))


def _title(one: type[Any]) -> str:
    return one.__name__.removesuffix("Options").removesuffix("Settings").lower()


def _texts(settings: type[Any]) -> dict[str, str]:
    """Name of a field -> the string below it."""
    texts: dict[str, str] = {}
    for one in reversed(settings.__mro__[:-1]):
        try:
            source = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError):  # made without a file
            continue
        for statement, after in pairwise(source.body[0].body):  # type: ignore[attr-defined]
            match statement, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    texts[name] = " ".join(text.split())
    return texts
