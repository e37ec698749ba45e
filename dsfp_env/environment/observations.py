"""What one agent sees, and the state for centralised critics. Every number is in [0, 1].

An agent's observation, ``observation="layers"``, is `FEATURES`, in this order:

| feature              | meaning                                                                       |
|----------------------|-------------------------------------------------------------------------------|
| position ... coupled | of its layer, which never change: see `layer_features`                        |
| ratio                | fraction of the layer's filters that are gone (0 after reset)                 |
| accuracy             | validation accuracy of the network as it is (the original's after reset)      |
| relative_macs        | MACs of the network as it is / the original's (1 after reset)                 |
| macs_budget          | allowed relative MACs (1 if there is no budget); of another budget, its share |
| time                 | steps taken / horizon                                                         |

``observation="context"`` is the paper's (DSFP section III-B): one number, the wanted pruning intensity in
percent, the same for all agents and constant during an episode.

The state is, for all agents in order, the fraction of filters kept, the share of MACs and the sensitivity, then
`SHARED`: a vector of ``3 * agents + 5``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from gymnasium.spaces import Box

from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.tasks.layer_features import FIXED, bounded

SHARED = ("accuracy", "relative_macs", "relative_params", "macs_budget", "time")
FEATURES = (*FIXED, "ratio", "accuracy", "relative_macs", "macs_budget", "time")


class Progress(NamedTuple):
    """What changes during an episode."""

    outcome: Outcome  # of the network as it is
    budget: float | None  # the share of MACs, parameters or time that is allowed
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
    return dict(zip(ratios, bounded(seen), strict=True))


def state(fixed: np.ndarray, progress: Progress) -> np.ndarray:
    """The state, ``[3 * agents + 5]`` float32; arguments as for `observe`."""
    applied = np.array([list(progress.outcome.applied_ratios.values())])
    return states(fixed, applied, np.array([_shared(progress)]))[0]


def states(fixed: np.ndarray, applied_ratios: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """The states of N situations, ``[N, 3 * agents + 5]`` float32.

    Args:
        fixed: As for `observe`.
        applied_ratios: ``[N, agents]``, percent.
        shared: ``[N, 5]``, as `SHARED` names them.
    """
    count, agents = applied_ratios.shape
    seen = np.empty((count, 3 * agents + len(SHARED)), np.float32)
    seen[:, :agents] = 1 - applied_ratios / 100
    seen[:, agents : 2 * agents] = fixed[:, FIXED.index("macs_share")]
    seen[:, 2 * agents : 3 * agents] = fixed[:, FIXED.index("sensitivity")]
    seen[:, 3 * agents :] = shared
    return bounded(seen)


def column_of(shared: str, num_agents: int) -> int:
    """Where a state has one of the features in `SHARED`."""
    return 3 * num_agents + SHARED.index(shared)


def _shared(progress: Progress) -> tuple[float, ...]:
    budget = 1.0 if progress.budget is None else progress.budget
    outcome = progress.outcome
    return outcome.accuracy, outcome.relative_macs, outcome.relative_params, budget, progress.time
