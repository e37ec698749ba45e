"""The range of pruning ratios, in percent of a layer's filters: [10, 90] (DSFP section III-B)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.ranges import is_finite

LOWEST, HIGHEST = 10.0, 90.0  # percent

LEVELS = np.arange(LOWEST, HIGHEST + 1, 10)  # percent, the ratios of actions="levels"


def checked_ratio(agent: str, ratio: Any, lowest: float = LOWEST, highest: float = HIGHEST) -> float:
    """A ratio in percent as a float.

    Raises:
        InputError: If it is not a number within these bounds.
    """
    if type(ratio) is float and lowest <= ratio <= highest:  # as nearly all are
        return ratio
    is_number = isinstance(ratio, (int, float, np.integer, np.floating)) and not isinstance(ratio, bool)
    number = float(ratio) if is_number and is_finite(ratio) else math.nan
    if not lowest <= number <= highest:
        advice = "fraction? Multiply by 100" if 0 < number < 1 else "clip it"
        raise InputError(
            f"The pruning ratio of {agent} is {shortened(ratio)}: expected a percentage in [{lowest:g}, "
            f"{highest:g}] ({advice})."
        )
    return number
