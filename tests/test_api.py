"""What users call, and with which arguments, is what api.txt beside this says: a change of it is seen in review.

``python tests/test_api.py`` writes the file anew, from the code.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from enum import Enum
from functools import cached_property
from pathlib import Path

FILE = Path(__file__).with_name("api.txt")
LISTED = ("dsfp_env", "agents")  # modules that say what is public
WHOLE = ("dsfp_env.networks", "dsfp_env.wrappers", "dsfp_env.testing", "dsfp_env.toy", "dsfp_env.export")
ON_USE = {"dsfp_env.wrappers": ["LayerByLayerVecEnv", "ParallelVecEnv"]}  # imported when it is asked for
WIDTH = 115


class Written:
    """Text that signatures show as it is."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


def of_ours(value):
    return getattr(value, "__module__", "").split(".")[0] in LISTED


def public_names(module):
    """Those that a module lists; without a list, what it, or a part of it, defines."""
    if module.__name__ in LISTED:
        return sorted(module.__all__)
    defined = [name for name, value in vars(module).items() if _defines(module, value)]
    return sorted(name for name in {*defined, *ON_USE.get(module.__name__, [])} if not name.startswith("_"))


def _defines(module, value):
    return f"{getattr(value, '__module__', '')}.".startswith(f"{module.__name__}.")


def annotation(value):
    """A type as it is written in the code."""
    if isinstance(value, typing.ForwardRef):  # what a named tuple makes of it
        value = value.__forward_arg__
    return value if isinstance(value, str) else getattr(value, "__name__", repr(value))


def default(value):
    """A default as it is written in the code; in place of addresses there are names."""
    if isinstance(value, type | types.FunctionType):
        return value.__qualname__
    if isinstance(value, Enum):
        return f"{type(value).__name__}.{value.name}"
    return f"<{type(value).__qualname__}>" if " at 0x" in repr(value) else repr(value)


def shown(parameter):
    """A parameter: name, type, default."""
    if parameter.annotation is not parameter.empty:
        parameter = parameter.replace(annotation=Written(annotation(parameter.annotation)))
    if parameter.default is not parameter.empty:
        parameter = parameter.replace(default=Written(default(parameter.default)))
    return str(parameter)


def call(name, function, returns=True):
    """How something is called, in a line, or in a line for each parameter."""
    signature = inspect.signature(function)
    parts, bare_star = [], True
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            bare_star = False
        if parameter.kind is parameter.KEYWORD_ONLY and bare_star:
            parts.append("*")
            bare_star = False
        parts.append(shown(parameter))
    end = ")"
    if returns and signature.return_annotation is not signature.empty:
        end += f" -> {annotation(signature.return_annotation)}"
    line = f"{name}({', '.join(parts)}{end}"
    return (
        line if len(line) <= WIDTH else "\n    ".join([f"{name}(", *(f"{part}," for part in parts)]) + f"\n{end}"
    )


def members(cls):
    """What a class and those of ours that it comes from have, by name; its own before theirs."""
    found = {}
    for one in reversed([base for base in cls.__mro__ if of_ours(base)]):
        found |= vars(one)
    return {name: found[name] for name in sorted(found)}


def of_class(name, cls):
    """Its bases, how it is made, its methods and its properties."""
    bases = [base.__name__ for base in cls.__bases__ if base not in (object, typing.Protocol, typing.Generic)]
    lines = [f"class {name}({', '.join(bases)})" if bases else f"class {name}"]
    if {"__init__", "__new__"} & members(cls).keys() and not getattr(cls, "_is_protocol", False):
        lines.append(call(name, cls, returns=False))
    for member, value in members(cls).items():
        if member.startswith("_"):
            continue
        if isinstance(value, property | cached_property):
            getter = value.fget if isinstance(value, property) else value.func
            lines.append(f"{name}.{member}: {annotation(inspect.signature(getter).return_annotation)}")
        elif isinstance(value, types.FunctionType | classmethod | staticmethod):
            lines.append(call(f"{name}.{member}", getattr(cls, member)))
    return lines


def lines_of(name, value):
    if isinstance(value, types.ModuleType):
        return [f"module {name}"]
    if isinstance(value, type):
        return of_class(name, value)
    return [call(name, value) if callable(value) else f"{name}: {type(value).__name__}"]


def described():
    """All of it, as text."""
    blocks = []
    for name in (*LISTED, *WHOLE):
        module = importlib.import_module(name)
        for public in public_names(module):
            blocks.append("\n".join(lines_of(f"{name}.{public}", getattr(module, public))))
    return "\n\n".join(blocks) + "\n"


def test_the_api_is_the_one_that_was_agreed():
    assert described() == FILE.read_text(), (
        "What users call has changed. If that is meant, run `python tests/test_api.py`, look at what changes in "
        "tests/api.txt, and say it in CHANGELOG.md. What users may rely on stays for a while: see CONTRIBUTING.md."
    )


def test_changes_would_be_seen():
    class Before:
        __module__ = "dsfp_env"

        def verb(self, one: int, *, two: str = "a") -> None: ...

    class After:
        __module__ = "dsfp_env"

        def verb(self, one: int, two: str = "a") -> None: ...

    assert of_class("C", Before) == ["class C", "C.verb(one: int, *, two: str = 'a') -> None"]
    assert of_class("C", After)[1] == "C.verb(one: int, two: str = 'a') -> None"


if __name__ == "__main__":
    FILE.write_text(described())
