"""Models are fitted to a survey: the ensemble that a surrogate consists of, and others to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.surrogates.ensemble import Ensemble, Layers

LEAST_DEVIATION = 1e-4  # of the noise between seeds, as an accuracy

Model = Callable[[np.ndarray], np.ndarray]  # share kept of each set [N, sets] -> accuracies [N, 2]
Fit = Callable[[np.ndarray, np.ndarray], Model]  # of kept [N, sets] and accuracies [N, 2]


@dataclass(frozen=True)
class Networks:
    """How the networks of an ensemble are made and trained."""

    members: int = 4
    width: int = 64  # of both hidden layers
    noise_width: int = 16
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
    members = [
        _trained(inputs, targets, _squared_error, how.width, how, seed + number) for number in range(how.members)
    ]
    groups = replicates(kept)
    noise = _trained(inputs[groups.rows], groups.deviations(accuracy), _likelihood, how.noise_width, how, seed)
    return Ensemble(centre, scale, members, noise)


@dataclass(frozen=True)
class Replicates:
    """Joint actions that were measured more than once, with different seeds."""

    rows: np.ndarray  # [M], their rows
    group: np.ndarray  # [M], which of them are of one joint action

    def deviations(self, accuracy: np.ndarray) -> torch.Tensor:
        """How far each is from the mean of its group, made up for what that mean has of it, ``[M, 2]``."""
        counts = np.bincount(self.group)
        means = np.stack([np.bincount(self.group, column) / counts for column in accuracy[self.rows].T], axis=1)
        rest = (accuracy[self.rows] - means[self.group]) / np.sqrt(1 - 1 / counts[self.group])[:, None]
        return torch.from_numpy(rest.astype(np.float32))


def replicates(kept: np.ndarray) -> Replicates:
    """Which rows are of one joint action, ``[N, sets]``."""
    _, group, counts = np.unique(kept, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    rows = (counts[group] > 1).nonzero()[0]
    return Replicates(rows, np.unique(group[rows], return_inverse=True)[1])


def _trained(
    inputs: torch.Tensor,
    targets: torch.Tensor,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    width: int,
    how: Networks,
    seed: int,
) -> Layers:
    """A network of two hidden layers, trained by Adam with a cosine."""
    if len(inputs) == 0:  # nothing was measured twice: the least noise
        zero, outputs = np.zeros((inputs.shape[1], 2), np.float32), np.log(LEAST_DEVIATION)
        return [(zero, np.full(2, outputs, np.float32))]
    with own_random_numbers(inputs.device, seed):
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )
        optimizer = torch.optim.AdamW(network.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, how.steps)
        for _ in range(how.steps):
            chosen = torch.randint(len(inputs), (how.batch_size,))
            optimizer.zero_grad()
            loss(network(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
            schedule.step()
    linear = [layer for layer in network if isinstance(layer, nn.Linear)]
    return [(one.weight.detach().numpy().T.copy(), one.bias.detach().numpy().copy()) for one in linear]


def _squared_error(answers: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(answers.sigmoid(), targets) * 100


def _likelihood(logarithms: torch.Tensor, deviations: torch.Tensor) -> torch.Tensor:
    """Negative, of deviations drawn from normal distributions of these widths."""
    logarithms = logarithms.clamp(min=float(np.log(LEAST_DEVIATION)))
    return (logarithms + 0.5 * (deviations / logarithms.exp()) ** 2).mean()


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
