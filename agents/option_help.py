"""The options of a learner in words: name, type, range, default, and a line of its docstring."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

_GOOGLE, _SPHINX = re.compile(r"^\s*\*{0,2}(\w+): (.*)"), re.compile(r"^\s*:param (\w+): (.*)")


class Option(NamedTuple):
    """One option."""

    name: str
    kind: str  # of value, and its range
    default: str
    text: str  # what it does


def options_of(made: Callable[..., Any], names: Iterable[str], fitted: Iterable[str] = ()) -> list[Option]:
    """The options of a learner, in the order of its constructor.

    Args:
        made: Its class.
        names: Of its options.
        fitted: Those whose default depends on the budget of evaluations.
    """
    made = inspect.unwrap(made)  # of a class of the user's own
    parameters, texts = inspect.signature(made).parameters, _texts(made)
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made, include_extras=True)
    except (NameError, AttributeError, TypeError):  # annotations for type checkers only
        hints = {}
    options = []
    for name in names:
        default = parameters[name].default
        said = "required" if default is inspect.Parameter.empty else repr(default)
        said = "fits the budget" if name in fitted else said
        options.append(Option(name, _kind(hints.get(name)), said, texts.get(name, "")))
    return options


def as_text(options: Sequence[Option], width: int = 100) -> str:
    """A paragraph for each."""
    lines = []
    for option in options:
        lines.append(f"  {option.name}: {', '.join(filter(None, (option.kind, f'default {option.default}')))}")
        lines += textwrap.wrap(option.text, width, initial_indent="      ", subsequent_indent="      ")
    return "\n".join(lines)


def first_sentence(made: Any) -> str:
    """What a docstring begins with."""
    return (inspect.getdoc(made) or "").split("\n\n")[0].replace("\n", " ")


def _kind(hint: Any) -> str:
    """A type and its range in words, as in ``number from 0 to 1``."""
    if hint is None or hint is Any or hint is inspect.Parameter.empty:
        return ""
    if hasattr(hint, "__metadata__"):
        base, range_ = get_args(hint)[:2]
        return f"{_kind(base)} {getattr(range_, 'words', '')}".strip()
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    if len(get_args(hint)) > 1 and type(None) in get_args(hint):
        return " or ".join(_kind(one) if one is not type(None) else "None" for one in get_args(hint))
    words = {int: "whole number", float: "number", str: "text", bool: "True or False"}
    return words.get(hint, getattr(hint, "__name__", str(hint)).replace("typing.", ""))


def _texts(made: Any) -> dict[str, str]:
    """Name of a parameter -> what the docstring says of it; Google's style, or Sphinx's."""
    doc = "\n".join(filter(None, (inspect.getdoc(made), inspect.getdoc(getattr(made, "__init__", None)))))
    texts: dict[str, list[str]] = {}
    indent, words = 0, None
    for line in doc.splitlines():
        found = _GOOGLE.match(line) or _SPHINX.match(line)
        deeper = len(line) - len(line.lstrip()) > indent
        if found and not (words is not None and deeper and not _SPHINX.match(line)):
            words = texts.setdefault(found[1], [])
            words.append(found[2])
            indent = len(line) - len(line.lstrip())
        elif words is not None and line.strip() and deeper:
            words.append(line.strip())
        else:
            words = None
    return {name: " ".join(" ".join(parts).split()) for name, parts in texts.items()}
