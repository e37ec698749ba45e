"""The range of pruning ratios, in percent of a layer's filters: [10, 90] (DSFP section III-B)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dsfp_env.common.errors import InputError

LOWEST, HIGHEST = 10.0, 90.0  # percent

LEVELS = np.arange(LOWEST, HIGHEST + 1, 10)  # percent, the ratios of actions="levels"


def checked_ratio(agent: str, ratio: Any, lowest: float = LOWEST, highest: float = HIGHEST) -> float:
    """A ratio in percent as a float.

    Raises:
        InputError: If it is not a number within these bounds.
    """
    number = float(ratio) if isinstance(ratio, (int, float, np.integer, np.floating)) else math.nan
    if not lowest <= number <= highest:
        advice = "fraction? Multiply by 100" if 0 < number < 1 else "clip it"
        raise InputError(
            f"The pruning ratio of {agent} is {ratio!r}: expected a percentage in [{lowest:g}, {highest:g}] "
            f"({advice})."
        )
    return number
