"""Tabular Q-learning with epsilon-greedy exploration and experience replay (DSFP section III-C and figure 1).

    td_error = r + discount * max_a Q(s', a) - Q(s, a)        (discount = 0 at the end of an episode)
    Q(s, a) <- Q(s, a) + step_size * td_error                 (Watkins 1989)

The learners share a reward, so an action that is good is often punished for what the others explored. Therefore
a negative td_error is weighed less, by ``negative_step_size`` (hysteretic Q-learning, Matignon et al. 2007); equal
step sizes give plain Q-learning. The paper leaves all of this open.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space

from agents.base import Transition
from agents.learners.exploration import fallen
from agents.masking import allowed
from dsfp_env.common.errors import InputError
from dsfp_env.common.ranges import Count, Finite, NotNegative, Share, WholeNumber, ranges_checked


def td_error(
    q_values: np.ndarray, action: int, reward: float, discount: float, next_q_values: np.ndarray
) -> float:
    """The temporal-difference error of one transition.

    Args:
        q_values: Of the state, ``[actions]``.
        action: What was done.
        reward: What came.
        discount: 0 at the end of an episode.
        next_q_values: Of the next state, ``[actions]``.
    """
    return float(reward + discount * next_q_values.max() - q_values[action])


class QLearning:
    """An independent tabular learner for one layer.

    The state is the observation, rounded to ``bins`` values per feature: in one-shot episodes there is just one
    state, in longer ones states differ in the last ratio, its outcome and the time.

    Args:
        agent: Its name.
        observation_space: A bounded Box.
        action_space: Discrete.
        rng: Draws the exploration, the replay and the ties.
        step_size: Of an update upwards; 1 is right where equal joint actions give equal rewards.
        negative_step_size: Of an update downwards.
        discount: Of the next state's value; 1, since returns are undiscounted scores.
        epsilon: Probability of a random action at first; it falls linearly ...
        final_epsilon: ... to this ...
        exploration_steps: ... over so many actions.
        initial_value: Of the table.
        replays: Past transitions that each update learns from again.
        memory: Transitions that are remembered.
        bins: Values that a feature is rounded to.
        smoothing: Levels over which neighbours share what comes: a level at distance d learns it too, with step
            sizes times ``exp(-(d / smoothing)^2 / 2)``; 0: each level for itself. Replays are not shared.
    """

    @ranges_checked
    def __init__(
        self,
        agent: str,
        observation_space: Space[Any],
        action_space: Space[Any],
        rng: np.random.Generator,
        *,
        step_size: Share = 1.0,
        negative_step_size: Share = 0.02,
        discount: Share = 1.0,
        epsilon: Share = 1.0,
        final_epsilon: Share = 0.02,
        exploration_steps: WholeNumber = 200,
        initial_value: Finite = 0.0,
        replays: WholeNumber = 4,
        memory: Count = 64,
        bins: Count = 4,
        smoothing: NotNegative = 0.0,
    ) -> None:
        if not isinstance(action_space, Discrete) or not isinstance(observation_space, Box):
            raise InputError(
                f"Q-learning for {agent} got the action space {action_space} and the observation space "
                f"{observation_space}: expected Discrete and Box. Make the environment with actions='levels'."
            )
        self._low, self._range = observation_space.low, observation_space.high - observation_space.low
        self._num_actions = int(action_space.n)
        self._rng = rng
        self.step_size, self.negative_step_size, self.discount = step_size, negative_step_size, discount
        self.epsilon, self.final_epsilon, self.exploration_steps = epsilon, final_epsilon, exploration_steps
        self.initial_value, self.replays, self.bins, self.smoothing = initial_value, replays, bins, smoothing
        self.q_values: dict[bytes, np.ndarray] = {}  # state -> [actions]
        self._memory: deque[tuple[bytes, int, float, bytes, bool]] = deque(maxlen=memory)
        self._steps = 0

    def act(self, observation: Any, info: dict[str, Any], *, deterministic: bool = False) -> int:
        """An epsilon-greedy action, or a greedy one; ties are broken at random, or by index."""
        actions = allowed(info, self._num_actions)
        values = self._values(self._state(observation))[actions]
        if deterministic:
            return int(actions[np.argmax(values)])
        epsilon = fallen(self._steps, self.epsilon, self.final_epsilon, self.exploration_steps)
        self._steps += 1
        if self._rng.random() < epsilon:
            return int(self._rng.choice(actions))
        return int(self._rng.choice(actions[values == values.max()]))

    def update(self, transition: Transition) -> dict[str, float]:
        """Learn from this transition, and again from some that are remembered."""
        experience = (
            self._state(transition.observation),
            int(transition.action),
            transition.reward,
            self._state(transition.next_observation),
            transition.terminated,
        )
        state, action = experience[:2]
        before = self._values(state)[action]
        error = self._learn(*experience)
        if self.smoothing:
            self._teach_neighbours(self._values(state), action, before + error)
        for index in self._rng.integers(len(self._memory), size=self.replays) if self._memory else ():
            self._learn(*self._memory[index])
        self._memory.append(experience)
        return {"td_error": error}

    def _learn(self, state: bytes, action: int, reward: float, next_state: bytes, terminated: bool) -> float:
        discount = 0.0 if terminated else self.discount
        error = td_error(self._values(state), action, reward, discount, self._values(next_state))
        self._values(state)[action] += (self.step_size if error >= 0 else self.negative_step_size) * error
        return error

    def _teach_neighbours(self, values: np.ndarray, action: int, target: float) -> None:
        """Move the values of the other levels towards what came, the less, the farther they are."""
        shares = np.exp(-0.5 * ((np.arange(len(values)) - action) / self.smoothing) ** 2)
        shares[action] = 0
        errors = target - values
        values += shares * np.where(errors >= 0, self.step_size, self.negative_step_size) * errors

    def _values(self, state: bytes) -> np.ndarray:
        return self.q_values.setdefault(state, np.full(self._num_actions, float(self.initial_value)))

    def _state(self, observation: np.ndarray) -> bytes:
        return np.rint((observation - self._low) / self._range * (self.bins - 1)).astype(np.int8).tobytes()
