"""Models are fitted to a survey: the ensemble that a surrogate consists of, and others to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.surrogates.ensemble import Ensemble, Layers, logit

LEAST_DEVIATION = 1e-4  # of the noise between seeds, as an accuracy

Model = Callable[[np.ndarray], np.ndarray]  # share kept of each set [N, sets] -> accuracies [N, 2]
Fit = Callable[[np.ndarray, np.ndarray], Model]  # of kept [N, sets] and accuracies [N, 2]


@dataclass(frozen=True)
class Networks:
    """How the networks of an ensemble are made and trained."""

    members: int = 4
    width: int = 64  # of both hidden layers
    steps: int = 6000
    batch_size: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 1e-3


def fit_ensemble(kept: np.ndarray, accuracy: np.ndarray, how: Networks | None = None, seed: int = 0) -> Ensemble:
    """Train the networks of an ensemble, each from its own start and on its own order.

    Args:
        kept: The share that is kept of each coupled set, ``[N, sets]``.
        accuracy: On the validation and on the test split, ``[N, 2]``.
        how: They are made and trained.
        seed: Of starts and orders.
    """
    how = how or Networks()
    centre, scale = kept.mean(0), kept.std(0) + 1e-6
    inputs = torch.from_numpy(((kept - centre) / scale).astype(np.float32))
    targets = torch.from_numpy(accuracy.astype(np.float32))
    members = [_trained(inputs, targets, how, seed + number) for number in range(how.members)]
    noise = fit_noise(replicates(kept), accuracy)
    return Ensemble(centre, scale, members, noise)


def fit_noise(groups: Replicates, accuracy: np.ndarray) -> np.ndarray:
    """How the deviation between seeds depends on the mean accuracy, as `Ensemble` has it: the most likely.

    Args:
        groups: Joint actions that were measured more than once; if none was, there is the least noise.
        accuracy: On the validation and on the test split, ``[N, 2]``.
    """
    if len(groups.rows) == 0:
        return np.array([[np.log(LEAST_DEVIATION)] * 2, [0.0] * 2, [0.0] * 2, [0.0] * 2, [0.0] * 2])
    logits, squares = logit(groups.means(accuracy)), groups.residuals(accuracy) ** 2  # [M, 2]
    columns = []
    for one, split in zip(logits.T, squares.T, strict=True):
        powers = np.stack([np.ones_like(one), one, one**2], 1)
        start = np.array([0.5 * np.log(split.mean() + LEAST_DEVIATION**2), 0.0, 0.0])
        found = minimize(_unlikely, start, (powers, split), method="Nelder-Mead", options={"maxiter": 2000})
        columns.append([*found.x, one.min(), one.max()])
    return np.array(columns).T


def _unlikely(weights: np.ndarray, powers: np.ndarray, squares: np.ndarray) -> float:
    """Of squared residuals ``[M]``, if logarithms of deviations are ``powers @ weights``; and a little ridge."""
    logarithms = np.maximum(powers @ weights, np.log(LEAST_DEVIATION))
    likely = (logarithms + 0.5 * squares * np.exp(-2 * logarithms)).mean()
    return float(likely + 1e-4 * (weights[1:] ** 2).sum())  # where all accuracies are alike


@dataclass(frozen=True)
class Replicates:
    """Joint actions that were measured more than once, with different seeds."""

    rows: np.ndarray  # [M], their rows
    group: np.ndarray  # [M], which of them are of one joint action

    def means(self, accuracy: np.ndarray) -> np.ndarray:
        """The mean of the group of each, ``[M, 2]``."""
        counts = np.bincount(self.group)
        means = [np.bincount(self.group, column) / counts for column in accuracy[self.rows].T]
        return np.stack(means, axis=1)[self.group]

    def residuals(self, accuracy: np.ndarray) -> np.ndarray:
        """How far each is from the mean of its group, made up for what that mean has of it, ``[M, 2]``."""
        counts = np.bincount(self.group)[self.group]
        rest: np.ndarray = (accuracy[self.rows] - self.means(accuracy)) / np.sqrt(1 - 1 / counts)[:, None]
        return rest


def replicates(kept: np.ndarray) -> Replicates:
    """Which rows are of one joint action, ``[N, sets]``."""
    _, group, counts = np.unique(kept, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    rows = (counts[group] > 1).nonzero()[0]
    return Replicates(rows, np.unique(group[rows], return_inverse=True)[1])


def _trained(inputs: torch.Tensor, targets: torch.Tensor, how: Networks, seed: int) -> Layers:
    """A network of two hidden layers, trained by Adam with a cosine."""
    with own_random_numbers(inputs.device, seed):
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], how.width),
            nn.ReLU(),
            nn.Linear(how.width, how.width),
            nn.ReLU(),
            nn.Linear(how.width, 2),
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps)
        for _ in range(how.steps):
            chosen = torch.randint(len(inputs), (how.batch_size,))
            optimizer.zero_grad()
            nn.functional.mse_loss(network(inputs[chosen]).sigmoid(), targets[chosen]).mul(100).backward()
            optimizer.step()
            schedule.step()
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return [(one.weight.detach().numpy().T.copy(), one.bias.detach().numpy().copy()) for one in linear]


def networks(how: Networks | None = None) -> Fit:
    """The ensemble, as a model to compare."""

    def fit(kept: np.ndarray, accuracy: np.ndarray) -> Model:
        ensemble = fit_ensemble(kept, accuracy, how)
        return lambda asked: ensemble.predict(asked).accuracy.astype(np.float64)

    return fit


def boosted_trees(kept: np.ndarray, accuracy: np.ndarray) -> Model:
    """Gradient-boosted trees of scikit-learn, one model for each split."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    models = [
        HistGradientBoostingRegressor(
            max_iter=1000, learning_rate=0.05, max_leaf_nodes=24, l2_regularization=1.0, random_state=0
        ).fit(kept, column)
        for column in accuracy.T
    ]
    return lambda asked: np.stack([model.predict(asked) for model in models], axis=1)


def gaussian_process(kept: np.ndarray, accuracy: np.ndarray, most: int = 3000) -> Model:
    """A Gaussian process of scikit-learn, with a length for each set, fitted to so many rows at most."""
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    chosen = np.random.default_rng(0).permutation(len(kept))
    lengths = Matern(np.ones(kept.shape[1]), (1e-2, 1e2), nu=2.5)
    kernel = ConstantKernel(0.1) * lengths + WhiteKernel(1e-3, (1e-7, 1.0))
    few = chosen[: min(most, 600)]
    found = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0).fit(kept[few], accuracy[few, 0])
    rest = chosen[:most]
    fixed = GaussianProcessRegressor(found.kernel_, optimizer=None, normalize_y=True)
    models = [fixed.__class__(found.kernel_, optimizer=None, normalize_y=True) for _ in accuracy.T]
    for model, column in zip(models, accuracy.T, strict=True):
        model.fit(kept[rest], column[rest])
    return lambda asked: np.stack([model.predict(asked) for model in models], axis=1)


def ridge(kept: np.ndarray, accuracy: np.ndarray) -> Model:
    """A quadratic polynomial by ridge regression: what a model must beat to be worth having."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    model = make_pipeline(StandardScaler(), PolynomialFeatures(2), RidgeCV(np.logspace(-3, 3, 7)))
    model.fit(kept, accuracy)
    return lambda asked: np.asarray(model.predict(asked))


MODELS: dict[str, Fit] = {
    "networks": networks(),
    "boosted_trees": boosted_trees,
    "gaussian_process": gaussian_process,
    "quadratic": ridge,
}


def folds(groups: Sequence[int] | np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Which fold each row is in, ``[N]``, so that rows of one group are in one."""
    names, of_row = np.unique(np.asarray(groups), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return (order % count)[of_row.reshape(-1)]
