"""Ratios in, measured outcome out: score, choose, remove, recalibrate, distil, measure.

An evaluation is a pure function of (task, ratios, criterion, fidelity, seed): its noise depends on the seed
alone, never on what was evaluated before, nor on the process. So equal questions are answered once, from memory
and from disk afterwards, and many are answered at once, by workers.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.costs import Costs
from dsfp_env.channels.graph import Keep
from dsfp_env.common.devices import threads_set, with_gradients
from dsfp_env.common.errors import InputError
from dsfp_env.criteria.scoring import Criterion, Scores
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.memo import Answers
from dsfp_env.evaluation.outcome import Outcome, outcome_of
from dsfp_env.evaluation.outcome_store import OutcomeStore
from dsfp_env.evaluation.plans import LEVELS, as_fractions
from dsfp_env.evaluation.workers import available_cores
from dsfp_env.speed.folding import fold
from dsfp_env.speed.norm_kernel import choose_kernels
from dsfp_env.tasks.fingerprints import evaluation_key
from dsfp_env.tasks.layer_features import fixed_features
from dsfp_env.tasks.task import Task
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.distillation import Fidelity, fine_tune, recalibrate


@dataclass(frozen=True)
class Question:
    """All that the outcome of an evaluation depends on, for one task and fidelity."""

    seed: int
    threads: int
    kept: tuple[tuple[int, ...], ...]  # the same as ``keep``
    keep: Keep = field(compare=False, repr=False)


class Evaluator:
    """Evaluates joint actions on a task. A context manager, for those who want its workers gone early.

    Args:
        task: The trained network and its data.
        criterion: Which filters go first; see `score_filters`.
        fidelity: The work of one evaluation; the task's own if not given.
        min_filters: Filters that every layer keeps at least.
        round_to: Layers that lose filters keep a multiple of this; see `ChannelGraph.keep`.
        latency: How to measure the time of a forward pass, if that is to be part of outcomes.
        store: Whether to take what an earlier process measured from the disk, and keep there what is measured; see
            `outcome_store`. Times are never kept.
    """

    levels = LEVELS  # the ratios in percent that actions="levels" means

    def __init__(
        self,
        task: Task,
        criterion: str | Criterion = "dsfp",
        fidelity: Fidelity | None = None,
        min_filters: int = 1,
        round_to: int = 1,
        latency: LatencyMeter | None = None,
        store: bool = True,
    ) -> None:
        self.task = task
        self.criterion = criterion
        self.fidelity = fidelity or task.fidelity
        if self.fidelity.precision == "auto":
            self.fidelity = replace(self.fidelity, precision=task.precision)
        kernels = choose_kernels(self.fidelity.kernels, self.fidelity.precision, task.device)
        self.fidelity = replace(self.fidelity, kernels=kernels)
        self.min_filters, self.round_to, self.latency = min_filters, round_to, latency
        self._store = OutcomeStore() if store and latency is None else None
        self._answers = Answers(self._evaluated, self._recall, self._keep_on_disk, self._for_workers)

    @property
    def scores(self) -> Scores:
        """Filter scores by module path; the same for every evaluation."""
        return self.task.scores(self.criterion)

    @cached_property
    def layer_features(self) -> dict[str, np.ndarray]:
        """What agents see of their layers that never changes; see `tasks.layer_features`."""
        return fixed_features(self.task, self.scores)

    @cached_property
    @with_gradients()
    def original(self) -> Outcome:
        """The unpruned network as it is, without fine-tuning."""
        whole = self.task.graph.keep({}, self.scores)
        with threads_set(self.fidelity.threads):
            return self._measured(self.task.network, whole)

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """Measure the network pruned by these ratios.

        Args:
            ratios: Agent -> pruning ratio in percent, in [10, 90]; every agent of the task.
            seed: Drives the fine-tuning.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number in [10, 90].
        """
        return self._answers.one(self._question(ratios, seed))

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
            workers: Processes to use, at most; with 1 the work is done in this one. Unless given, as many as there
                are cores for the threads of each; but 1 on a GPU, where times are measured, and in a process that
                another one has started by `multiprocessing`. They are started when they are needed, which takes
                a few seconds, and kept for the next call.

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
            The outcomes in order, each when it is asked for. Without workers, that is when the work is done.
        """
        return self._answers.many(self._questions(plans, seed), self._worker_count(workers))

    def close(self) -> None:
        """End the workers, if there are any; they are started anew when they are needed."""
        self._answers.stop()

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def remember(self, ratios: Mapping[str, float], seed: int, accuracy: float) -> None:
        """Take the accuracy of an evaluation that was made earlier, so that it need not be made again."""
        question = self._question(ratios, seed)
        self._answers.known[question] = self.outcome(question.keep, accuracy)

    @with_gradients()
    def build(self, ratios: Mapping[str, float], seed: int = 0) -> nn.Module:
        """The network that `evaluate` measures: slim, recalibrated and fine-tuned, in evaluation mode."""
        with threads_set(self.fidelity.threads):
            return self._recovered(self.keep(ratios), seed)

    @with_gradients()
    def measure_splits(self, ratios: Mapping[str, float] | None = None, seed: int = 0) -> tuple[float, float]:
        """Accuracy on the validation split, that of `evaluate`, and on the test split. For tables and reports.

        Args:
            ratios: As for `evaluate`; if None, the original network is measured, as it is.
            seed: Drives the fine-tuning.
        """
        with threads_set(self.fidelity.threads):
            network = self.task.network if ratios is None else self._recovered(self.keep(ratios), seed)
            validation, test = self._accuracies(network, self.task.validation, self.task.test)
        return validation, test

    def keep(self, ratios: Mapping[str, float]) -> Keep:
        """The filters that stay, by module path. Raises as `evaluate` does."""
        fractions = as_fractions(ratios, self.task.agents)
        return self.task.graph.keep(fractions, self.scores, self.min_filters, self.round_to)

    def costs(self, ratios: Mapping[str, float]) -> Costs:
        """The costs of the pruned network, without making it. Raises as `evaluate` does."""
        return self.task.graph.costs(self.keep(ratios))

    def outcome(self, keep: Keep, accuracy: float, latency: float | None = None) -> Outcome:
        """The outcome of keeping these filters, given what was measured."""
        graph, agents = self.task.graph, self.task.agents
        kept = {agent: len(keep[path]) for agent, path in agents.items()}
        filters = {agent: graph.layers[path].out_channels for agent, path in agents.items()}
        return outcome_of(accuracy, graph.costs(keep), graph.costs(), kept, filters, latency)

    def _question(self, ratios: Mapping[str, float], seed: int) -> Question:
        keep = self.keep(ratios)
        return Question(int(seed), self._threads, tuple(tuple(kept.tolist()) for kept in keep.values()), keep)

    def _questions(self, plans: Iterable[Mapping[str, float]], seed: int | Sequence[int]) -> list[Question]:
        """Every plan with its seed, checked."""
        if isinstance(plans, Mapping):
            raise InputError("One plan came alone: expected several, as in [plan, ...]; `evaluate` takes one.")
        plans = list(plans)
        seeds = [seed] * len(plans) if isinstance(seed, (int, np.integer)) else list(seed)
        if len(seeds) != len(plans) or not all(isinstance(one, (int, np.integer)) for one in seeds):
            raise InputError(
                f"The seeds {seeds} came for {len(plans)} plans: expected one integer, or one for each plan."
            )
        questions = []
        for position, (plan, one) in enumerate(zip(plans, seeds, strict=True)):
            try:
                questions.append(self._question(plan, one))
            except InputError as error:
                raise InputError(f"plans[{position}]: {error}") from error
        return questions

    def _recall(self, questions: Iterable[Question]) -> dict[Question, Outcome]:
        if self._store is None or self.task.fingerprint is None:
            return {}
        by_key = {self._key(question): question for question in questions}
        found = self._store.find(by_key)
        return {by_key[key]: self.outcome(by_key[key].keep, accuracy) for key, accuracy in found.items()}

    def _keep_on_disk(self, question: Question, outcome: Outcome) -> None:
        if self._store is not None and self.task.fingerprint is not None:
            self._store.add(self._key(question), outcome.accuracy)

    def _key(self, question: Question) -> str:
        fidelity = replace(self.fidelity, threads=question.threads)
        return evaluation_key(self.task.fingerprint, question.kept, fidelity, question.seed, self.task.device)

    @property
    def _threads(self) -> int:
        """Threads of one evaluation."""
        return self.fidelity.threads or torch.get_num_threads()

    def _worker_count(self, asked: int | None) -> int:
        if asked is None:
            alone = self.latency is not None or self.task.device.type != "cpu"
            alone = alone or multiprocessing.parent_process() is not None  # one of several that share the cores
            return 1 if alone else max(1, available_cores() // self._threads)
        if not isinstance(asked, (int, np.integer)) or asked < 1:
            raise InputError(f"workers is {asked!r}: expected a number of processes, 1 or more, or None.")
        if asked > 1 and self.latency is not None:
            raise InputError(f"workers is {asked}, but times are measured one after another: leave workers out.")
        return int(asked)

    def _for_workers(self) -> Callable[[Question], Outcome]:
        """`_evaluated` of a copy with what it needs, and no more: a criterion of the user's own may not pickle."""
        with threads_set(self._threads):  # what is one for all seeds is computed here, not by every worker
            self.task.transfer_set(self.fidelity, 0)
        task, lean = copy.copy(self.task), copy.copy(self)
        vars(task).update(test=None)
        vars(lean).update(task=task, criterion=None, _answers=None)
        return lean._evaluated

    @with_gradients()
    def _evaluated(self, question: Question) -> Outcome:
        """The work itself, in this process or in a worker."""
        with threads_set(question.threads):
            network = self._recovered(question.keep, question.seed)
            return self._measured(network, question.keep)

    def _measured(self, network: nn.Module, keep: Keep) -> Outcome:
        accuracy = self._accuracies(network, self.task.validation)[0]
        images = self.task.validation.images
        latency = self.latency.measure(network, images).seconds if self.latency else None
        return self.outcome(keep, accuracy, latency)

    def _accuracies(self, network: nn.Module, *splits: LabelledImages) -> list[float]:
        exact = self.fidelity.precision == "float32"
        answering = network if exact else fold(network, self.task.norms)
        return [measure_accuracy(answering, split, self.fidelity.precision) for split in splits]

    def _recovered(self, keep: Keep, seed: int) -> nn.Module:
        task, fidelity = self.task, self.fidelity
        network = task.graph.slim(task.network, keep)
        images = task.train.images[: fidelity.recalibration_images]
        recalibrate(network, images, precision=fidelity.precision)
        fine_tune(network, task.train, task.transfer_set(fidelity, seed), fidelity, seed)
        return network.eval()
