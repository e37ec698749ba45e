"""What long work has in common when it is started from the command line: it can be stopped, and goes on later."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import tyro

from dsfp_env.common.errors import InputError

Settings = TypeVar("Settings")

REFUSED, INTERRUPTED = 2, 130  # exit statuses; the second is a shell's for a program ended by Ctrl-C


def run(
    settings: type[Settings],
    work: Callable[[Settings], None],
    description: str | None,
    arguments: Sequence[str] | None = None,
) -> int:
    """Read settings from the command line, and do resumable work; returns the exit status.

    Args:
        settings: A dataclass.
        work: Does it; raises InputError if the settings cannot be used.
        description: For ``--help``.
        arguments: Those of the command line, unless given.
    """
    try:
        work(tyro.cli(settings, description=description, args=arguments))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0
