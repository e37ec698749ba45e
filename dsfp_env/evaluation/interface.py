"""What environments and learners use of an evaluator, be it one that measures or one that looks up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dsfp_env.channels.costs import Costs
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor
from dsfp_env.evaluation.outcome import Outcome


class AnyTask(Protocol):
    """What is known of a task by name."""

    @property
    def name(self) -> str:
        """For tables and files."""

    @property
    def agents(self) -> Mapping[str, str]:
        """Agent -> module path of its convolution, the first if it decides for several."""

    @property
    def coupled_agents(self) -> Mapping[str, tuple[str, ...]]:
        """Agent -> the agents of the layers that are pruned together with its own."""


class AnyEvaluator(Protocol):
    """Tells what joint actions are worth; `Evaluator` says what each of these means."""

    @property
    def task(self) -> AnyTask:
        """What the agents work on."""

    @property
    def levels(self) -> np.ndarray:
        """The ratios in percent that actions="levels" means."""

    @property
    def latency(self) -> LatencyMeter | LatencyPredictor | None:
        """How the time of a forward pass is measured or predicted, if it is."""

    @property
    def layer_features(self) -> Mapping[str, np.ndarray]:
        """Agent -> what it sees of its layer that never changes, ``[len(layer_features.FIXED)]``."""

    @property
    def original(self) -> Outcome:
        """Of the unpruned network."""

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """Of the network pruned by ratios in percent by agent."""

    def evaluate_many(
        self, plans: Iterable[Mapping[str, float]], seed: int | Sequence[int] = 0, workers: int | None = None
    ) -> list[Outcome]:
        """Of many, in their order."""

    def start_many(
        self, plans: Iterable[Mapping[str, float]], seed: int | Sequence[int] = 0, workers: int | None = None
    ) -> Iterator[Outcome]:
        """The same, each when it is asked for."""

    def costs(self, ratios: Mapping[str, float]) -> Costs:
        """Of the pruned network, without measuring it."""

    def predicted_latency(self, ratios: Mapping[str, float]) -> float:
        """Seconds of a forward pass of the pruned network, where times are predicted."""

    def close(self) -> None:
        """End what was started for it."""


def check_evaluator(evaluator: Any) -> None:
    """Refuse what is no evaluator.

    Raises:
        InputError: If it is none.
    """
    if isinstance(evaluator, type) or not hasattr(evaluator, "evaluate_many"):
        what = f"class {evaluator.__name__}" if isinstance(evaluator, type) else type(evaluator).__name__
        raise InputError(
            f"The evaluator is of type {what}: expected a dsfp_env.Evaluator, TableEvaluator or "
            "SurrogateEvaluator; dsfp_env.parallel_env(task=...) makes one."
        )
