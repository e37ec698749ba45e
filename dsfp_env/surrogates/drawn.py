"""Numbers that look drawn at random, but follow from what is asked: equal questions have equal answers."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtri

# Of SplitMix64 (Steele et al. 2014): what is added, and shifts and factors.
_STEP, _LAST = np.uint64(0x9E3779B97F4A7C15), np.uint64(31)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


def normal_numbers(whole: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """A standard normal number for each question.

    Args:
        whole: Whole numbers, ``[N, columns]``.
        seeds: ``[N]``, whole numbers.

    Returns:
        ``[N]`` float64.
    """
    state = _mixed(seeds.astype(np.int64).view(np.uint64))
    for column in whole.T:
        state = _mixed(state ^ column.astype(np.int64).view(np.uint64))
    uniform = ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
    numbers: np.ndarray = ndtri(uniform)
    return numbers


def _mixed(state: np.ndarray) -> np.ndarray:
    state = state + _STEP
    for shift, factor in _MIX:
        state ^= state >> shift
        state *= factor
    state ^= state >> _LAST
    return state
