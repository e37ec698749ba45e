"""What every joint action is worth to one reward, as one seed, split and fidelity see it; rows as in the table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Landscape:
    """All joint actions of a table; see `Table.landscape`."""

    scores: np.ndarray  # [rows] float64
    accuracy: np.ndarray  # [rows], on the split that the scores are of
    test_accuracy: np.ndarray  # [rows]
    relative_macs: np.ndarray  # [rows]

    @property
    def best(self) -> int:
        """The row with the highest score; the first, if several have it."""
        return int(np.argmax(self.scores))

    def regrets(self, normalised: bool = False) -> np.ndarray:
        """How much less every joint action is worth than the best one, ``[rows]``; where all are alike, 0.

        Args:
            normalised: Whether to divide by the regret that a joint action drawn at random has on average.
        """
        regrets: np.ndarray = self.scores.max() - self.scores
        return regrets / (regrets.mean() or 1.0) if normalised else regrets
