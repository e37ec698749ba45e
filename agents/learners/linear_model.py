"""Bayesian linear regression, one observation at a time."""

from __future__ import annotations

import numpy as np


def alike_levels(num_levels: int, alike: float) -> np.ndarray:
    """Correlations ``[levels, levels]`` of values of levels: ``exp(-distance / alike)``."""
    levels = np.arange(num_levels)
    return np.exp(-np.abs(np.subtract.outer(levels, levels)) / alike)


class LinearModel:
    """Believes that a score is ``weights . features`` and normal noise; the weights are normal too.

    Args:
        mean: Of the weights, before anything was seen, ``[features]``.
        covariance: Likewise, ``[features, features]``.
        noise: Standard deviation of a score.
    """

    def __init__(self, mean: np.ndarray, covariance: np.ndarray, noise: float) -> None:
        self.mean, self.covariance, self.noise = mean, covariance, noise

    def update(self, features: np.ndarray, score: float) -> float:
        """Condition on a score (the formulas of the Kalman filter); returns by how much it was unexpected.

        Args:
            features: ``[features]``.
            score: What came.
        """
        error = score - float(features @ self.mean)
        uncertain = self.covariance @ features
        gain = uncertain / (self.noise**2 + features @ uncertain)
        self.mean = self.mean + gain * error
        self.covariance = self.covariance - np.outer(gain, uncertain)
        return error

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Weights drawn from the posterior, ``[features]``."""
        return rng.multivariate_normal(self.mean, self.covariance, method="eigh", check_valid="ignore")

    def deviations(self, features: np.ndarray) -> np.ndarray:
        """Standard deviations of the expected scores of features ``[k, features]``: ``[k]``."""
        return np.sqrt(np.maximum(0, ((features @ self.covariance) * features).sum(1)))
