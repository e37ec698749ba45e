"""A cooperative problem of as many agents as wanted, with the costs and the losses of a chain of convolutions.

For trying learners out where there are more joint actions than any table could hold. Layer i keeps a share k[i] of
its filters; a ratio is p[i] = 1 - k[i]:

    relative MACs  f = sum over i of m[i] * k[i - 1] * k[i]             (m: shares of the original's, k[-1] = 1)
    loss           L = sum of s[i] * (2 p[i])^2.2 + interaction * sum of c[i] * p[i] * p[i + 1]
    accuracy       a = 0.1 + 0.82 * exp(-L) + noise
    score          a * (1 - f)

Widths double and images halve twice along the chain, as in a ResNet. How sensitive the layers are, s, how much
neighbours depend on each other, c, and the noise come from the seed; equal joint actions have equal noise, as with
the environment's fine-tuning. The numbers are made up: nothing was measured.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from gymnasium.spaces import Box

from dsfp_env.toy import ToyEnv

CHANCE, ORIGINAL = 0.1, 0.92  # accuracies
TOTAL = 1.2  # sum of the sensitivities: the loss with all ratios at 50 %
STAGES = 3  # of equal width


class ChainEnv(ToyEnv):
    """The chain; as `ToyEnv`, but for what joint actions are worth and what agents see.

    Args:
        num_agents: Layers.
        actions: ``"levels"`` or ``"box"``.
        horizon: Steps in an episode.
        macs_budget: Relative MACs allowed, which masks levels.
        seed: Of the layers' sensitivities and of the noise.
        interaction: How much neighbours depend on each other.
        noise: Standard deviation of an accuracy.
    """

    metadata = {"name": "chain_v0", "render_modes": []}  # noqa: RUF012 - PettingZoo reads it from the class

    def __init__(
        self,
        num_agents: int = 19,
        actions: str = "levels",
        horizon: int = 1,
        macs_budget: float | None = None,
        *,
        seed: int = 0,
        interaction: float = 1.0,
        noise: float = 0.005,
    ) -> None:
        rng = np.random.default_rng(seed)
        stage = np.arange(num_agents) * STAGES // num_agents
        widths = 16.0 * 2**stage
        macs = widths * np.concatenate([[3.0], widths[:-1]]) / 4.0**stage
        self._macs, self.noise, self.interaction, self._seed = macs / macs.sum(), noise, interaction, seed
        sensitivities = np.exp(rng.normal(0, 0.8, num_agents))
        self._sensitivities = TOTAL * sensitivities / sensitivities.sum()
        self._coupling = TOTAL / num_agents * rng.normal(0, 1, max(num_agents - 1, 0))
        seen = np.log(sensitivities) + rng.normal(0, 0.5, num_agents)  # filter scores tell something of it
        self._fixed = np.stack(
            [
                np.linspace(0, 1, num_agents + 1)[1:],
                np.log2(widths) / 12,
                self._macs,
                1 / (1 + np.exp(-seen)),
            ],
            1,
        )
        names = [f"conv_{number}" for number in range(num_agents)]
        super().__init__(actions, horizon, macs_budget, dict.fromkeys(names, 50.0))
        size = self._fixed.shape[1] + 3
        self._observation_spaces = {agent: Box(0, 1, (size,), np.float32) for agent in names}

    def score(self, ratios: Mapping[str, float]) -> float:
        """What ratios in percent by agent are worth; about 0.4 at most."""
        values = self._in_order(ratios)
        noise = self.noise * np.random.default_rng([self._seed, *np.rint(values).astype(int)]).normal()
        return self.expected(values) + noise * (1 - self.relative_macs(ratios))

    def expected(self, values: np.ndarray) -> float:
        """The score of ratios in percent, ``[agents]`` in order, without noise."""
        pruned = values / 100
        loss = (self._sensitivities * (2 * pruned) ** 2.2).sum()
        loss += self.interaction * (self._coupling * pruned[1:] * pruned[:-1]).sum()
        accuracy = CHANCE + (ORIGINAL - CHANCE) * np.exp(-max(loss, 0.0))
        return float(accuracy * (1 - self._macs_of(1 - pruned)))

    def relative_macs(self, plan: Mapping[str, float]) -> float:
        """The multiply-adds that are left with these ratios, in percent by agent, over the original's."""
        return self._macs_of(1 - self._in_order(plan) / 100)

    def _macs_of(self, kept: np.ndarray) -> float:
        return float((self._macs * kept * np.concatenate([[1.0], kept[:-1]])).sum())

    def _in_order(self, ratios: Mapping[str, float]) -> np.ndarray:
        return np.array([ratios[agent] for agent in self.possible_agents], np.float64)

    def _observe(self) -> dict[str, np.ndarray]:
        score, time = min(max(self._score, 0.0), 1.0), self._time / self._horizon
        return {
            agent: np.array([*fixed, self._ratios[agent] / 100, score, time], np.float32)
            for agent, fixed in zip(self.possible_agents, self._fixed, strict=True)
        }
