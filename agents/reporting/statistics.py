"""How sure a comparison of learners is: interquartile means and stratified bootstrap confidence intervals.

A few runs of each learner are all that anybody can pay for, so a mean alone says little. Agarwal et al. 2021
("Deep reinforcement learning at the edge of the statistical precipice") advise:

- the **interquartile mean** of all scores, the mean of the middle half: outliers weigh nothing, unlike in a mean,
  and ties matter little, unlike in a median;
- a **confidence interval** by resampling the runs of each task with replacement, every task by itself (stratified
  bootstrap), and taking percentiles.

Scores are matrices ``[runs, tasks]``, higher is better; where tasks differ in scale, normalise first. Runs with
equal seeds share data and original network, so two learners with equal seeds are best compared in pairs:
``interval(x - y, statistic=mean, rng=rng)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import trim_mean

from dsfp_env.common.errors import InputError

Statistic = Callable[..., Any]
"""One or more stacks of scores ``[..., runs, tasks]`` -> numbers ``[...]``."""


class Interval(NamedTuple):
    """A statistic of the scores, and its confidence interval."""

    value: float
    low: float
    high: float


def iqm(scores: ArrayLike) -> Any:
    """The interquartile mean: without the lowest and the highest quarter of all scores, each rounded down.

    Args:
        scores: ``[..., runs, tasks]``, or ``[runs]`` of one task.

    Returns:
        ``[...]``, a number for one matrix.
    """
    scores = np.atleast_2d(np.asarray(scores, np.float64))
    return trim_mean(scores.reshape(*scores.shape[:-2], -1), 0.25, axis=-1)


def mean(scores: ArrayLike) -> Any:
    """The mean of all scores; otherwise as `iqm`."""
    return np.atleast_2d(np.asarray(scores, np.float64)).mean((-2, -1))


def interval(
    *scores: ArrayLike,
    statistic: Statistic = iqm,
    level: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator,
) -> Interval:
    """A statistic with its confidence interval, by the stratified percentile bootstrap.

    ``interval(x, rng=rng)`` is the interquartile mean of x.

    Args:
        *scores: What the statistic takes, each ``[runs, tasks]``, or ``[runs]`` of one task. The runs of each
            task are drawn anew with replacement, apart from those of other tasks and other arguments.
        statistic: Stacks of such scores ``[resamples, runs, tasks]`` -> ``[resamples]``.
        level: The probability that the interval is to have.
        resamples: How often the runs are drawn anew.
        rng: Draws them.

    Raises:
        InputError: If there are fewer than two runs, a score is no finite number, or an argument is out of range.
    """
    if not 0 < level < 1 or resamples < 1:
        raise InputError(
            f"The level is {level} and the number of resamples {resamples}: expected a probability between 0 and "
            "1, such as 0.95, and 1 or more."
        )
    matrices = [_checked(one) for one in scores]
    drawn = np.asarray(statistic(*(_resampled(one, resamples, rng) for one in matrices)))
    if drawn.shape != (resamples,):
        raise InputError(
            f"The statistic made an array of shape {drawn.shape} of {resamples} matrices: expected one number for "
            "each. Let it work on the last two axes of [..., runs, tasks], as `mean` beside it does."
        )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*matrices)), float(low), float(high))


FEW = 5  # runs: the bootstrap of fewer knows too few values


def warning_of_few(runs: Iterable[int]) -> str:
    """A sentence for tables whose intervals are of fewer than five runs; nothing if none is.

    Args:
        runs: How many each interval is of.
    """
    fewest = min(runs, default=FEW)
    if fewest >= FEW:
        return ""
    what = "one seed has no interval" if fewest < 2 else f"intervals are of {fewest} seeds"
    return (
        f"**Warning**: {what}, fewer than {FEW}. A bootstrap of so few is too narrow, and which learner is better "
        "cannot be told from it; give more --seeds."
    )


def _resampled(scores: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Scores ``[resamples, runs, tasks]``, those of each task drawn with replacement from its own."""
    rows = rng.integers(len(scores), size=(resamples, *scores.shape))
    return np.take_along_axis(scores[None], rows, axis=1)


def _checked(scores: ArrayLike) -> np.ndarray:
    matrix = _matrices(scores)
    if matrix.ndim != 2 or len(matrix) < 2 or not np.isfinite(matrix).all():
        raise InputError(
            f"Scores of shape {np.shape(scores)} came: expected finite numbers [runs, tasks], with two runs or "
            "more."
        )
    return matrix


def _matrices(scores: ArrayLike) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    return scores[:, None] if scores.ndim == 1 else scores
