"""Versions of what numbers come from: what was begun with some does not go on with others."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from dsfp_env.common.errors import InputError


def versions_of(*packages: str) -> dict[str, str]:
    """Of Python, and of packages that are installed."""
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def check_versions(
    what: str,
    before: Mapping[str, Any],
    now: Mapping[str, str],
    otherwise: str = "or choose another folder with --out",
) -> None:
    """Refuse to go on with other versions: one piece of work would be made of two.

    Args:
        what: Is to go on, for the message.
        before: What it was begun with, as `versions_of` tells.
        now: What is here.
        otherwise: What to do, if the former versions cannot be had.

    Raises:
        InputError: If one differs; it names the first.
    """
    for name, here in now.items():
        was = before.get(name, "of a version that is not told")
        if was != here:
            raise InputError(
                f"{what} was begun with {name} {was}, and this is {here}, whose numbers may differ: go on with "
                f"the former, {otherwise}."
            )
