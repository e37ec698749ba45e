"""Q-learning along the layers: within one evaluation the agents decide one after another.

Each sees what was decided before it, as in AMC's layer-sequential view (He et al. 2018): the mean level so far,
rounded to a few values. So its table is small, and what it expects of a level does not average over all that the
earlier layers may do:

    G[n] = score,   G[i] = trace * G[i + 1] + (1 - trace) * max_b Q[i + 1](s', b)
    Q[i](s, a) <- Q[i](s, a) + step_size * (G[i] - Q[i](s, a))

from the last layer to the first, so that a score reaches all of them at once. With ``trace=0`` this is Watkins'
Q-learning (1989), where a layer cannot tell levels apart that lead to the same state, as the score comes at the
end only; with a trace it also hears the score itself (Q(lambda), Peng and Williams 1996). Errors below zero weigh
less, as the others are still exploring (hysteretic Q-learning, Matignon et al. 2007). With a budget of MACs each
agent has the mask that the choices before its own leave, so no joint action leaves the budget.

In longer episodes it learns from the score of every step as if it were an episode of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.exploration import fallen
from agents.learners.in_turn import InTurn
from dsfp_env.common.ranges import Count, Finite, Share, WholeNumber, ranges_checked


class SequentialQLearning:
    """Q-learning along the layers, each of which sees the mean level so far: AMC's view, layer by layer.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.
        step_size: Of an update upwards.
        negative_step_size: Of an update downwards.
        trace: Weight of what came of it against what the next layer's table expects, in [0, 1].
        epsilon: Probability of a random level at first; it falls linearly ...
        final_epsilon: ... to this ...
        exploration_steps: ... over so many joint actions.
        initial_value: Of the tables.
        bins: Values that the mean level so far is rounded to.

    Raises:
        InputError: If actions are no levels.
    """

    team = True

    @ranges_checked
    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        seed: int | None = None,
        *,
        step_size: Share = 1.0,
        negative_step_size: Share = 0.02,
        trace: Share = 0.9,
        epsilon: Share = 1.0,
        final_epsilon: Share = 0.02,
        exploration_steps: WholeNumber = 200,
        initial_value: Finite = 0.0,
        bins: Count = 2,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "Sequential Q-learning")
        self.step_size, self.negative_step_size = step_size, negative_step_size
        self.epsilon, self.final_epsilon, self.exploration_steps = epsilon, final_epsilon, exploration_steps
        self.trace, self.bins = trace, bins
        num_agents, num_levels = len(self._turns.agents), self._turns.num_levels
        self.q_values = np.full((num_agents, bins, num_levels), float(initial_value))  # [agent, state, level]
        self._order = np.arange(num_agents)
        self._steps = 0

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """Epsilon-greedy levels, or greedy ones, one agent after another."""
        chosen: list[int] = []
        epsilon = 0.0 if deterministic else self._epsilon()

        def choose(number: int, levels: np.ndarray) -> int:
            values = self.q_values[number][self._state(chosen)][levels]
            greedy = levels[values == values.max()]
            if deterministic:
                level = greedy[0]
            else:
                level = self._rng.choice(levels if self._rng.random() < epsilon else greedy)
            chosen.append(int(level))
            return chosen[-1]

        return self._turns.as_actions(self._turns.choose(infos, choose, self._order))

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Learn the score of a joint action, from the last layer to the first."""
        levels = self._turns.as_joint(transition.actions).tolist()
        target, error = transition.score, 0.0
        for number in reversed(range(len(levels))):
            values = self.q_values[number][self._state(levels[:number])]
            error = target - values[levels[number]]
            values[levels[number]] += (self.step_size if error >= 0 else self.negative_step_size) * error
            target = self.trace * target + (1 - self.trace) * values.max()
        return {"error": float(error)}

    def _epsilon(self) -> float:
        epsilon = fallen(self._steps, self.epsilon, self.final_epsilon, self.exploration_steps)
        self._steps += 1
        return epsilon

    def _state(self, chosen: list[int]) -> int:
        """The mean level so far, rounded; the middle at first."""
        mean = float(np.mean(chosen)) / (self._turns.num_levels - 1) if chosen else 0.5
        return int(np.rint(mean * (self.bins - 1)))
