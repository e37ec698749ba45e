"""How far predictions can be trusted: on joint actions, on learners, and at costs that a model has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from dsfp_env.surrogates.fitting import MODELS, Fit, folds, replicates

FOLDS = 5
BINS = 10  # of multiply-adds, for what is said at equal costs
NEAR = 0.1  # the share of joint actions with the highest score, which are near the optimum
DIGITS = 4
DESIGNED = ("uniform", "sweep", "levels", "random", "stratified")  # sources that are no learners


def trust(
    kept: np.ndarray,
    accuracy: np.ndarray,
    relative_macs: np.ndarray,
    sources: Sequence[str],
    models: Mapping[str, Fit] = MODELS,
    chosen: str = "networks",
) -> dict[str, Any]:
    """What cross-validation finds.

    Args:
        kept: The share that is kept of each coupled set, ``[N, sets]``.
        accuracy: Measured on the validation and on the test split, ``[N, 2]``.
        relative_macs: ``[N]``.
        sources: How each came into the survey.
        models: To compare.
        chosen: The one that learners are left out of, and whose errors are looked at more closely.
    """
    fold = folds(groups_of(kept), FOLDS)
    predicted = {name: held_out(fit, kept, accuracy, fold) for name, fit in models.items()}
    score = accuracy[:, 0] * (1 - relative_macs)
    near = score >= np.quantile(score, 1 - NEAR)
    best = predicted[chosen]
    return {
        "cross_validation": {name: agreement(accuracy, found) for name, found in predicted.items()},
        "near_the_optimum": agreement(accuracy[near], best[near]),
        "at_equal_macs": at_equal_costs(accuracy[:, 0], best[:, 0], relative_macs),
        "learners_left_out": {
            learner: agreement(accuracy[rows], models[chosen](kept[~rows], accuracy[~rows])(kept[rows]))
            for learner, rows in _by_learner(sources).items()
        },
        "noise": _noise(kept, accuracy),
    }


def agreement(measured: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """How well predictions fit what was measured, ``[N, 2]`` each; on the validation split, unless it says test.

    Returns:
        ``rows``, ``r2``, ``kendall`` (rank correlation), ``error`` (mean, absolute), ``rmse``, and ``test_error``.
    """
    apart = np.abs(measured - predicted)
    residual, total = (apart[:, 0] ** 2).sum(), ((measured[:, 0] - measured[:, 0].mean()) ** 2).sum()
    found = {
        "rows": len(measured),
        "r2": 1 - residual / total,
        "kendall": kendalltau(measured[:, 0], predicted[:, 0]).statistic,
        "error": apart[:, 0].mean(),
        "rmse": np.sqrt((apart[:, 0] ** 2).mean()),
        "test_error": apart[:, 1].mean(),
    }
    return {name: round(float(value), DIGITS) for name, value in found.items()}


def at_equal_costs(measured: np.ndarray, predicted: np.ndarray, costs: np.ndarray) -> dict[str, Any]:
    """Rank correlation among joint actions that cost about the same: in tenths of all by their costs.

    Returns:
        ``kendall``, the mean over the tenths, and ``by_tenth``, from the cheapest.
    """
    edges = np.quantile(costs, np.linspace(0, 1, BINS + 1)[1:-1])
    tenth = np.searchsorted(edges, costs)
    found = [
        kendalltau(measured[tenth == one], predicted[tenth == one]).statistic
        for one in range(BINS)
        if (tenth == one).sum() > 2
    ]
    return {
        "kendall": round(float(np.nanmean(found)), DIGITS),
        "by_tenth": [round(float(one), DIGITS) for one in found],
    }


def groups_of(kept: np.ndarray) -> np.ndarray:
    """Which joint action each row is of, ``[N]``; of ``[N, sets]``."""
    return np.unique(kept, axis=0, return_inverse=True)[1].reshape(-1)


def held_out(fit: Fit, kept: np.ndarray, accuracy: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """What is predicted of each row by a model that has not seen it, ``[N, 2]``.

    Args:
        fit: Makes the model.
        kept: The share that is kept of each coupled set, ``[N, sets]``.
        accuracy: Measured, ``[N, 2]``.
        fold: Which of `FOLDS` each row is in, ``[N]``.
    """
    predicted = np.empty_like(accuracy)
    for one in range(FOLDS):
        unseen = fold == one
        if unseen.any():
            predicted[unseen] = fit(kept[~unseen], accuracy[~unseen])(kept[unseen])
    return predicted


def _by_learner(sources: Sequence[str]) -> dict[str, np.ndarray]:
    """Learner -> which rows are of its runs, ``[N]`` bool."""
    learners = np.array([source.split(",")[0] for source in sources])
    return {str(name): learners == name for name in np.unique(learners) if name not in DESIGNED}


def _noise(kept: np.ndarray, accuracy: np.ndarray) -> dict[str, float]:
    """What the seed of the fine-tuning does, where joint actions were measured with several."""
    groups = replicates(kept)
    if len(groups.rows) == 0:
        return {"validation": 0.0, "test": 0.0, "correlation": 0.0}
    residuals = groups.residuals(accuracy)
    validation, test = np.sqrt((residuals**2).mean(0))
    both = np.corrcoef(residuals.T)[0, 1] if validation and test else 0.0
    named = {"validation": validation, "test": test, "correlation": both}
    return {name: round(float(value), DIGITS) for name, value in named.items()}
