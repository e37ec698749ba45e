"""Value decomposition: the worth of a joint action, learned as a mixture of what each agent's own level is worth.

    VDN:   Q(s, a) = b + sum over agents of u[i](a[i])          (Sunehag et al. 2018)
    QMIX:  Q(s, a) = mixed by a small network that is monotone in every u[i]; its weights come from the state by
           a hypernetwork, their absolute values are taken      (Rashid et al. 2018)

As Q never falls where a u[i] rises, each agent's best level is its part of the best joint action. One network of
all agents gives their utilities from what an agent sees and who it is; they are smooth in the level: sums of the
first cosines over the levels. Targets are those of Q-learning, ``r + max Q(s', a')``, and ``r`` at the end of an
episode; the state is what all agents see. All transitions are remembered, and learned from again in batches.

First all plans of one ratio are tried, then epsilon-greedy ones: epsilon, the probability that an agent's level is
drawn at random, falls to one agent of the team on average. No joint action is tried twice, if another is found.
Within a budget the best joint action is climbed to, as no agent knows what the others leave it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.exploration import fallen
from agents.learners.in_turn import TRIES, InTurn
from dsfp_env.common.errors import InputError
from dsfp_env.common.ranges import Count, NotNegative, Positive, Share, WholeNumber, ranges_checked
from dsfp_env.common.torch_left_alone import torch_left_alone

ATTEMPTS = 20  # to find a joint action that was not tried
REFRESHED = 50  # updates after which the network that targets come from is copied anew


class Remembered(NamedTuple):
    """A transition, or a batch of them."""

    seen: Any  # [agents, features]
    levels: Any  # [agents]
    reward: Any
    seen_next: Any  # [agents, features]
    going_on: Any  # 0 at the end of an episode, else 1


class VDN:
    """Q-learning of a sum of utilities by one network of all agents: slow; for many hundred evaluations.

    Args:
        env: Its actions are levels, and all agents see arrays of one shape.
        seed: Of the weights, and of what is drawn.
        step_size: Of Adam.
        updates: Batches that are learned from after every step.
        batch: Transitions in one.
        hidden: Width of the network of utilities.
        discount: Of what comes after a step; 1, since returns are undiscounted scores.
        epsilon: Probability that an agent's level is drawn at random, at first; it falls linearly ...
        explorers: ... to so many agents of the team, on average ...
        exploration_steps: ... over so many joint actions.
        uniform_first: Times that all plans of one ratio for all are played to begin with.

    Raises:
        InputError: If actions are no levels, or observations no arrays of one shape.
    """

    team = True
    mixture = "sum"  # one of `decomposed.MIXTURES`

    @ranges_checked
    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        seed: int | None = None,
        *,
        step_size: Positive = 0.003,
        updates: Count = 4,
        batch: Count = 32,
        hidden: Count = 32,
        discount: Share = 1.0,
        epsilon: Share = 0.5,
        explorers: NotNegative = 1.0,
        exploration_steps: WholeNumber = 200,
        uniform_first: WholeNumber = 1,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, type(self).__name__)
        spaces = [env.observation_space(agent) for agent in self._turns.agents]
        if not all(isinstance(space, Box) and space.shape == spaces[0].shape for space in spaces):
            raise InputError(
                f"{type(self).__name__} got the observation spaces {spaces[:2]}: expected a Box of one shape "
                "for all."
            )
        self._low = np.stack([space.low.ravel() for space in spaces])
        self._range = np.stack([space.high.ravel() for space in spaces]) - self._low
        self.discount, self.updates, self.batch = discount, updates, batch
        num_agents, num_features = self._low.shape
        self.epsilon, self.final_epsilon = epsilon, min(epsilon, explorers / num_agents)
        self.exploration_steps = exploration_steps
        import torch  # takes seconds to import

        from agents.learners.decomposed import MIXTURES, Decomposed, Utilities

        with torch_left_alone():
            torch.manual_seed(int(self._rng.integers(2**63)))
            self.network = Decomposed(
                Utilities(num_agents, num_features, self._turns.num_levels, hidden),
                MIXTURES[self.mixture](num_agents, num_features, hidden),
            )
        self._target = copy.deepcopy(self.network)
        self._optimiser = torch.optim.Adam(self.network.parameters(), step_size)
        self._memory: list[Remembered] = []
        self._uniform_left = [
            level for _ in range(uniform_first) for level in reversed(range(self._turns.num_levels))
        ]
        self._tried: set[bytes] = set()
        self._steps = 0

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """An epsilon-greedy joint action, or the best one."""
        seen = self._seen(observations)
        if deterministic:
            return self._turns.as_actions(self._best(seen, infos, np.random.default_rng(0), TRIES))
        if self._uniform_left:
            joint = np.full(len(seen), self._uniform_left.pop())
            joint = self._turns.raised(infos, joint, self._rng)
        else:
            joint = self._explored(infos, self._best(seen, infos, self._rng, 1))
        self._tried.add(joint.tobytes())
        return self._turns.as_actions(joint)

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Remember the transition, and learn from some that are remembered."""
        over = all(transition.terminations.values()) or all(transition.truncations.values())
        self._memory.append(
            Remembered(
                self._seen(transition.observations),
                self._turns.as_joint(transition.actions),
                np.float32(np.mean(list(transition.rewards.values()))),
                self._seen(transition.next_observations),
                np.float32(not over),
            )
        )
        loss = 0.0
        for _ in range(self.updates):
            loss = self._learn(self._rng.integers(len(self._memory), size=self.batch))
        if len(self._memory) % REFRESHED == 0:
            self._target.load_state_dict(self.network.state_dict())
        return {"loss": loss}

    def _learn(self, places: np.ndarray) -> float:
        """A step towards the targets of remembered transitions."""
        import torch

        columns = zip(*(self._memory[place] for place in places), strict=True)
        several = Remembered(*(torch.from_numpy(np.stack(column)) for column in columns))
        with torch.no_grad():
            target = several.reward
            if several.going_on.any():
                target = target + self.discount * several.going_on * self._target.best_worth(several.seen_next)
        loss = torch.nn.functional.mse_loss(self.network.worth(several.seen, several.levels), target)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return float(loss.detach())

    def _best(
        self, seen: np.ndarray, infos: Mapping[str, dict[str, Any]], rng: np.random.Generator, tries: int
    ) -> np.ndarray:
        """The joint action that is believed best, ``[agents]``; under masks the best one that is climbed to."""
        import torch

        state = torch.from_numpy(seen)

        def worth(joints: np.ndarray) -> np.ndarray:
            chosen = utilities.expand(len(joints), -1, -1).gather(-1, torch.from_numpy(joints)[..., None])
            mixed: np.ndarray = self.network.mixture(chosen.squeeze(-1), state.expand(len(joints), -1, -1)).numpy()
            return mixed

        with torch.no_grad():
            utilities = self.network.utilities(state)
            return self._turns.climb(infos, utilities.argmax(-1).numpy(), worth, rng, tries=tries)

    def _explored(self, infos: Mapping[str, dict[str, Any]], best: np.ndarray) -> np.ndarray:
        """The best joint action with some levels drawn at random, one that was not tried if it is found."""
        epsilon = fallen(self._steps, self.epsilon, self.final_epsilon, max(self.exploration_steps, 1))
        self._steps += 1
        for attempt in range(ATTEMPTS):
            strays = self._rng.random(len(best)) < epsilon
            strays[self._rng.integers(len(best))] |= attempt > 0
            joint = np.where(strays, self._rng.integers(self._turns.num_levels, size=len(best)), best)
            joint = self._turns.nearest(infos, joint, self._rng.permutation(len(best)))
            if joint.tobytes() not in self._tried:
                break
        return joint

    def _seen(self, observations: Mapping[str, Any]) -> np.ndarray:
        """What all agents see, scaled to [0, 1]: ``[agents, features]`` float32."""
        seen = np.stack([np.ravel(observations[agent]) for agent in self._turns.agents])
        return ((seen - self._low) / np.where(self._range > 0, self._range, 1)).astype(np.float32)


class QMIX(VDN):
    """As `VDN`, with a mixture that is monotone in the utilities, and depends on the state."""

    mixture = "monotone"
