"""Ratios in, measured outcome out: score, choose, remove, recalibrate, distil, measure.

An evaluation is a pure function of (task, ratios, criterion, fidelity, seed): its noise depends on the seed
alone, never on what was evaluated before. So equal questions are answered from a cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from torch import nn

from dsfp_env.accuracy import measure_accuracy
from dsfp_env.actions import as_fractions
from dsfp_env.channels import Keep
from dsfp_env.costs import Costs
from dsfp_env.distillation import Fidelity, fine_tune, recalibrate
from dsfp_env.latency import LatencyMeter
from dsfp_env.rewards import Outcome
from dsfp_env.sensitivity import Criterion, Scores
from dsfp_env.tasks import Task


class Evaluator:
    """Evaluates joint actions on a task.

    Args:
        task: The trained network and its data.
        criterion: Which filters go first; see `score_filters`.
        fidelity: The work of one evaluation; the task's own if not given.
        min_filters: Filters that every layer keeps at least.
        round_to: Layers that lose filters keep a multiple of this; see `ChannelGraph.keep`.
        latency: How to measure the time of a forward pass, if that is to be part of outcomes.
    """

    def __init__(
        self,
        task: Task,
        criterion: str | Criterion = "dsfp",
        fidelity: Fidelity | None = None,
        min_filters: int = 1,
        round_to: int = 1,
        latency: LatencyMeter | None = None,
    ) -> None:
        self.task = task
        self.criterion = criterion
        self.fidelity = fidelity or task.fidelity
        self.min_filters, self.round_to, self.latency = min_filters, round_to, latency
        self._outcomes: dict[tuple[int, tuple[tuple[int, ...], ...]], Outcome] = {}

    @property
    def scores(self) -> Scores:
        """Filter scores by module path; the same for every evaluation."""
        return self.task.scores(self.criterion)

    @cached_property
    def original(self) -> Outcome:
        """The unpruned network as it is, without fine-tuning."""
        whole = self.task.graph.keep({}, self.scores)
        return self._measured(self.task.network, whole)

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """Measure the network pruned by these ratios.

        Args:
            ratios: Agent -> pruning ratio in percent, in [10, 90]; every agent of the task.
            seed: Drives the fine-tuning.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number in [10, 90].
        """
        keep = self.keep(ratios)
        key = self._key(keep, seed)
        if key not in self._outcomes:
            self._outcomes[key] = self._measured(self._recovered(keep, seed), keep)
        return self._outcomes[key]

    def remember(self, ratios: Mapping[str, float], seed: int, accuracy: float) -> None:
        """Take the accuracy of an evaluation that was made earlier, so that it need not be made again."""
        keep = self.keep(ratios)
        self._outcomes[self._key(keep, seed)] = self.outcome(keep, accuracy)

    def build(self, ratios: Mapping[str, float], seed: int = 0) -> nn.Module:
        """The network that `evaluate` measures: slim, recalibrated and fine-tuned, in evaluation mode."""
        return self._recovered(self.keep(ratios), seed)

    def keep(self, ratios: Mapping[str, float]) -> Keep:
        """The filters that stay, by module path. Raises as `evaluate` does."""
        fractions = as_fractions(ratios, self.task.agents)
        return self.task.graph.keep(fractions, self.scores, self.min_filters, self.round_to)

    def costs(self, ratios: Mapping[str, float]) -> Costs:
        """The costs of the pruned network, without making it. Raises as `evaluate` does."""
        return self.task.graph.costs(self.keep(ratios))

    def outcome(self, keep: Keep, accuracy: float, latency: float | None = None) -> Outcome:
        """The outcome of keeping these filters, given what was measured."""
        graph = self.task.graph
        costs, whole = graph.costs(keep), graph.costs()
        kept = {agent: len(keep[path]) for agent, path in self.task.agents.items()}
        return Outcome(
            accuracy=accuracy,
            macs=costs.macs,
            relative_macs=costs.macs / whole.macs,
            params=costs.params,
            relative_params=costs.params / whole.params,
            filters=costs.filters,
            filters_kept=kept,
            applied_ratios={
                agent: 100 * (1 - kept[agent] / graph.layers[path].out_channels)
                for agent, path in self.task.agents.items()
            },
            latency=latency,
        )

    def _key(self, keep: Keep, seed: int) -> tuple[int, tuple[tuple[int, ...], ...]]:
        return seed, tuple(tuple(kept.tolist()) for kept in keep.values())

    def _measured(self, network: nn.Module, keep: Keep) -> Outcome:
        accuracy = measure_accuracy(network, self.task.validation)
        images = self.task.validation.images
        latency = self.latency.measure(network, images).seconds if self.latency else None
        return self.outcome(keep, accuracy, latency)

    def _recovered(self, keep: Keep, seed: int) -> nn.Module:
        task = self.task
        network = task.graph.slim(task.network, keep)
        recalibrate(network, task.train.images[: self.fidelity.recalibration_images])
        fine_tune(network, task.train, task.teacher_logits, self.fidelity, seed)
        return network.eval()
