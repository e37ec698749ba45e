"""Seeds on the command line: ``0-4``, ``3`` or ``0,2,5-7``."""

from __future__ import annotations

from dsfp_env.common.errors import InputError
from dsfp_env.common.random_numbers import check_seed


def parse_seeds(text: str) -> list[int]:
    """Seeds from ``0-4``, ``3`` or ``0,2,5-7``.

    Raises:
        InputError: If the text is none of these.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise InputError(f"--seeds is {text!r}: expected for example 0-4, or 0,3,7.")
        check_seed(int(last or first), "--seeds")
        seeds.extend(range(int(first), int(last or first) + 1))
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds is {text!r}: a seed is named twice.")
    return seeds
