"""A surrogate in the place of the live evaluator: the environment's ``backend="surrogate"``.

It answers what the live `Evaluator` would, as far as a model can tell: costs are exact, accuracies are predicted,
and the noise of the fine-tuning's seed is drawn, always the same for equal questions. Each outcome says how far it
is from the nearest joint action that was measured (`Outcome.distance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dsfp_env.channels.costs import Costs
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.random_numbers import LARGEST_EVALUATION_SEED, check_seed
from dsfp_env.evaluation.outcome import Outcome, outcome_of
from dsfp_env.evaluation.plans import LOWEST, by_layer, listed
from dsfp_env.surrogates.surrogate import Surrogate, load_surrogate
from dsfp_env.tables.known_outcomes import KnownOutcomes, check_made, same_work, work_of
from dsfp_env.tables.recorded_task import RecordedTask
from dsfp_env.training.distillation import Fidelity

_MOST_KNOWN = 100_000  # outcomes that are remembered


class SurrogateEvaluator(KnownOutcomes):
    """Predicts joint actions, with the interface that environments and learners use of `Evaluator`.

    Args:
        surrogate: From `load_surrogate`.
        layers: Bounds of layers, or ratios that layers always have; see `tasks.layer_control`. None can be left
            alone: every joint action that was measured prunes all layers.
        tie: Layers with one agent; likewise.
        agents_per: ``"layer"`` or ``"set"``; likewise.

    Raises:
        InputError: If the layers cannot be controlled so.
    """

    kind = "surrogate"

    def __init__(
        self, surrogate: Surrogate, layers: Any = None, tie: Any = None, agents_per: str = "layer"
    ) -> None:
        if not isinstance(surrogate, Surrogate):
            raise InputError(
                f"The surrogate is {shortened(surrogate)}: expected one, as dsfp_env.load_surrogate gives."
            )
        self.surrogate = surrogate
        self.task = RecordedTask.of(surrogate.task, surrogate.meta["agents"], layers, tie, agents_per)
        for path, ratio in self.task.control.fixed.items():
            if ratio < LOWEST:
                raise InputError(
                    f"{path!r} is to be left alone, and no joint action that {surrogate} knows leaves a layer "
                    f"alone: expected a ratio of {LOWEST:g} % or more, or backend='live'."
                )
        self.levels = surrogate.levels
        self.layer_features = self.task.features()
        self.fidelity = Fidelity(**surrogate.meta["fidelity"])
        self.criterion: str = surrogate.meta["criterion"]
        self._known: dict[tuple[bytes, int], Outcome] = {}  # (classes lost, seed) -> outcome
        self._filters = {agent: about["filters"] for agent, about in surrogate.meta["agents"].items()}

    @cached_property
    def original(self) -> Outcome:
        """The unpruned network as it is, without fine-tuning; that was measured."""
        return replace(self.task.by_agent(self.surrogate.original()), distance=0.0)

    def ratios_of(self, ratios: Mapping[str, float]) -> list[float]:
        """Ratios of the surrogate's agents, in their order, from those of this task's.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number within its bounds.
        """
        of_layer = by_layer(ratios, self.task.control)
        return [of_layer[path] for path in self.task.paths.values()]

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """Predict a joint action; see `Evaluator.evaluate`, and the top of this file.

        Args:
            ratios: Percent by agent, within its bounds.
            seed: Of the fine-tuning, whose noise is drawn; equal questions have equal answers.

        Raises:
            InputError: As `ratios_of`; or if the seed is none.
        """
        check_seed(seed, "The seed of an evaluation", LARGEST_EVALUATION_SEED)
        lost = self._lost([self.ratios_of(ratios)])
        key = lost.tobytes(), int(seed)
        outcome = self._known.get(key)
        if outcome is None:
            (outcome,) = self._predicted(lost, np.array([seed], np.int64))
            self._remember({key: outcome})
        return outcome

    def evaluate_many(
        self,
        plans: Iterable[Mapping[str, float]],
        seed: int | Sequence[int] = 0,
        workers: int | None = None,
    ) -> list[Outcome]:
        """Predict many; see `Evaluator.evaluate_many`. There are no workers.

        Raises:
            InputError: As `evaluate`; or if there are not as many seeds as plans.
        """
        plans, seeds = listed(plans, seed)
        for one in seeds:
            check_seed(one, "The seed of an evaluation", LARGEST_EVALUATION_SEED)
        if not plans:
            return []
        lost = self._lost([self.ratios_of(plan) for plan in plans])
        keys = [(row.tobytes(), int(one)) for row, one in zip(lost, seeds, strict=True)]
        answers = {key: self._known[key] for key in keys if key in self._known}
        new = {key: place for place, key in enumerate(keys) if key not in answers}
        if new:
            places = list(new.values())
            outcomes = self._predicted(lost[places], np.array([key[1] for key in new], np.int64))
            found = dict(zip(new, outcomes, strict=True))
            self._remember(found)
            answers |= found
        return [answers[key] for key in keys]

    def _remember(self, outcomes: dict[tuple[bytes, int], Outcome]) -> None:
        """Keep these in mind; where it becomes too many, these alone."""
        if len(self._known) + len(outcomes) > _MOST_KNOWN:
            self._known.clear()
        self._known.update(outcomes)

    def costs(self, ratios: Mapping[str, float]) -> Costs:
        """The costs of the pruned network, exactly: multiply-adds, parameters, filters.

        Raises:
            InputError: As `ratios_of`.
        """
        found = self.surrogate.cost_tables.costs(self._lost([self.ratios_of(ratios)]))
        return Costs(int(found.macs[0]), int(found.params[0]), int(found.filters[0]))

    def build(self, ratios: Mapping[str, float], seed: int = 0) -> NoReturn:
        """Refuse, as a surrogate has no networks; arguments as for `Evaluator.build`.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "A surrogate knows what joint actions are worth, and has no networks: expected an evaluator that "
            "measures, as dsfp_env.parallel_env(task=...) has without backend='surrogate'."
        )

    def measures_with(self, fidelity: Fidelity) -> bool:
        """Whether this is the work that was measured."""
        return isinstance(fidelity, Fidelity) and same_work(fidelity, self.fidelity)

    def _lost(self, ratios: Sequence[Sequence[float]]) -> np.ndarray:
        """How many classes of each coupled set go, ``[N, sets]``."""
        return self.surrogate.cost_tables.classes_lost(np.array(ratios) / 100)

    def _predicted(self, lost: np.ndarray, seeds: np.ndarray) -> list[Outcome]:
        """Outcomes of ``[N, sets]``, each with its seed."""
        accuracies = self.surrogate.accuracy_lost(lost, seeds).tolist()
        costs, distances = self.surrogate.cost_tables.costs(lost), self.surrogate.distance_lost(lost).tolist()
        outcomes = []
        for row, (accuracy, distance) in enumerate(zip(accuracies, distances, strict=True)):
            kept = dict(zip(self._filters, costs.kept[row].tolist(), strict=True))
            cost = Costs(int(costs.macs[row]), int(costs.params[row]), int(costs.filters[row]))
            outcome = outcome_of(accuracy, cost, self.surrogate.whole, kept, self._filters, distance=distance)
            outcomes.append(self.task.by_agent(outcome))
        return outcomes


def predicting(
    task: Any,
    criterion: Any,
    fidelity: Fidelity | None,
    min_filters: int,
    round_to: int,
    latency: Any,
    layers: Any = None,
    tie: Any = None,
    agents_per: str = "layer",
) -> SurrogateEvaluator:
    """The evaluator of ``backend="surrogate"``, from the arguments of the environment.

    Raises:
        InputError: If there is no such surrogate, or it was made otherwise.
    """
    if not isinstance(task, (str, Path, Surrogate)):
        raise InputError(
            f"The task is a {type(task).__name__}: expected, with backend='surrogate', the name of a surrogate."
        )
    surrogate = task if isinstance(task, Surrogate) else load_surrogate(task)
    evaluator = SurrogateEvaluator(surrogate, layers, tie, agents_per)
    asked = {"criterion": criterion, "min_filters": min_filters, "round_to": round_to, "latency": latency}
    check_made("surrogate", surrogate.task, evaluator.criterion, asked)
    if fidelity is not None and not evaluator.measures_with(fidelity):
        what = work_of(evaluator.fidelity)
        raise InputError(
            f"The surrogate {surrogate.task!r} was made with another fidelity, {what}: expected that, or None."
        )
    return evaluator
