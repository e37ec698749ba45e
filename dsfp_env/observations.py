"""What one agent sees, and the state for centralised critics. Every number is in [0, 1].

An agent's observation, ``observation="layers"``, is `FEATURES`, in this order:

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
| ratio                | fraction of the layer's filters that are gone (0 after reset)                 |
| accuracy             | validation accuracy of the network as it is (the original's after reset)      |
| relative_macs        | MACs of the network as it is / the original's (1 after reset)                 |
| macs_budget          | allowed relative MACs (1 if there is no budget)                               |
| time                 | steps taken / horizon                                                         |

``observation="context"`` is the paper's (DSFP section III-B): one number, the wanted pruning intensity in
percent, the same for all agents and constant during an episode.

The state is, for all agents in order, the fraction of filters kept, the share of MACs and the sensitivity, then
`SHARED`: a vector of ``3 * agents + 5``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from dsfp_env.criteria.scoring import Scores
from dsfp_env.rewards import Outcome
from dsfp_env.tasks import Task

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
SHARED = ("accuracy", "relative_macs", "relative_params", "macs_budget", "time")
FEATURES = (*FIXED, "ratio", "accuracy", "relative_macs", "macs_budget", "time")
LARGEST_LOG = 12  # of a number of channels


class Progress(NamedTuple):
    """What changes during an episode."""

    outcome: Outcome  # of the network as it is
    macs_budget: float | None
    time: float  # steps taken / horizon


def observation_space() -> Box:
    """The space of ``observation="layers"``."""
    return Box(0.0, 1.0, (len(FEATURES),), np.float32)


def context_space() -> Box:
    """The space of ``observation="context"``."""
    return Box(10.0, 90.0, (1,), np.float32)


def state_space(num_agents: int) -> Box:
    """The space of `state`."""
    return Box(0.0, 1.0, (3 * num_agents + len(SHARED),), np.float32)


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
        features[agent] = _bounded(
            index / max(1, len(task.agents) - 1),
            math.log2(layer.out_channels) / LARGEST_LOG,
            math.log2(layer.in_channels) / LARGEST_LOG,
            layer.macs / whole.macs,
            layer.params / whole.params,
            _share(means[agent] - lowest, highest - lowest),
            _share(float(scores[agent].std(correction=0)), score_range),
            float(bool(layer.coupled_with)),
        )
    return features


def observe(fixed: np.ndarray, progress: Progress) -> dict[str, np.ndarray]:
    """The observation of every agent, ``[len(FEATURES)]`` float32, new arrays each time.

    Args:
        fixed: The features that never change, ``[agents, len(FIXED)]``.
        progress: What does.
    """
    accuracy, relative_macs, _, budget, time = _shared(progress)
    ratios = progress.outcome.applied_ratios  # by agent, percent
    seen = np.empty((len(fixed), len(FEATURES)), np.float32)
    seen[:, : len(FIXED)] = fixed
    seen[:, len(FIXED)] = [ratio / 100 for ratio in ratios.values()]
    seen[:, len(FIXED) + 1 :] = accuracy, relative_macs, budget, time
    return dict(zip(ratios, _within_bounds(seen), strict=True))


def state(fixed: np.ndarray, progress: Progress) -> np.ndarray:
    """The state, ``[3 * agents + 5]`` float32; arguments as for `observe`."""
    kept = [1 - ratio / 100 for ratio in progress.outcome.applied_ratios.values()]
    shares, sensitivities = fixed[:, FIXED.index("macs_share")], fixed[:, FIXED.index("sensitivity")]
    return _bounded(*kept, *shares, *sensitivities, *_shared(progress))


def _shared(progress: Progress) -> tuple[float, ...]:
    budget = 1.0 if progress.macs_budget is None else progress.macs_budget
    outcome = progress.outcome
    return outcome.accuracy, outcome.relative_macs, outcome.relative_params, budget, progress.time


def _bounded(*values: float) -> np.ndarray:
    return _within_bounds(np.array(values, np.float32))


def _within_bounds(numbers: np.ndarray) -> np.ndarray:
    """The same array, with what is outside of [0, 1] at the bound."""
    np.maximum(numbers, 0, out=numbers)
    return np.minimum(numbers, 1, out=numbers)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
