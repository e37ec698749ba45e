"""Libraries that only some need, imported when they are."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from dsfp_env.common.errors import InputError


def import_for(who: str, library: str) -> Any:
    """Import a library for somebody, or say how to install it.

    Args:
        who: Who needs it, for the message: "The agent 'tpe'".
        library: Its name, which is also what pip calls it.

    Raises:
        InputError: If it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise InputError(
            f"{who} needs the library {library}, which cannot be imported ({error}): pip install {library}."
        ) from error


def is_installed(library: str) -> bool:
    """Whether a library is there; it is not imported."""
    if library in sys.modules:
        return sys.modules[library] is not None
    return importlib.util.find_spec(library) is not None


def check_installed(who: str, library: str) -> None:
    """Refuse a library that is not there; it is not imported.

    Args:
        who: As for `import_for`.
        library: Likewise.

    Raises:
        InputError: If it is not installed.
    """
    if not is_installed(library):
        raise InputError(f"{who} needs the library {library}, which is not installed: pip install {library}.")
