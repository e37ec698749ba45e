"""The work of one evaluation: kept filters -> slim network -> recalibration, short distillation -> an `Outcome`.

A `Measurement` is a pure function of (kept filters, seed): its noise depends on the seed alone, never on what was
measured before, nor on the process. It holds what the work needs and no more, and pickles; `Question` is what it
is asked, in plain numbers. So it can be sent to wherever the work is to be done. Of several threads of one
process, one measures at a time, whatever the evaluator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.graph import Keep
from dsfp_env.common.devices import threads_set, with_gradients
from dsfp_env.common.errors import InputError
from dsfp_env.common.one_at_a_time import alone, computed_once
from dsfp_env.common.repeatable import repeatable
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.evaluation.latency import Latency, LatencyMeter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor
from dsfp_env.evaluation.outcome import Outcome, outcome_of
from dsfp_env.speed.folding import fold
from dsfp_env.speed.norm_kernel import choose_kernels
from dsfp_env.tasks.task import Task
from dsfp_env.training.accuracy import measure_metric
from dsfp_env.training.distillation import Fidelity, fine_tune, is_same_graphed, recalibrate


@dataclass(frozen=True)
class Question:
    """What a measurement is asked: all that its outcome depends on besides."""

    kept: tuple[bytes, ...]  # of each prunable layer, a bit for every filter: 1 if it stays
    seed: int
    threads: int  # of the CPU


class Measurement:
    """Prunes the network of a task, lets it recover, and measures it.

    Args:
        task: The trained network and its data; the test split is not kept.
        fidelity: The work of one evaluation; the task's own if not given. What is "auto" in it is chosen here.
        latency: How to measure the time of a forward pass, or to predict it, if that is to be part of outcomes.
    """

    def __init__(
        self,
        task: Task,
        fidelity: Fidelity | None = None,
        latency: LatencyMeter | LatencyPredictor | None = None,
    ) -> None:
        self.network, self.graph, self.agents = task.network, task.graph, task.control.agents
        self.train, self.validation, self.teacher = task.train, task.validation, task.teacher
        self.objective = task.objective
        self.fidelity, self.latency = chosen_fidelity(task, fidelity or task.fidelity), latency
        self.predicted = latency.fitted(task) if isinstance(latency, LatencyPredictor) else None

    @alone()
    @with_gradients()
    def measure(self, keep: Mapping[str, torch.Tensor], seed: int = 0) -> Outcome:
        """What the network is worth when it keeps these filters.

        Args:
            keep: Module path -> indices of the filters that stay, from `ChannelGraph.keep`.
            seed: Drives the fine-tuning.
        """
        keep = self.graph.kept(keep)
        with threads_set(self.fidelity.threads):
            return self._measured(self.build(keep, seed), keep)

    @alone()
    @with_gradients()
    def measure_original(self) -> Outcome:
        """What the unpruned network is worth as it is, without fine-tuning.

        Raises:
            InputError: If that is nothing, since pruned networks could not be told from each other.
        """
        with threads_set(self.fidelity.threads):
            original, metric = self._measured(self.network, {}), self.objective.metric
        if original.accuracy == 0 and not metric.is_accuracy:
            raise InputError(
                f"The {metric.name} of the original network is no better than the worst, {metric.worst:g}: "
                "expected a trained network, and a metric with its range: "
                "dsfp_env.Metric(function, name, worst=..., best=...)."
            )
        return original

    @alone()
    @with_gradients()
    def build(self, keep: Mapping[str, torch.Tensor], seed: int = 0) -> nn.Module:
        """The network that `measure` measures: slim, recalibrated and fine-tuned, in evaluation mode."""
        fidelity = self.fidelity
        with self._computing():
            network = self.graph.slim(self.network, dict(keep))
            images = self.train.images[: fidelity.recalibration_images]
            recalibrate(network, images, precision=fidelity.precision)
            transfer_set = self.teacher.transfer_set(fidelity, seed)
            fine_tune(network, self.train, transfer_set, fidelity, seed, self.objective, self.graphed)
            return network.eval()

    def accuracies(self, network: nn.Module, *splits: LabelledImages) -> list[float]:
        """The metric of a pruned network or the original on each split, scaled to [0, 1]; see `metrics`."""
        return [self.objective.metric.scaled(value) for value in self.values(network, *splits)]

    @alone()
    @with_gradients()
    def values(self, network: nn.Module, *splits: LabelledImages) -> list[float]:
        """The metric of a pruned network or the original on each split, as precisely as the fidelity says."""
        exact = self.fidelity.precision == "float32"
        with self._computing():
            answering = network if exact else fold(network, self.teacher.norms)
            metric, precision = self.objective.metric, self.fidelity.precision
            return [measure_metric(answering, split, metric, precision) for split in splits]

    def outcome(self, keep: Mapping[str, torch.Tensor], accuracy: float, latency: float | None = None) -> Outcome:
        """The outcome of keeping these filters (all, if none are given), given what was measured."""
        whole = {path: layer.out_channels for path, layer in self.graph.layers.items()}
        widths = {path: len(kept) for path, kept in keep.items()} or whole
        filters, kept = (
            {agent: sum(of_layer[path] for path in decides.paths) for agent, decides in self.agents.items()}
            for of_layer in (whole, widths)
        )
        if self.predicted is not None:
            latency = self.predicted.seconds(self.graph.alive(keep))
        return outcome_of(accuracy, self.graph.costs(dict(keep)), self.graph.costs(), kept, filters, latency)

    @alone()
    def measure_latency(self, network: nn.Module) -> Latency | None:
        """The time of a forward pass as it is, also where others are predicted; None if times do not matter."""
        meter = self.latency.meter if isinstance(self.latency, LatencyPredictor) else self.latency
        return None if meter is None else meter.measure(network, self.validation.images[: meter.batch_size])

    def question(self, keep: Mapping[str, torch.Tensor], seed: int) -> Question:
        """What `measure(keep, seed)` asks, with the threads of this process."""
        kept = []
        for path, layer in self.graph.layers.items():
            stays = np.zeros(layer.out_channels, bool)
            stays[keep[path].numpy()] = True
            kept.append(np.packbits(stays).tobytes())
        return Question(tuple(kept), int(seed), self.fidelity.threads or torch.get_num_threads())

    def kept(self, question: Question) -> Keep:
        """The filters that a question is about, as `ChannelGraph.keep` names them."""
        bits = zip(self.graph.layers.items(), question.kept, strict=True)
        return {
            path: torch.from_numpy(
                np.unpackbits(np.frombuffer(kept, np.uint8), count=layer.out_channels).nonzero()[0]
            )
            for (path, layer), kept in bits
        }

    def answer(self, question: Question) -> Outcome:
        """`measure` what a question is about."""
        with alone(), threads_set(question.threads):
            return self.measure(self.kept(question), question.seed)

    @alone()
    def prepare(self) -> None:
        """Compute what is one for all seeds, so that who this is sent to need not."""
        with self._computing():
            self.teacher.transfer_set(self.fidelity, 0)
            _ = self.graphed

    @computed_once
    @with_gradients()
    def graphed(self) -> bool:
        """Whether the batches of the fine-tuning are each launched as one, which changes no number."""
        with self._computing():
            return is_same_graphed(self.network, self.train, self.fidelity, self.objective)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """As the fidelity says, and always alike."""
        with threads_set(self.fidelity.threads), repeatable(exact=self.fidelity.precision != "bfloat16"):
            yield

    def _measured(self, network: nn.Module, keep: Mapping[str, torch.Tensor]) -> Outcome:
        (accuracy,) = self.accuracies(network, self.validation)
        measured = self.measure_latency(network) if isinstance(self.latency, LatencyMeter) else None
        latency = None if measured is None else measured.seconds
        return self.outcome(keep, accuracy, latency)


def chosen_fidelity(task: Task, fidelity: Fidelity) -> Fidelity:
    """A fidelity in which nothing is "auto", for a task."""
    precision = task.precision if fidelity.precision == "auto" else fidelity.precision
    return replace(fidelity, precision=precision, kernels=choose_kernels(fidelity.kernels, precision, task.device))
