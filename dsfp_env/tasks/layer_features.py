"""What agents see of their layers that never changes. Every number is in [0, 1].

| feature              | meaning                                                                       |
|----------------------|-------------------------------------------------------------------------------|
| position             | of the layer: 0 for the first that can be pruned, 1 for the last              |
| log_filters          | log2(filters) / 12                                                            |
| log_inputs           | log2(input channels) / 12                                                     |
| macs_share           | the layer's share of the original network's MACs                              |
| params_share         | the layer's share of the original network's parameters                        |
| sensitivity          | mean filter score, scaled to [0, 1] over the layers                           |
| sensitivity_spread   | standard deviation of the layer's scores / range of all scores                |
| coupled              | 1 if other layers keep the same set of filters                                |

They tell of layers, not of who decides for them: which others are left alone or bounded changes nothing. An agent
of several layers sees the position of the first, their shares together, ``coupled`` if one is, and means of the
rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from dsfp_env.channels.graph import ChannelGraph
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
    of_layer = _by_layer(task.graph, filter_scores)
    return {
        agent: together([of_layer[path] for path in decides.paths])
        for agent, decides in task.control.agents.items()
    }


def together(features: Sequence[np.ndarray]) -> np.ndarray:
    """The features of an agent that decides for several layers, from theirs: ``[len(FIXED)]`` each."""
    if len(features) == 1:
        return features[0]
    each = dict(zip(FIXED, np.stack(features).T.astype(np.float64), strict=True))
    combined = {name: of_layers.mean() for name, of_layers in each.items()}
    combined |= {"position": each["position"][0], "coupled": each["coupled"].max()}
    combined |= {name: each[name].sum() for name in ("macs_share", "params_share")}
    return bounded([combined[name] for name in FIXED])


def _by_layer(graph: ChannelGraph, filter_scores: Scores) -> dict[str, np.ndarray]:
    """Module path -> features."""
    whole = graph.costs()
    scores = {path: filter_scores[path] for path in graph.layers}
    means = {path: float(score.mean()) for path, score in scores.items()}
    lowest, highest = min(means.values()), max(means.values())
    score_range = max(float(s.max()) for s in scores.values()) - min(float(s.min()) for s in scores.values())
    features = {}
    for index, (path, layer) in enumerate(graph.layers.items()):
        features[path] = bounded(
            [
                index / max(1, len(graph.layers) - 1),
                math.log2(layer.out_channels) / LARGEST_LOG,
                math.log2(layer.in_channels) / LARGEST_LOG,
                layer.macs / whole.macs,
                layer.params / whole.params,
                _share(means[path] - lowest, highest - lowest),
                _share(float(scores[path].std(correction=0)), score_range),
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
