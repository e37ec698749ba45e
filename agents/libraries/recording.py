"""For learners with a loop of their own: every joint action that they evaluate is written down, up to a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from agents.loop import Evaluation, evaluations_of, evaluations_per_step


class BudgetSpent(Exception):
    """Another step would take more evaluations than are left."""


class Recorded(BaseParallelWrapper[str, Any, Any]):
    """An environment that keeps a history, and refuses to spend more than its budget.

    Args:
        env: The environment.
        evaluations: That may be spent.
        on_evaluation: Called after every step.
    """

    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        evaluations: int,
        on_evaluation: Callable[[Evaluation], None] | None = None,
    ) -> None:
        super().__init__(env)
        self.history: list[Evaluation] = []
        self._left, self._spent, self._on_evaluation = evaluations, 0, on_evaluation

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        """As the environment does.

        Raises:
            BudgetSpent: If the step could take more evaluations than are left; nothing has changed then.
        """
        if self._spent + evaluations_per_step(self.env) > self._left:
            raise BudgetSpent
        result = self.env.step(actions)
        _, rewards, _, _, infos = result
        self._spent += evaluations_of(infos)
        self.history.append(Evaluation(self._spent, dict(actions), rewards, infos))
        if self._on_evaluation is not None:
            self._on_evaluation(self.history[-1])
        return result
