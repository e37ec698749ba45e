"""What agents see, as inputs of a model of all layers."""

from __future__ import annotations

import numpy as np


def standardised(seen: np.ndarray) -> np.ndarray:
    """Inputs ``[agents, 1 + features]`` of observations ``[agents, features]``.

    A one comes first, then the features that differ between layers, each of mean 0; together their squares have
    mean 1, however many they are.
    """
    centred = seen - seen.mean(0)
    deviations = centred.std(0)
    differing = deviations > 1e-6
    layers = centred[:, differing] / deviations[differing] / np.sqrt(max(1, differing.sum()))
    return np.concatenate([np.ones((len(seen), 1)), layers], 1)
