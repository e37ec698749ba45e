"""Every joint action at a budget: agents say how layers stand to each other, and what is pruned in all is fixed.

Where a budget is tight, most joint actions are beyond it, and those that masks leave lie below it by more than is
good: a learner spends its evaluations on how much is pruned, which is known. Here the same number is added to all
ratios, each staying within its bounds, so that the cost just fits; so plans differ in shares alone.

It is also what the reward ``"budget"`` cannot do where accuracy falls steeply with cost: ResNet-20 at a quarter of
its multiply-adds, after 20 batches of distillation, has its highest a * min(1, F0/f) at 45 % of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dsfp_env.channels.costs import Costs
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.budgets import WORDS, Budget, budget_from, relative_cost_of
from dsfp_env.evaluation.interface import AnyEvaluator, AnyTask, check_evaluator
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import HIGHEST, LOWEST, Plan, within
from dsfp_env.tasks.layer_control import Decider, control_of

if TYPE_CHECKING:
    from typing_extensions import Self

_LEAST = LOWEST - HIGHEST  # is added where the least that can be pruned is enough
_HALVINGS = 10  # of the interval of what is added: to less than a fifth of a percent


def brought_to(
    agents: Mapping[str, Decider], plan: Mapping[str, float], cost_of_plan: Callable[[Plan], float], cost: float
) -> Plan:
    """A plan with one number added to all its ratios, within their bounds, so that its cost just fits.

    Args:
        agents: Agent -> its bounds, ``task.control.agents``.
        plan: Ratios in percent by agent.
        cost_of_plan: Falls with every ratio, or stays.
        cost: That is allowed. If it cannot be met, all ratios are the highest.
    """
    too_little, enough = _LEAST, -_LEAST
    least_pruned = within(agents, plan, too_little)
    if cost_of_plan(least_pruned) <= cost:
        return least_pruned
    for _ in range(_HALVINGS):
        middle = (too_little + enough) / 2
        if cost_of_plan(within(agents, plan, middle)) <= cost:
            enough = middle
        else:
            too_little = middle
    return within(agents, plan, enough)


def many_brought_to(
    bounds: np.ndarray, ratios: np.ndarray, costs_of: Callable[[np.ndarray], np.ndarray], cost: float
) -> np.ndarray:
    """As `brought_to`, of many plans at once, with the same bits.

    Args:
        bounds: ``[2, agents]``, the lowest and the highest ratio of each.
        ratios: ``[N, agents]``, percent.
        costs_of: Of such ratios, ``[N]``.
        cost: That is allowed.
    """
    too_little, enough = np.full((len(ratios), 1), _LEAST), np.full((len(ratios), 1), -_LEAST)
    for _ in range(_HALVINGS):
        middle = (too_little + enough) / 2
        fits = costs_of(np.clip(ratios + middle, *bounds))[:, None] <= cost
        too_little, enough = np.where(fits, too_little, middle), np.where(fits, middle, enough)
    enough = np.where(costs_of(np.clip(ratios + _LEAST, *bounds))[:, None] <= cost, _LEAST, enough)
    return np.clip(ratios + enough, *bounds)


class AtBudget:
    """An evaluator that brings every plan to a budget before it does with it what another evaluator does.

    All else is as it is there. What is really pruned, `filled` says, and an outcome's ``applied_ratios``.

    Args:
        evaluator: Any: one that measures, a table, a surrogate. (A table answers by the nearest levels.)
        macs_budget: Share of the original network's multiply-adds, in (0, 1), or a `budgets.Budget`.
        params_budget: Of its parameters, in place of that.
        latency_budget: Of its time, likewise; the evaluator must predict times.

    Attributes:
        evaluator: That one.
        budget: That plans are brought to.

    Raises:
        InputError: If there is not one budget, or it cannot be met.
    """

    budget: Budget

    def __init__(
        self,
        evaluator: AnyEvaluator,
        macs_budget: float | Budget | None = None,
        *,
        params_budget: float | None = None,
        latency_budget: float | str | None = None,
    ) -> None:
        check_evaluator(evaluator)
        budget = budget_from(macs_budget, params_budget, latency_budget)
        if isinstance(evaluator, AtBudget):
            raise InputError(f"The evaluator brings plans to {evaluator.budget} already: give the one within it.")
        if budget is None:
            raise InputError("No budget was given: expected macs_budget, params_budget or latency_budget.")
        self.evaluator, self.budget = evaluator, budget
        self._agents = control_of(evaluator.task).agents
        self._allowed = budget.allowed(evaluator.original)  # a share
        least = self._cost({agent: one.highest for agent, one in self._agents.items()})
        if least > self._allowed:
            raise InputError(
                f"The budget is {self._allowed:.6g} of the original network's {WORDS[budget.of]}, and with every "
                f"layer pruned by its highest ratio {least:.4f} are left: expected a budget of at least that."
            )

    @property
    def task(self) -> AnyTask:
        """What the agents work on."""
        return self.evaluator.task

    @property
    def levels(self) -> np.ndarray:
        """As there."""
        return self.evaluator.levels

    @property
    def latency(self) -> LatencyMeter | LatencyPredictor | None:
        """As there."""
        return self.evaluator.latency

    @property
    def layer_features(self) -> Mapping[str, np.ndarray]:
        """As there."""
        return self.evaluator.layer_features

    @property
    def original(self) -> Outcome:
        """As there."""
        return self.evaluator.original

    def filled(self, ratios: Mapping[str, float]) -> Plan:
        """What is pruned when these ratios are chosen, in percent by agent.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number within its bounds.
        """
        self._cost(ratios)  # refuses what are none
        return brought_to(self._agents, ratios, self._cost, self._allowed)

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """As there, of the filled plan."""
        return self.evaluator.evaluate(self.filled(ratios), seed)

    def evaluate_many(
        self, plans: Iterable[Mapping[str, float]], seed: int | Sequence[int] = 0, workers: int | None = None
    ) -> list[Outcome]:
        """As there, of filled plans."""
        return self.evaluator.evaluate_many([self.filled(plan) for plan in plans], seed, workers)

    def start_many(
        self, plans: Iterable[Mapping[str, float]], seed: int | Sequence[int] = 0, workers: int | None = None
    ) -> Iterator[Outcome]:
        """As there, of filled plans."""
        return self.evaluator.start_many([self.filled(plan) for plan in plans], seed, workers)

    def costs(self, ratios: Mapping[str, float]) -> Costs:
        """As there, of the filled plan."""
        return self.evaluator.costs(self.filled(ratios))

    def predicted_latency(self, ratios: Mapping[str, float]) -> float:
        """As there, of the filled plan."""
        return self.evaluator.predicted_latency(self.filled(ratios))

    @property
    def workers(self) -> int | None:
        """As there, where there are any."""
        workers: int | None = getattr(self.evaluator, "workers", None)
        return workers

    @workers.setter
    def workers(self, workers: int | None) -> None:
        self.evaluator.workers = workers  # type: ignore[attr-defined]

    def close(self) -> None:
        """End what was started for the other evaluator."""
        self.evaluator.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _cost(self, ratios: Mapping[str, float]) -> float:
        return relative_cost_of(self.evaluator, self.budget.of)(ratios)

    def __getattr__(self, name: str) -> Any:
        """What else the other evaluator has; its methods of a plan are given the filled one."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self.evaluator, name)
        if name not in ("keep", "build", "measure_splits", "measure_values", "remember"):
            return found
        return lambda ratios=None, *rest, **named: found(ratios and self.filled(ratios), *rest, **named)


def unfilled(evaluator: Any) -> Any:
    """The evaluator that measures plans as they are: the one within, if this one brings them to a budget."""
    return evaluator.evaluator if isinstance(evaluator, AtBudget) else evaluator
