"""Ratios in, measured outcome out: a question is answered from memory, from the disk, or by a measurement.

An evaluation is a pure function of (task, ratios, criterion, fidelity, seed), see `measurement`. So equal
questions are answered once, and many are answered at once, by workers.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.costs import Costs
from dsfp_env.channels.graph import Keep
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.one_at_a_time import alone, computed_once
from dsfp_env.common.random_numbers import LARGEST_EVALUATION_SEED, check_seed
from dsfp_env.criteria.criterion import Criterion, Scores
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.chosen import executor_from
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.executors.serial import Serial
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor
from dsfp_env.evaluation.measurement import Measurement, Question, chosen_fidelity
from dsfp_env.evaluation.memo import Memo
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import LEVELS, as_fractions, listed
from dsfp_env.evaluation.staff import Staff
from dsfp_env.evaluation.stored_outcomes import StoredOutcomes
from dsfp_env.evaluation.workers import MOST_WORKERS, available_cores
from dsfp_env.tasks.layer_features import fixed_features
from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity

TIMES = (LatencyMeter, LatencyPredictor)  # who tells them


class Evaluator:
    """Evaluates joint actions on a task. A context manager, for those who want its workers gone early.

    Several threads may use one. What is computed in this process is computed for one of them at a time, as a
    whole, so outcomes are those of one thread. `copy.deepcopy` gives the evaluator itself: of equal questions one
    is answered. Pickled, it takes its task and what it knows along, not its workers.

    Args:
        task: The trained network and its data.
        criterion: Which filters go first; see `score_filters`.
        fidelity: The work of one evaluation; the task's own if not given.
        min_filters: Filters that every layer keeps at least.
        round_to: Layers that lose filters keep a multiple of this; see `ChannelGraph.keep`.
        latency: How to measure the time of a forward pass, or to predict it, if that is to be part of outcomes.
        store: Whether to take what an earlier process measured from the disk, and keep there what is measured; see
            `outcome_store`. Times that are measured are never kept.
        executor: Where many are evaluated at once: ``"processes"`` of this machine, ``"serial"`` (this process),
            ``"ray"``, with options as in ``"ray(address=auto)"`` (a Ray cluster, see `executors.ray_cluster`), or
            an object such as `executors.Executor` describes. Outcomes do not depend on it.

    Raises:
        InputError: If a number or the executor cannot be used.
    """

    levels = LEVELS  # the ratios in percent that actions="levels" means
    workers: int | None = None  # of `evaluate_many`, where that is not told how many

    def __init__(
        self,
        task: Task,
        criterion: str | Criterion = "dsfp",
        fidelity: Fidelity | None = None,
        min_filters: int = 1,
        round_to: int = 1,
        latency: LatencyMeter | LatencyPredictor | None = None,
        store: bool = True,
        executor: str | Executor = "processes",
    ) -> None:
        if not isinstance(task, Task):
            raise InputError(f"The task is {shortened(task)}: expected a dsfp_env.Task, as load_task gives.")
        for what, came, kinds in (("fidelity", fidelity, (Fidelity,)), ("latency", latency, TIMES)):
            if came is not None and not isinstance(came, kinds):
                names = " or ".join(f"dsfp_env.{kind.__name__}" for kind in kinds)
                raise InputError(f"The {what} is {shortened(came)}: expected a {names}, or None.")
        if not isinstance(store, bool):
            raise InputError(f"store is {shortened(store)}: expected True or False.")
        _check_widths(task, min_filters=min_filters, round_to=round_to)
        self.task, self.criterion = task, criterion
        self.min_filters, self.round_to, self.store = min_filters, round_to, store
        self.measurement = Measurement(task, fidelity, latency)
        self._store = StoredOutcomes(task, self.measurement) if store and not self.timed else None
        self._memo = Memo(self.measurement, self._store)
        self.executor = executor_from(executor)
        _check_executor(self.executor, task, self.timed)
        self._staff = Staff(self.executor)

    @property
    def fidelity(self) -> Fidelity:
        """The work of one evaluation, with nothing "auto" in it."""
        return self.measurement.fidelity

    @property
    def latency(self) -> LatencyMeter | LatencyPredictor | None:
        """How the time of a forward pass is measured or predicted, if it is."""
        return self.measurement.latency

    @property
    def timed(self) -> bool:
        """Whether times are measured, which are never the same again."""
        return isinstance(self.latency, LatencyMeter)

    def measures_with(self, fidelity: Fidelity) -> bool:
        """Whether this is the work of its evaluations."""
        return isinstance(fidelity, Fidelity) and chosen_fidelity(self.task, fidelity) == self.fidelity

    @property
    def scores(self) -> Scores:
        """Filter scores by module path; the same for every evaluation."""
        return self.task.scores(self.criterion)

    @computed_once
    def layer_features(self) -> dict[str, np.ndarray]:
        """What agents see of their layers that never changes; see `tasks.layer_features`."""
        return fixed_features(self.task, self.scores)

    @computed_once
    def original(self) -> Outcome:
        """The unpruned network as it is, without fine-tuning."""
        return self.measurement.measure_original()

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """Measure the network pruned by these ratios.

        Args:
            ratios: Agent -> pruning ratio in percent, in [10, 90] or its own bounds; every agent of the task.
            seed: Drives the fine-tuning.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number within its bounds.
        """
        return self._memo.one(self._question(ratios, seed))

    def evaluate_many(
        self,
        plans: Iterable[Mapping[str, float]],
        seed: int | Sequence[int] = 0,
        workers: int | None = None,
    ) -> list[Outcome]:
        """Measure many pruned networks, several at once. The outcomes are those of `evaluate`, to the last bit.

        Args:
            plans: Ratios in percent by agent, as for `evaluate`. Equal ones are evaluated once.
            seed: Drives the fine-tuning; one for all, or one for each.
            workers: How many to use, at most; with 1 the work is done in this process. Unless given, the number
                that the executor was made with. If that has none: all that a cluster has room for; of processes,
                as many as there are cores for the threads of each, but 1 on a GPU, where times are measured, and
                in a process that another one has started by `multiprocessing`. Workers are started when they are
                needed, which takes a few seconds, and kept for the next call. On the CPU they share one copy of
                images and weights on each machine; on a GPU, where they are used only if a number is given, each
                has its own, and a context of its own.

        Returns:
            An outcome for each plan, in their order.

        Raises:
            InputError: If a plan, a seed or the number of workers cannot be used; nothing is started then.
        """
        return list(self.start_many(plans, seed, workers))

    def start_many(
        self,
        plans: Iterable[Mapping[str, float]],
        seed: int | Sequence[int] = 0,
        workers: int | None = None,
    ) -> Iterator[Outcome]:
        """As `evaluate_many`, but without waiting: the workers go on while this process does something else.

        Returns:
            The outcomes in order, each when it is asked for. Without workers, that is when the work is done. Any
            thread may ask, one at a time.
        """
        return self._memo.many(self._questions(plans, seed), self._staff_of(self._worker_count(workers)))

    def close(self) -> None:
        """End the workers, if there are any; they are started anew when they are needed."""
        self._staff.stop()

    def __deepcopy__(self, memo: dict[int, Any]) -> Evaluator:
        return self

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def remember(self, ratios: Mapping[str, float], seed: int, accuracy: float) -> None:
        """Take the accuracy of an evaluation that was made earlier, so that it need not be made again."""
        check_seed(seed, "The seed of an evaluation", LARGEST_EVALUATION_SEED)
        keep = self.keep(ratios)
        self._memo.known[self.measurement.question(keep, seed)] = self.outcome(keep, accuracy)

    def build(self, ratios: Mapping[str, float], seed: int = 0) -> nn.Module:
        """The network that `evaluate` measures: slim, recalibrated and fine-tuned, in evaluation mode.

        Args:
            ratios: As for `evaluate`.
            seed: Likewise.

        Raises:
            InputError: As `evaluate` does.
        """
        check_seed(seed, "The seed of an evaluation", LARGEST_EVALUATION_SEED)
        return self.measurement.build(self.keep(ratios), seed)

    def measure_splits(self, ratios: Mapping[str, float] | None = None, seed: int = 0) -> tuple[float, float]:
        """Accuracy on the validation split, that of `evaluate`, and on the test split. For tables and reports.

        Args:
            ratios: As for `evaluate`; if None, the original network is measured, as it is.
            seed: Drives the fine-tuning.
        """
        scaled = self.task.metric.scaled
        validation, test = self.measure_values(ratios, seed)
        return scaled(validation), scaled(test)

    def measure_values(self, ratios: Mapping[str, float] | None = None, seed: int = 0) -> tuple[float, float]:
        """As `measure_splits`, but in the units of the task's metric, not scaled to [0, 1]."""
        with alone():
            network = self.task.network if ratios is None else self.build(ratios, seed)
            validation, test = self.measurement.values(network, self.task.validation, self.task.test)
        return validation, test

    def keep(self, ratios: Mapping[str, float]) -> Keep:
        """The filters that stay, by module path. Raises as `evaluate` does."""
        fractions = as_fractions(ratios, self.task.control)
        return self.task.graph.keep(fractions, self.scores, self.min_filters, self.round_to)

    def costs(self, ratios: Mapping[str, float]) -> Costs:
        """The costs of the pruned network, without making it. Raises as `evaluate` does."""
        return self.task.graph.costs(self.keep(ratios))

    def predicted_latency(self, ratios: Mapping[str, float]) -> float:
        """Seconds of a forward pass of the pruned network, as predicted. Raises as `evaluate` does.

        Raises:
            InputError: Also if no times are predicted.
        """
        predicted = self.measurement.predicted
        if predicted is None:
            raise InputError(
                "No times are predicted here: give the evaluator latency=dsfp_env.LatencyPredictor()."
            )
        return predicted.seconds(self.task.graph.alive(self.keep(ratios)))

    def outcome(self, keep: Keep, accuracy: float) -> Outcome:
        """The outcome of keeping these filters, given the accuracy that was measured."""
        return self.measurement.outcome(keep, accuracy)

    def _question(self, ratios: Mapping[str, float], seed: int) -> Question:
        check_seed(seed, "The seed of an evaluation", LARGEST_EVALUATION_SEED)
        return self.measurement.question(self.keep(ratios), seed)

    def _questions(self, plans: Iterable[Mapping[str, float]], seed: int | Sequence[int]) -> list[Question]:
        """Every plan with its seed, checked."""
        plans, seeds = listed(plans, seed)
        questions = []
        for position, (plan, one) in enumerate(zip(plans, seeds, strict=True)):
            try:
                questions.append(self._question(plan, one))
            except InputError as error:
                raise InputError(f"plans[{position}]: {error}") from error
        return questions

    def _staff_of(self, workers: int | None) -> Staff | None:
        """Who is asked, if that is not this process alone."""
        self._staff.count = workers
        return None if workers == 1 else self._staff

    def _worker_count(self, asked: int | None) -> int | None:
        """How many are to work at once; None: as many as the executor has room for."""
        asked = self.workers if asked is None else asked
        asked = self.executor.count if asked is None else asked
        if asked is not None and not (
            isinstance(asked, Integral) and not isinstance(asked, bool) and 1 <= asked <= MOST_WORKERS
        ):
            raise InputError(
                f"workers is {shortened(asked)}: expected a number of processes, from 1 to {MOST_WORKERS}, or "
                "None."
            )
        if isinstance(self.executor, Serial):
            return 1
        if asked is None:
            if not isinstance(self.executor, Processes):
                return None
            alone = self.timed or self.task.device.type != "cpu"
            alone = alone or multiprocessing.parent_process() is not None  # one of several that share the cores
            threads = self.fidelity.threads or torch.get_num_threads()
            return 1 if alone else max(1, available_cores() // threads)
        if asked > 1 and self.timed:
            raise InputError(f"workers is {asked}, but times are measured one after another: leave workers out.")
        return int(asked)


def _check_executor(executor: Executor, task: Task, timed: bool) -> None:
    """Refuse a place where this cannot be measured."""
    if timed and not isinstance(executor, (Serial, Processes)):
        raise InputError("Times are measured on this machine, one after another: leave the executor out.")
    executor.check(task.device)


def _check_widths(task: Task, **numbers: int) -> None:
    """Refuse numbers of filters with which every layer of a task would keep all it has."""
    widest = max((layer.out_channels for layer in task.graph.layers.values()), default=1)
    for name, number in numbers.items():
        if not isinstance(number, Integral) or not 1 <= number <= widest:
            raise InputError(
                f"{name} is {shortened(number)}: expected a whole number from 1 to {widest}, the filters of the "
                "widest "
                "layer."
            )
