"""Numbers that look drawn at random, but follow from what is asked: equal questions have equal answers."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

# Of SplitMix64 (Steele et al. 2014): what is added, and shifts and factors.
_STEP, _LAST = np.uint64(0x9E3779B97F4A7C15), np.uint64(31)
_ALL = 2**64 - 1
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def normal_numbers(whole: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """A standard normal number for each question.

    Args:
        whole: Whole numbers, ``[N, columns]``.
        seeds: ``[N]``, whole numbers.

    Returns:
        ``[N]`` float64.
    """
    if len(whole) == 1:  # in a tenth of the time
        return _normal(np.array([_of_one(whole[0].tolist(), int(seeds[0]))], np.uint64))
    state = _mixed(seeds.astype(np.int64).view(np.uint64))
    for column in whole.T:
        state = _mixed(state ^ column.astype(np.int64).view(np.uint64))
    return _normal(state)


def _normal(state: np.ndarray) -> np.ndarray:
    """Of 64 bits that are equally likely, ``[N]``."""
    uniform = ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    numbers: np.ndarray = ndtri(uniform)
    return numbers


def _of_one(whole: list[int], seed: int) -> int:
    """The bits of one question, with Python's numbers."""
    state = 0
    for number in (seed, *whole):
        state = ((state ^ (number & _ALL)) + int(_STEP)) & _ALL
        for shift, factor in _MIX:
            state = ((state ^ (state >> int(shift))) * int(factor)) & _ALL
        state ^= state >> int(_LAST)
    return state


def _mixed(state: np.ndarray) -> np.ndarray:
    state = state + _STEP
    for shift, factor in _MIX:
        state ^= state >> shift
        state *= factor
    state ^= state >> _LAST
    return state
