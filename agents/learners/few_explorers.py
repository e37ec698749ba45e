"""Independent learners of which few explore at a time, around the best joint action known.

Where each of n agents explores with probability epsilon, nearly every joint action has several random entries:
with 19 agents and epsilon = 0.3 there are six, and what comes of a level is mostly what the others tried. Here a
few agents, drawn anew each time, play what their learners choose; all others play their part of the best joint
action so far. What a learner chooses, and how it learns from what comes, is its own affair.

A joint action that was tried is not tried again, if another is found: equal joint actions give equal scores. So
once learners do not explore by themselves, those whose turn it is play any action, and one more of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from pettingzoo import ParallelEnv

from agents.base import JointTransition, MakeAgent
from agents.learners.independent import Independent
from agents.learners.uniform import swept
from agents.masking import under_masks
from dsfp_env.common.ranges import WholeNumber, ranges_checked

DRAWS = (
    20  # of who explores, to find a joint action that was not tried; in the second half one more, and any action
)
RATIOS = 9  # of a uniform sweep where actions are no levels


class FewExplorers(Independent):
    """As `Independent`, but for who explores.

    Args:
        make_agent: As for `Independent`.
        env: Likewise.
        seed: Likewise, and of who explores.
        explorers: Agents that explore at a time, at most; 0: all, always.
        uniform_first: Times that all plans of one ratio for all are played to begin with: all 10 %, all 20 %, ...
    """

    @ranges_checked
    def __init__(
        self,
        make_agent: MakeAgent,
        env: ParallelEnv[str, Any, Any],
        seed: int | None = None,
        *,
        explorers: WholeNumber = 0,
        uniform_first: WholeNumber = 0,
    ) -> None:
        super().__init__(make_agent, env, seed)
        self.explorers = explorers
        self._spaces = {agent: env.action_space(agent) for agent in env.possible_agents}
        self._left = iter(range(uniform_first * max(map(_number_of_ratios, self._spaces.values()))))
        self._rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(len(self._spaces) + 2)[-1])
        self._best: tuple[float, dict[str, Any]] = (-np.inf, {})
        self._tried: set[bytes] = set()
        self._as_always = not explorers and not uniform_first

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The best joint action so far, but for the actions of a few; if deterministic, that one itself.

        What learners believe of levels that only few have tried, one at a time, is not what is best together.
        """
        if deterministic and self.explorers and self._best[1]:
            return under_masks(self._env, infos, self._best[1])
        if deterministic or self._as_always:
            return super().act(observations, infos, deterministic=deterministic)
        return self._explored(observations, infos, self._tried)

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Several, of which none is another."""
        if self._as_always:
            return super().act_many(observations, infos)
        chosen: list[dict[str, Any]] = []
        for seen, told in zip(observations, infos, strict=True):
            chosen.append(self._explored(seen, told, self._tried | {_key(joint) for joint in chosen}))
        return chosen

    def update(self, transition: JointTransition) -> dict[str, float]:
        """As `Independent.update`; and what is best, and what was tried, is remembered."""
        self._tried.add(_key(transition.actions))
        if transition.score > self._best[0]:
            self._best = transition.score, dict(transition.actions)
        return super().update(transition)

    def _explored(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], known: Collection[bytes]
    ) -> dict[str, Any]:
        """A joint action that is none of the known ones, if such a one is found."""
        number = next(self._left, None)
        if number is not None:
            wished = {agent: swept(self._spaces[agent], number) for agent in observations}
            return under_masks(self._env, infos, wished)
        joint = super().act(observations, infos)
        if not self.explorers or not self._best[1]:
            return joint
        for draw in range(DRAWS):
            most = self.explorers
            if draw >= DRAWS // 2:
                joint, most = {agent: self._anything(agent) for agent in joint}, most + 1
            played = self._with(self._who(joint, most), joint, infos)
            if _key(played) not in known:
                break
        return played

    def _anything(self, agent: str) -> Any:
        space = self._spaces[agent]
        if isinstance(space, Discrete):
            return int(self._rng.integers(space.n))
        return self._rng.uniform(space.low, space.high).astype(np.float32)

    def _who(self, joint: Mapping[str, Any], most: int) -> list[str]:
        """Who explores: of those who chose something else than they do in the best joint action."""
        others = [agent for agent in joint if not np.array_equal(joint[agent], self._best[1][agent])]
        count = int(self._rng.integers(1, most + 1))
        return [others[place] for place in self._rng.permutation(len(others))[:count]]

    def _with(
        self, explorers: Collection[str], joint: Mapping[str, Any], infos: Mapping[str, dict[str, Any]]
    ) -> dict[str, Any]:
        """The best joint action with what these explore; under masks the others give way first."""
        rest = [agent for agent in joint if agent not in explorers]
        order = [*explorers, *(rest[place] for place in self._rng.permutation(len(rest)))]
        wished = {agent: joint[agent] if agent in explorers else self._best[1][agent] for agent in order}
        played = under_masks(self._env, infos, wished)
        return {agent: played[agent] for agent in joint}


def _number_of_ratios(space: Any) -> int:
    return int(space.n) if isinstance(space, Discrete) else RATIOS


def _key(joint: Mapping[str, Any]) -> bytes:
    return np.concatenate([np.ravel(action) for action in joint.values()]).tobytes()
