"""Seeds on the command line: ``0-4``, ``3`` or ``0,2,5-7``."""

from __future__ import annotations

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.random_numbers import check_seed

MOST_SEEDS = 100_000
_DIGITS = 20  # of a number; the range is another question


def parse_seeds(text: str) -> list[int]:
    """Seeds from ``0-4``, ``3`` or ``0,2,5-7``.

    Raises:
        InputError: If the text is none of these, a seed is out of range or named twice, or there are too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        digits = first.isdecimal() and (last.isdecimal() or not dash) and max(len(first), len(last)) <= _DIGITS
        if not digits or (dash and int(last) < int(first)):
            raise InputError(f"--seeds is {shortened(text)}: expected for example 0-4, or 0,3,7.")
        check_seed(int(last or first), "--seeds")
        named = range(int(first), int(last or first) + 1)
        if len(seeds) + len(named) > MOST_SEEDS:
            raise InputError(f"--seeds is {shortened(text)}: expected at most {MOST_SEEDS} of them.")
        seeds.extend(named)
    if len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds is {shortened(text)}: a seed is named twice.")
    return seeds
