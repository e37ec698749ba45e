"""What every joint action of a table is worth to one reward, as one seed, split and fidelity see it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.rewards import RewardFunction, reward_function

if TYPE_CHECKING:
    from dsfp_env.tables.table import Table


class Optimum(NamedTuple):
    """The best joint action, and what is known of it."""

    ratios: dict[str, float]  # percent by agent
    score: float
    accuracy: float  # on the split that was asked for
    test_accuracy: float
    relative_macs: float


class Landscape:
    """Scores of all joint actions, the best of them, and how far others are from it; see `Table.landscape`."""

    def __init__(
        self,
        table: Table,
        reward: str | RewardFunction,
        macs_budget: float | None,
        seed: int | None,
        split: str,
        fidelity: str,
    ) -> None:
        self._table, self._reward, self._macs_budget = table, reward, macs_budget
        self._seed, self._split, self._fidelity = seed, split, fidelity

    @cached_property
    def scores(self) -> np.ndarray:
        """What every joint action is worth, ``[rows]``; with seed None the mean over the seeds of the table.

        Raises:
            InputError: If the reward gives no finite number, or an argument of `Table.landscape` is wrong.
        """
        table, which = self._table, (self._split, self._fidelity)
        if self._seed is None:
            each = [table.landscape(self._reward, self._macs_budget, one, *which).scores for one in table.seeds]
            scores = np.mean(each, axis=0)
        else:
            worth, original = reward_function(self._reward, self._macs_budget), table.original(self._split)
            outcomes = (table.outcome(row, self._seed, *which) for row in range(len(table)))
            scores = np.array([worth(outcome, original) for outcome in outcomes], np.float64)
        if not np.isfinite(scores).all():
            ratios = table.ratios_of(int(np.argmin(np.isfinite(scores))))
            raise InputError(f"The reward function gave no finite number for {ratios}: expected one for all.")
        scores.setflags(write=False)
        return scores

    @property
    def optimum(self) -> Optimum:
        """The joint action with the highest score; the first, if several have it."""
        table, row = self._table, int(np.argmax(self.scores))
        return Optimum(
            table.ratios_of(row),
            float(self.scores[row]),
            float(table.accuracies(self._seed, self._split, self._fidelity)[row]),
            float(table.accuracies(self._seed, "test", self._fidelity)[row]),
            float(table.relative_macs[row]),
        )

    def regrets(self, normalised: bool = False) -> np.ndarray:
        """How much less every joint action is worth than the best one, ``[rows]``; where all are alike, 0.

        Args:
            normalised: Whether to divide by the regret that a joint action drawn at random has on average.
        """
        regrets: np.ndarray = self.scores.max() - self.scores
        return regrets / (regrets.mean() or 1.0) if normalised else regrets

    def regret(self, joint_actions: Mapping[str, float] | ArrayLike, normalised: bool = False) -> Any:
        """The regret of some joint actions.

        Args:
            joint_actions: Ratios in percent by agent, or levels ``[N, agents]``.
            normalised: As for `regrets`.

        Returns:
            A number for ratios, ``[N]`` for levels; 0 for the best.
        """
        regrets = self.regrets(normalised)
        if isinstance(joint_actions, Mapping):
            return float(regrets[self._table.row_of(joint_actions)])
        return regrets[self._table.rows(joint_actions)]
