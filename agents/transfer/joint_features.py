"""A joint action as numbers that mean the same in every network, whatever its layers: what a model is carried by.

Of every layer `LAYER` x `RATIO` products, summed over layers; and of all together `TOGETHER`:

| LAYER              | of a layer                                                                       |
|--------------------|----------------------------------------------------------------------------------|
| 1                  | so that a ratio counts by itself                                                 |
| position           | 0 for the first, 1 for the last                                                  |
| width              | log2 of its filters, less 4.5                                                    |
| sensitivity        | mean filter score, from 0 to 1 over the layers                                   |
| sensitivity_spread | deviation of its scores / range of all scores, times 5                           |
| macs, params       | share of the network's, over the mean layer's, less 1                            |
| first, last        | 1 if it is                                                                       |

| RATIO              | of the pruning ratio r in [0, 1]                                                 |
|--------------------|----------------------------------------------------------------------------------|
| r, r^2, r^4        |                                                                                  |
| halvings           | -log2(1 - r) / 3                                                                 |
| few                | 2 / filters kept                                                                 |

| TOGETHER           | of the network                                                                   |
|--------------------|----------------------------------------------------------------------------------|
| constant           | 1                                                                                |
| narrowest          | log2 of the fewest filters kept by a layer / 4                                   |
| highest, spread    | the highest ratio; the square of the mean ratio                                  |
| neighbours         | mean product of the ratios of layers that follow each other                      |
| log_macs           | log of the relative MACs                                                         |
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dsfp_env.tasks.layer_features import FIXED, LARGEST_LOG

LAYER, RATIO, TOGETHER = 9, 5, 6  # how many of each
SIZE = LAYER * RATIO + TOGETHER


def of_layers(layer_features: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What is told of layers, as an evaluator has it -> ``[agents, LAYER]``, and log2 of filters ``[agents]``."""
    seen = dict(zip(FIXED, np.stack(list(layer_features.values())).T.astype(np.float64), strict=True))
    filters, ends = seen["log_filters"] * LARGEST_LOG, np.eye(len(layer_features))
    columns = [
        np.ones_like(filters),
        seen["position"],
        filters - 4.5,
        seen["sensitivity"],
        seen["sensitivity_spread"] * 5,
        seen["macs_share"] * len(filters) - 1,
        seen["params_share"] * len(filters) - 1,
        ends[0],
        ends[-1],
    ]
    return np.stack(columns, 1), filters


def of_joint_actions(
    layers: np.ndarray, filters: np.ndarray, ratios: np.ndarray, relative_macs: np.ndarray
) -> np.ndarray:
    """The features of joint actions, ``[k, SIZE]``.

    Args:
        layers: ``[agents, LAYER]``, see `of_layers`.
        filters: log2 of their number, ``[agents]``.
        ratios: In percent, ``[k, agents]``.
        relative_macs: ``[k]``.
    """
    r = ratios / 100
    kept = np.maximum(0, filters + np.log2(1 - r))  # log2
    powers = np.stack([r, r**2, r**4, -np.log2(1 - r) / 3, 2 * 2.0**-kept], 2)  # [k, agents, RATIO]
    summed = np.einsum("al,kar->klr", layers, powers).reshape(len(r), -1)
    following = (r[:, 1:] * r[:, :-1]).sum(1) / max(1, r.shape[1] - 1)
    together = [np.ones(len(r)), kept.min(1) / 4, r.max(1), r.mean(1) ** 2, following, np.log(relative_macs)]
    return np.concatenate([summed, np.stack(together, 1)], 1)
