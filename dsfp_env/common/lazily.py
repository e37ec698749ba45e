"""A package whose public names are fetched when the first of them is used: importing it alone takes no time.

The names are those that its module ``public_names`` imports. From the first use on they are ordinary attributes.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def public_name(package: str, name: str) -> Any:
    """For a package's ``__getattr__``.

    Args:
        package: Its name.
        name: Of the attribute.

    Raises:
        AttributeError: If there is no such name.
    """
    module = sys.modules[package]
    if name == "__all__":  # for `from package import *`
        public = importlib.import_module(f"{package}.public_names")
        return [one for one in vars(public) if _is_public(one)]
    if not name.startswith("__"):  # what else Python itself looks for is none
        names_of(package)
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def names_of(package: str) -> list[str]:
    """Fetch all; returns the names that the package has then, for its ``__dir__``."""
    module, public = sys.modules[package], importlib.import_module(f"{package}.public_names")
    for name, value in vars(public).items():
        if _is_public(name):
            vars(module).setdefault(name, value)
    return sorted(vars(module))


def _is_public(name: str) -> bool:
    return not name.startswith("_") and name != "annotations"
