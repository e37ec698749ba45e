"""A model of the time of a forward pass: a sum of what `latency_features` tells, with weights of 0 or more.

    seconds = sum_i weight_i feature_i,   weight_i >= 0

**Times never rise with a ratio**, since features never do and no weight is negative; so levels are ruled out by a
budget of time as by one of MACs, see `environment.masks`. (Real times do rise here and there, as where 17 channels
take longer than 32: a model that knew would rule out what it should not.)

Weights are found by non-negative least squares on relative errors, with a penalty on them that is chosen by
cross-validation; networks that were disturbed while they were measured count less (Huber's weights, for relative
errors beyond twice the median). The errors that are stated are those on networks which the fit had not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

FOLDS = 5
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
_ROBUST = 4  # rounds of reweighting


@dataclass(frozen=True)
class LatencyModel:
    """Weights, and how well they did on networks that were left out.

    Attributes:
        weights: Of each feature, 0 or more; seconds.
        measurements: Networks that were measured.
        median_error: Half of the networks that were left out were predicted with at most this relative error.
        error_90: Nine tenths were.
        spread: The median over networks of the noise of one measurement: interquartile range / time.
        original_seconds: The original network as it was measured then.
    """

    weights: tuple[float, ...]
    measurements: int
    median_error: float
    error_90: float
    spread: float
    original_seconds: float

    def predict(self, features: np.ndarray) -> Any:
        """Seconds of a forward pass, of features ``[features]`` or ``[N, features]``."""
        return features @ np.array(self.weights)

    def about(self) -> dict[str, float | int]:
        """What is said of it in a result."""
        return {
            "measurements": self.measurements,
            "median_error": self.median_error,
            "error_90": self.error_90,
            "spread": self.spread,
            "original_seconds": self.original_seconds,
        }


def fit(features: np.ndarray, seconds: np.ndarray, shared: int, spreads: Sequence[float] = (0.0,)) -> LatencyModel:
    """Fit a model, and say how good it is.

    Args:
        features: ``[networks, features]``; the first row is of the original network.
        seconds: ``[networks]``, measured.
        shared: How many features, the first ones, are of the whole network; those of layers, which are many, are
            penalised tenfold.
        spreads: Interquartile ranges, seconds.
    """
    parts = np.random.default_rng(0).permutation(len(seconds)) % FOLDS
    errors = {}
    for penalty in PENALTIES:
        left_out = np.empty(len(seconds))
        for fold in range(FOLDS):
            seen = parts != fold
            left_out[~seen] = features[~seen] @ _weights(features[seen], seconds[seen], shared, penalty)
        errors[penalty] = np.abs(left_out / seconds - 1)
    best = min(PENALTIES, key=lambda penalty: float(np.minimum(errors[penalty], 0.5).mean()))
    weights = _weights(features, seconds, shared, best)
    return LatencyModel(
        tuple(weights.tolist()),
        len(seconds),
        float(np.median(errors[best])),
        float(np.quantile(errors[best], 0.9)),
        float(np.median(np.array(spreads) / (seconds if len(spreads) == len(seconds) else 1.0))),
        float(seconds[0]),
    )


def _weights(features: np.ndarray, seconds: np.ndarray, shared: int, penalty: float) -> np.ndarray:
    """Non-negative weights; of each feature scaled to the largest, so that one penalty fits all."""
    from scipy.optimize import nnls  # takes a fifth of a second to import

    scale = np.maximum(features.max(0), 1e-30)
    relative = features / scale / seconds[:, None]
    each = np.where(np.arange(features.shape[1]) < shared, 1.0, 10.0)
    shrink = np.diag(np.sqrt(penalty * each) / np.median(seconds))
    trust, found = np.ones(len(seconds)), np.zeros(len(scale))
    for _ in range(_ROBUST):
        rows = np.vstack([relative * trust[:, None], shrink])
        found, _ = nnls(rows, np.append(trust, np.zeros(len(scale))))
        errors = np.abs(relative @ found - 1)
        usual = 2 * np.median(errors) + 1e-12
        trust = np.sqrt(np.minimum(1.0, usual / np.maximum(errors, 1e-12)))
    return found / scale
