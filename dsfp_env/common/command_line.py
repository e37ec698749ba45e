"""What commands have in common: settings from the command line, a sentence for what is wrong, an end by Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from dsfp_env.common.errors import InputError

Settings = TypeVar("Settings")

REFUSED, INTERRUPTED = 2, 130  # exit statuses; the second is a shell's for a program ended by Ctrl-C


def run(
    settings: type[Settings],
    work: Callable[[Settings], Any],
    description: str | None,
    arguments: Sequence[str] | None = None,
    stopped: str = "stopped; the same command goes on from here",
) -> int:
    """Read settings from the command line, and work; returns the exit status.

    Args:
        settings: A dataclass.
        work: Raises InputError if the settings cannot be used, and may raise KeyboardInterrupt with a sentence of
            its own.
        description: For ``--help``.
        arguments: Those of the command line, unless given.
        stopped: What is said after Ctrl-C.
    """
    sys.path.insert(0, os.getcwd())  # where package.module:attribute is looked for first
    try:
        work(tyro.cli(settings, prog=_program(), description=description, args=arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt as error:
        print(error if error.args else stopped, file=sys.stderr)
        return INTERRUPTED
    return 0


def _program() -> str | None:
    """How this program was started, if as a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else None
