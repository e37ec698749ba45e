"""Libraries that only some need, imported when they are."""

from __future__ import annotations

import importlib
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
