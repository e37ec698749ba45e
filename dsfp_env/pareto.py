"""What is best of several objectives at once: the Pareto front, and the volume that it dominates.

Every objective is higher the better, as accuracy and saving (1 - relative MACs) are. A point dominates another if
it is at least as good in every objective, and better in one. The front is what no point dominates. The hypervolume
of a front, the volume of what it dominates above a reference point, tells how good it is in one number (Zitzler
and Thiele 1999): it grows with every point that the front gains, and with the reference (0, 0) a front of accuracy
and saving has at most 1.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from dsfp_env.common.errors import InputError


def pareto_front(points: ArrayLike) -> np.ndarray:
    """Which points no other dominates.

    Args:
        points: ``[points, objectives]``.

    Returns:
        Their indices ``[front]``, rising; of equal points the first.

    Raises:
        InputError: If the points are no matrix of numbers.
    """
    points = _checked(points)
    first = np.sort(np.unique(points, axis=0, return_index=True)[1])
    different = points[first]
    at_least_as_good = [(different >= point).all(1).sum() for point in different]  # the point itself is
    return first[np.array(at_least_as_good, int) == 1]


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """The volume of what is dominated by a point and dominates the reference; exact, for any number of objectives.

    Args:
        points: ``[points, objectives]``; those that are not better than the reference in everything add nothing.
        reference: ``[objectives]``, the worst that counts.

    Raises:
        InputError: If the points are no matrix of numbers, or the reference has another number of objectives.
    """
    points, reference = _checked(points), np.asarray(reference, np.float64)
    if reference.shape != points.shape[1:] or not np.isfinite(reference).all():
        raise InputError(
            f"The reference is {reference.tolist()}: expected {points.shape[1]} finite number(s), one for each "
            "objective."
        )
    above = points - reference
    above = above[(above > 0).all(1)]
    return _volume(above[pareto_front(above)])


def _volume(points: np.ndarray) -> float:
    """The volume between the origin and points above it: slice by slice along the last objective."""
    if points.shape[1] == 1:
        return float(points.max(initial=0.0))
    points = points[np.argsort(-points[:, -1])]
    heights = points[:, -1]
    thicknesses = heights - np.append(heights[1:], 0.0)
    slices = (_volume(points[: i + 1, :-1]) for i in range(len(points)))  # the i-th is under the first i + 1
    return float(sum(area * thickness for area, thickness in zip(slices, thicknesses, strict=True)))


def _checked(points: ArrayLike) -> np.ndarray:
    matrix = np.asarray(points, np.float64)
    if matrix.ndim != 2 or matrix.shape[1] < 1 or not np.isfinite(matrix).all():
        raise InputError(f"Points of shape {matrix.shape} came: expected finite numbers [points, objectives].")
    return matrix
