"""A part of the work, as a command line says it: ``1/2`` is the first of two."""

from __future__ import annotations

from dsfp_env.common.errors import InputError, shortened

_DIGITS = 9  # of a number of parts


def part_of(text: str) -> tuple[int, int]:
    """Which part, and of how many.

    Raises:
        InputError: If the text says none.
    """
    part, _, parts = text.partition("/")
    short = max(len(part), len(parts)) <= _DIGITS
    if not (short and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise InputError(f"--part is {shortened(text)}: expected for example 1/2, the first of two.")
    return int(part), int(parts)
