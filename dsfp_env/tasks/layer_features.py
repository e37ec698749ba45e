"""What agents see of their layers that never changes. Every number is in [0, 1].

| feature              | meaning                                                                       |
|----------------------|-------------------------------------------------------------------------------|
| position             | of the layer: 0 for the first agent, 1 for the last                           |
| log_filters          | log2(filters) / 12                                                            |
| log_inputs           | log2(input channels) / 12                                                     |
| macs_share           | the layer's share of the original network's MACs                              |
| params_share         | the layer's share of the original network's parameters                        |
| sensitivity          | mean filter score, scaled to [0, 1] over the layers                           |
| sensitivity_spread   | standard deviation of the layer's scores / range of all scores                |
| coupled              | 1 if other layers keep the same set of filters                                |
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from dsfp_env.criteria.criterion import Scores
from dsfp_env.tasks.task import Task

FIXED = (
    "position",
    "log_filters",
    "log_inputs",
    "macs_share",
    "params_share",
    "sensitivity",
    "sensitivity_spread",
    "coupled",
)

LARGEST_LOG = 12  # of a number of channels


def fixed_features(task: Task, filter_scores: Scores) -> dict[str, np.ndarray]:
    """The features that never change, agent -> ``[len(FIXED)]``.

    Args:
        task: What the agents work on.
        filter_scores: Of its filters, by module path.
    """
    graph = task.graph
    whole = graph.costs()
    scores = {agent: filter_scores[path] for agent, path in task.agents.items()}
    means = {agent: float(score.mean()) for agent, score in scores.items()}
    lowest, highest = min(means.values()), max(means.values())
    score_range = max(float(s.max()) for s in scores.values()) - min(float(s.min()) for s in scores.values())
    features = {}
    for index, (agent, path) in enumerate(task.agents.items()):
        layer = graph.layers[path]
        features[agent] = bounded(
            [
                index / max(1, len(task.agents) - 1),
                math.log2(layer.out_channels) / LARGEST_LOG,
                math.log2(layer.in_channels) / LARGEST_LOG,
                layer.macs / whole.macs,
                layer.params / whole.params,
                _share(means[agent] - lowest, highest - lowest),
                _share(float(scores[agent].std(correction=0)), score_range),
                float(bool(layer.coupled_with)),
            ]
        )
    return features


def bounded(numbers: ArrayLike) -> np.ndarray:
    """Numbers as float32, those outside of [0, 1] at the bound; an array of float32 is changed in place."""
    result = np.asarray(numbers, np.float32)
    np.maximum(result, 0, out=result)
    return np.minimum(result, 1, out=result)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
