"""For learners with a loop of their own: every joint action that they evaluate is written down, up to a budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from agents.loop import Evaluation, evaluations_of, evaluations_per_step


class BudgetSpent(Exception):
    """Another step would take more evaluations than are left."""


class Ledger:
    """What was spent of a budget, and on which joint actions.

    Args:
        evaluations: That may be spent.
        on_evaluation: Called after every step.
    """

    def __init__(self, evaluations: int, on_evaluation: Callable[[Evaluation], None] | None = None) -> None:
        self.history: list[Evaluation] = []
        self.evaluations, self._spent, self._on_evaluation = evaluations, 0, on_evaluation

    def steps_left(self, env: ParallelEnv[str, Any, Any]) -> int:
        """Steps that can be taken in an environment, whatever they ask for."""
        return (self.evaluations - self._spent) // evaluations_per_step(env)

    def add(self, actions: dict[str, Any], rewards: dict[str, float], infos: dict[str, dict[str, Any]]) -> None:
        """Write a step down."""
        self._spent += evaluations_of(infos)
        self.history.append(Evaluation(self._spent, dict(actions), rewards, infos))
        if self._on_evaluation is not None:
            self._on_evaluation(self.history[-1])


class Recorded(BaseParallelWrapper[str, Any, Any]):
    """An environment whose steps are written into a ledger; it refuses to spend more than there is.

    Args:
        env: The environment.
        ledger: Others may write into it, too.

    Attributes:
        known: Before a step, this is waited for once, if there is anything left in it; see `lanes.start_lanes`.
    """

    def __init__(self, env: ParallelEnv[str, Any, Any], ledger: Ledger) -> None:
        super().__init__(env)
        self._ledger = ledger
        self.known: Iterator[None] = iter(())

    def step(self, actions: dict[str, Any]) -> tuple[Any, ...]:
        """As the environment does.

        Raises:
            BudgetSpent: If the step could take more evaluations than are left; nothing has changed then.
        """
        if not self._ledger.steps_left(self.env):
            raise BudgetSpent
        next(self.known, None)
        result = self.env.step(actions)
        _, rewards, _, _, infos = result
        self._ledger.add(actions, rewards, infos)
        return result
