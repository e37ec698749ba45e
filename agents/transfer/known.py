"""What is known of a network unmeasured: features of joint actions, their costs, what an accuracy is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from agents.transfer.joint_features import of_joint_actions, of_layers
from dsfp_env.channels.costs import Costs
from dsfp_env.environment.env import LayerPruningEnv

MARGIN = 0.03  # of an accuracy, so that its log-odds are finite


class KnownNetwork:
    """The network of an environment; joint actions are levels ``[k, agents]``.

    Args:
        env: Its actions are levels.

    Attributes:
        levels: In percent, rising.
    """

    def __init__(self, env: LayerPruningEnv) -> None:
        self._env, self._original = env, env.evaluator.original
        self.agents, self.levels = list(env.possible_agents), np.asarray(env.evaluator.levels, np.float64)
        self._layers, self._filters = of_layers(env.evaluator.layer_features)
        self._costs: dict[bytes, Costs] = {}

    def features(self, joints: np.ndarray) -> np.ndarray:
        """``[k, joint_features.SIZE]``."""
        macs = np.array([self._cost(joint).macs for joint in joints]) / self._original.macs
        return of_joint_actions(self._layers, self._filters, self.levels[joints], macs)

    def scores(self, joints: np.ndarray, odds: np.ndarray) -> np.ndarray:
        """What joint actions would be worth with accuracies of these log-odds ``[k]``, by the reward.

        A reward sees the accuracy, the MACs and the parameters; all else is that of the original network.
        """
        accuracies = self._original.accuracy * shares_of(odds)
        return np.array([self._score(one, float(a)) for one, a in zip(joints, accuracies, strict=True)])

    def odds(self, accuracy: float) -> float:
        """The log-odds of an accuracy."""
        share = min(accuracy / self._original.accuracy, 1.0)
        return float(np.log((share + MARGIN) / (1 - share + MARGIN)))

    def joint_of(self, ratios: Mapping[str, float]) -> np.ndarray:
        """The levels ``[agents]`` of ratios in percent by agent."""
        return np.array([int(np.abs(self.levels - ratios[agent]).argmin()) for agent in self.agents])

    def _score(self, joint: np.ndarray, accuracy: float) -> float:
        costs, whole = self._cost(joint), self._original
        known: dict[str, Any] = {"macs": costs.macs, "params": costs.params, "filters": costs.filters}
        shares = {f"relative_{name}": known[name] / getattr(whole, name) for name in ("macs", "params")}
        return self._env.score(replace(whole, accuracy=accuracy, **known, **shares))

    def _cost(self, joint: np.ndarray) -> Costs:
        key = joint.tobytes()
        if key not in self._costs:
            plan = dict(zip(self.agents, self.levels[joint].tolist(), strict=True))
            self._costs[key] = self._env.evaluator.costs(plan)
        return self._costs[key]


def shares_of(odds: np.ndarray) -> np.ndarray:
    """The shares of the original's accuracy that have these log-odds, in [0, 1]; the other way of `odds`."""
    portion = 1 / (1 + np.exp(-odds))
    shares: np.ndarray = np.clip(portion * (1 + 2 * MARGIN) - MARGIN, 0.0, 1.0)
    return shares
