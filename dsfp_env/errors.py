"""How bad input is refused: one exception, and one way to look a name up.

A message says what was expected, what came, for which agent or layer, and what to do.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any


class InputError(ValueError):
    """The caller's input cannot be used; the message is a sentence the caller can act on."""


def check_ranges(settings: object, expected: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse settings that are out of their ranges.

    Args:
        settings: A dataclass.
        expected: Field -> whether its value is fine, and what is, in words.

    Raises:
        InputError: For the first one that is not fine.
    """
    for name, (fine, range_) in expected.items():
        if not fine:
            came = getattr(settings, name)
            raise InputError(f"{type(settings).__name__}.{name} is {came}: expected {range_}.")


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
    if importable and ":" in str(name):
        return _import(kind, name)
    if name in options:
        return options[name]
    near = difflib.get_close_matches(str(name), options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    own = ", or 'package.module:attribute' for one of your own" if importable else ""
    raise InputError(f"Unknown {kind} {name!r}.{hint} Expected one of: {', '.join(sorted(options))}{own}.")


def _import(kind: str, path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"Could not import the {kind} {path!r} ({error}). Expected 'package.module:attribute', "
            "importable from the current directory or installed."
        ) from error
