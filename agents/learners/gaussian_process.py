"""A Gaussian process over joint actions, its kernel made for pruning: few numbers explain most, each layer a bit.

    k(x, x') = s^2 * (w1 * g(mean of x - mean of x')
                      + w2 * mean over agents of g(x_i - x'_i)
                      + w3 * g(root mean square over agents of x_i - x'_i))

with ratios x scaled to [0, 1] and g(d) = exp(-d^2 / (2 length^2)). How much all layers lose together decides most
of a score; what one layer adds is learned as by an additive model; the last part is what neither explains. Which
weights, length and noise fit is chosen from a grid by the marginal likelihood, anew whenever twice as much is
known (Rasmussen and Williams 2006, chapters 2 and 5).
"""

from __future__ import annotations

import copy
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

_LENGTH_OF_MEAN, _LENGTH_OF_LAYER = 0.3, 0.4
_WEIGHTS = ((1.0, 0.3, 0.1), (1.0, 1.0, 0.1), (1.0, 1.0, 1.0), (0.3, 0.1, 1.0))  # of the three parts
_LENGTHS = (0.1, 0.2, 0.4)  # of the last
_NOISES = (0.01, 0.03, 0.1, 0.3)  # variance, over that of the process


class _Kernel(NamedTuple):
    """Chosen from the grid."""

    weights: tuple[float, float, float] = _WEIGHTS[1]
    length: float = _LENGTHS[1]
    noise: float = _NOISES[2]

    def of(self, apart: _Apart) -> np.ndarray:
        """Correlations, in [0, 1]: ``[n, k]``."""
        parts = apart.of_means, apart.of_layers, _bell(apart.squares, self.length)
        summed = sum(weight * part for weight, part in zip(self.weights, parts, strict=True))
        return np.asarray(summed) / sum(self.weights)


class _Apart(NamedTuple):
    """How far joint actions are from others, as far as no choice of the grid matters; ``[n, k]`` each."""

    of_means: np.ndarray  # g
    of_layers: np.ndarray  # mean over agents of g
    squares: np.ndarray  # mean over agents


class GaussianProcess:
    """Believes that scores of joint actions are one of these, and normal noise.

    Args:
        levels: That an agent may choose from.
    """

    def __init__(self, levels: int) -> None:
        self._ratios = np.linspace(0, 1, levels)
        alike = _bell(np.subtract.outer(self._ratios, self._ratios) ** 2, _LENGTH_OF_LAYER)
        self._of_levels = cholesky(alike + 1e-9 * np.eye(levels), lower=True)  # inner products of rows are alike
        self._joints, self._scores = np.empty((0, 0), int), np.empty(0)
        self._kernel, self._fitted_to = _Kernel(), 0  # scores, when it was chosen
        self._root = self._solved = np.empty(0)  # Cholesky factor [n, n]; covariance^-1 (scores - mean) [n]
        self._mean, self._scale = 0.0, 1.0

    def __len__(self) -> int:
        return len(self._scores)

    def learn(self, joints: np.ndarray, scores: np.ndarray) -> None:
        """Condition on more scores.

        Args:
            joints: Levels, ``[k, agents]``.
            scores: ``[k]``.
        """
        before = self._joints
        self._joints = np.vstack([before, joints]) if len(before) else joints.copy()
        self._scores = np.concatenate([self._scores, scores])
        if len(self) >= 2 * self._fitted_to:
            self._kernel, self._fitted_to = self._best_kernel(), len(self)
            self._root = self._factor(self._kernel, self._apart(self._joints, self._joints))
        else:
            self._root = self._extended(before, joints)
        self._mean = float(self._scores.mean())
        self._solved = cho_solve((self._root, True), self._scores - self._mean, check_finite=False)
        self._scale = self._scale_of(self._solved)

    def imagined(self, joint: np.ndarray) -> GaussianProcess:
        """One that has seen the score that it expects of a joint action ``[agents]``; its kernel stays."""
        imagined = copy.copy(self)
        imagined._fitted_to = len(self) + 1
        imagined.learn(joint[None], self.expected(joint[None]))
        return imagined

    def believed(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected scores of joint actions ``[k, agents]`` and their standard deviations, ``[k]`` each."""
        between = self._kernel.of(self._apart(self._joints, joints))
        explained = solve_triangular(self._root, between, lower=True, check_finite=False)
        variances = np.maximum(0, 1 - (explained**2).sum(0)) * self._scale
        return self._mean + between.T @ self._solved, np.sqrt(variances)

    def expected(self, joints: np.ndarray) -> np.ndarray:
        """Expected scores of joint actions ``[k, agents]``: ``[k]``."""
        expected: np.ndarray = self._mean + self._kernel.of(self._apart(self._joints, joints)).T @ self._solved
        return expected

    def _extended(self, before: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """The Cholesky factor with more rows."""
        corner = self._kernel.of(self._apart(before, joints))
        rows = solve_triangular(self._root, corner, lower=True, check_finite=False).T  # [k, n]
        own = self._kernel.of(self._apart(joints, joints)) + self._kernel.noise * np.eye(len(joints))
        last = cholesky(own - rows @ rows.T, lower=True, check_finite=False)
        return np.block([[self._root, np.zeros(corner.shape)], [rows, last]])

    def _best_kernel(self) -> _Kernel:
        apart = self._apart(self._joints, self._joints)
        kernels = [_Kernel(*values) for values in product(_WEIGHTS, _LENGTHS, _NOISES)]
        return kernels[int(np.argmax([self._likelihood(kernel, apart) for kernel in kernels]))]

    def _likelihood(self, kernel: _Kernel, apart: _Apart) -> float:
        """Log of the marginal likelihood, at the best scale, but for a constant."""
        root = self._factor(kernel, apart)
        solved = cho_solve((root, True), self._scores - self._scores.mean(), check_finite=False)
        return -0.5 * len(self) * np.log(self._scale_of(solved)) - float(np.log(np.diag(root)).sum())

    def _factor(self, kernel: _Kernel, apart: _Apart) -> np.ndarray:
        covariance = kernel.of(apart) + kernel.noise * np.eye(len(self))
        root: np.ndarray = cholesky(covariance, lower=True, check_finite=False)
        return root

    def _scale_of(self, solved: np.ndarray) -> float:
        errors = self._scores - self._scores.mean()
        return max(1e-12 * float(errors.std()) ** 2 or 1e-300, float(errors @ solved) / len(self))

    def _apart(self, some: np.ndarray, others: np.ndarray) -> _Apart:
        """Joint actions ``[n, agents]`` from ``[k, agents]``."""
        agents = some.shape[1]
        one, two = self._ratios[some], self._ratios[others]
        sums = np.add.outer((one**2).sum(1), (two**2).sum(1)) - 2 * one @ two.T
        layers = [self._of_levels[joints].reshape(len(joints), -1) for joints in (some, others)]
        return _Apart(
            _bell(np.subtract.outer(one.mean(1), two.mean(1)) ** 2, _LENGTH_OF_MEAN),
            layers[0] @ layers[1].T / agents,
            np.maximum(0, sums) / agents,
        )


def _bell(squares: np.ndarray, length: float) -> np.ndarray:
    bell: np.ndarray = np.exp(-squares / (2 * length**2))
    return bell
