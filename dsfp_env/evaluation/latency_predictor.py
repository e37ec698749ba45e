"""Times that are predicted, not measured each: a model is fitted to a task once on a device, and kept on disk.

Some networks pruned at random are measured (60 unless told otherwise), in turn, deployed as the meter says. The
model is found again by what it depends on: the structure of the network, the device, the way it is deployed, and
the plans that were measured. Neither weights nor data are part of that.
"""

from __future__ import annotations

import hashlib
import json
import os
import pkgutil
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.graph import ChannelGraph, Keep
from dsfp_env.common.devices import device_name
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import cache_directory, write_whole
from dsfp_env.common.one_at_a_time import alone
from dsfp_env.common.saying import remark
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.latency_features import LatencyFeatures
from dsfp_env.evaluation.latency_model import FOLDS, LatencyModel, fit
from dsfp_env.tasks.task import Task

_SOURCES = ("latency.py", "latency_features.py", "latency_model.py", "latency_predictor.py")
_MOST = 0.9  # the largest pruning ratio, a fraction


@dataclass(frozen=True)
class LatencyPredictor:
    """How to predict: what the evaluator or the environment takes as ``latency=``.

    Attributes:
        meter: How networks are deployed and measured, those of the fit and the final ones.
        networks: Pruned networks to measure for the fit, 20 or more.
        seed: Draws their ratios.
        model: One that is there already, in place of measuring.

    Raises:
        InputError: If there are too few networks.
    """

    meter: LatencyMeter = field(default_factory=partial(LatencyMeter, rounds=5))
    networks: int = 60
    seed: int = 0
    model: LatencyModel | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.networks, (int, np.integer)) or self.networks < 4 * FOLDS:
            raise InputError(
                f"networks is {self.networks!r}: expected a whole number of pruned networks to measure, "
                f"{4 * FOLDS} or more."
            )

    def fitted(self, task: Task) -> PredictedLatency:
        """The model for a task: the one given, the one on disk, or else one that is fitted now.

        Raises:
            InputError: If the one given is of another network.
        """
        features = LatencyFeatures(task.graph)
        model = self.model or _read(self._file(task)) or self._fit(task, features)
        if len(model.weights) != features.count:
            raise InputError(
                f"The latency model has {len(model.weights)} weights, and the network of {task.name!r} asks for "
                f"{features.count}: expected one that was fitted to a network of this structure."
            )
        return PredictedLatency(self.meter, model, features)

    @alone()
    def _fit(self, task: Task, features: LatencyFeatures) -> LatencyModel:
        plans = [{}, *random_keeps(task.graph, self.networks, np.random.default_rng(self.seed))]
        seconds = self.meter.min_run_time * len(plans)
        remark(f"measuring {len(plans)} networks for a model of time on this device, about {seconds:.0f} s")
        measured = self.meter.measure_many(_Slim(task.network, task.graph, plans), task.validation.images)
        told = np.stack([features.of(task.graph.alive(keep)) for keep in plans])
        times, spreads = np.array([[one.seconds, one.spread] for one in measured]).T
        model = fit(told, times, features.shared, spreads.tolist())
        remark(
            f"networks that the model had not seen are predicted within {model.median_error:.1%} (half of them), "
            f"{model.error_90:.1%} (nine tenths)"
        )
        file = self._file(task)
        if there := _read(file):  # another process was sooner, and has begun to use its own
            return there
        write_model(file, model)
        return model

    def _file(self, task: Task) -> Path:
        """Where the model of a task is kept."""
        image = tuple(task.train.images.shape[1:])
        how = asdict(self.meter), self.networks, self.seed, image
        machine = torch.__version__, device_name(task.device), platform.machine(), os.cpu_count(), _processor()
        code = [pkgutil.get_data("dsfp_env", f"evaluation/{name}") for name in _SOURCES]
        text = repr((_structure(task.network, task.graph), how, machine, code))
        return cache_directory() / "latency" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


class PredictedLatency:
    """Predicts times of networks cut from one.

    Args:
        meter: How the networks of the fit were measured.
        model: From the fit.
        features: Of the network.
    """

    def __init__(self, meter: LatencyMeter, model: LatencyModel, features: LatencyFeatures) -> None:
        self.meter, self.model, self._features = meter, model, features

    def seconds(self, alive: np.ndarray) -> float:
        """Of a forward pass of the network that keeps these classes, ``[classes]`` bool."""
        return float(self.model.predict(self._features.of(alive)))


def predictor_of(latency: LatencyMeter | LatencyPredictor | None) -> LatencyPredictor:
    """A predictor: the one given, or one that measures as the meter given does."""
    if isinstance(latency, LatencyPredictor):
        return latency
    return LatencyPredictor() if latency is None else LatencyPredictor(latency)


def random_keeps(graph: ChannelGraph, count: int, rng: np.random.Generator) -> list[Keep]:
    """Kept filters drawn at random, of all sizes: every second time all layers are pruned by about as much.

    Args:
        graph: Of the network.
        count: How many.
        rng: Draws them.
    """
    scores = {path: torch.zeros(layer.out_channels) for path, layer in graph.layers.items()}
    keeps = []
    for number in range(count):
        ratios = rng.uniform(0, _MOST, len(graph.layers))
        if number % 2:
            ratios = np.clip(rng.uniform(0, _MOST) + rng.normal(0, 0.1, len(ratios)), 0, _MOST)
        keeps.append(graph.keep(dict(zip(graph.layers, ratios.tolist(), strict=True)), scores))
    return keeps


def write_model(path: Path, model: LatencyModel) -> None:
    """Write a model as JSON, whole or not at all."""
    text = json.dumps(asdict(model)) + "\n"
    write_whole(path, lambda file: file.write(text.encode()))


def read_model(path: Path) -> LatencyModel | None:
    """A model from a file; None if there is none, or it cannot be read."""
    return _read(path)


def _read(path: Path) -> LatencyModel | None:
    try:
        said: Mapping[str, Any] = json.loads(path.read_text())
        numbers = {one.name: said[one.name] for one in fields(LatencyModel)}
        weights = tuple(float(weight) for weight in numbers.pop("weights"))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    fine = all(np.isfinite(weight) and weight >= 0 for weight in weights)
    return LatencyModel(weights, **numbers) if fine else None


class _Slim(Sequence[nn.Module]):
    """Pruned networks, each made when it is looked at, so that only one is in memory."""

    def __init__(self, network: nn.Module, graph: ChannelGraph, keeps: Sequence[Keep]) -> None:
        self._network, self._graph, self._keeps = network, graph, keeps

    def __len__(self) -> int:
        return len(self._keeps)

    def __getitem__(self, place: Any) -> Any:
        return self._graph.slim(self._network, self._keeps[place])

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[place] for place in range(len(self)))


def _structure(network: nn.Module, graph: ChannelGraph) -> list[Any]:
    """What a network's time depends on, but for widths."""
    tensors = [
        (path, name, tuple(tensor.shape), tensor.uses, [axis is not None for axis in tensor.axes])
        for path, node in graph.nodes.items()
        for name, tensor in node.tensors.items()
    ]
    return [type(network).__qualname__, repr(network), tensors, list(graph.layers), graph.sets]


def _processor() -> str:
    """The name of the CPU, where it can be told."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
