"""Search by a Gaussian process: uniform plans first, then joint actions with the highest upper confidence bounds.

GP-UCB (Srinivas et al. 2010), with the kernel of `gaussian_process`. The bound is climbed from joint actions that
were worth most as far as the process believes, one layer's level at a time. What is played in the end is the joint
action of the highest expected score: of hundreds of noisy scores the highest is the luckiest, and the process
knows that from its neighbours. In longer episodes it learns from the score of every step as if it were an episode
of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv
from threadpoolctl import ThreadpoolController

from agents.base import JointTransition
from agents.learners.gaussian_process import GaussianProcess
from agents.learners.in_turn import TRIES, InTurn
from dsfp_env.common.ranges import Count, NotNegative, ranges_checked

STARTS = 5  # of the joint actions believed best, from which the climb may begin


class GPSearch:
    """The highest upper confidence bound of a Gaussian process: for few evaluations, but slow to choose.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.
        alpha: Width of the confidence bound, in standard deviations.
        climbs: Of the bound, for every choice, from one of the best five each; the best end is played.

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
        alpha: NotNegative = 1.0,
        climbs: Count = 2,
    ) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "The search by a Gaussian process")
        self.alpha, self.climbs = alpha, climbs
        self._uniform = list(range(self._turns.num_levels))  # levels of all that are left to be tried
        self._tried: dict[bytes, np.ndarray] = {}
        self.process = GaussianProcess(self._turns.num_levels)

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The next joint action to try, or the one with the highest expected score."""
        if not deterministic:
            return self.act_many([observations], [infos])[0]
        if not self._tried:
            middle = np.full(len(self._turns.agents), self._turns.num_levels // 2)
            return self._turns.as_actions(self._turns.raised(infos, middle, np.random.default_rng(0)))
        with _one_thread():
            start, rng = self._promising(self.process, 1)[0], np.random.default_rng(0)
            joint = self._turns.climb(infos, start, self.process.expected, rng, tries=TRIES)
        return self._turns.as_actions(joint)

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Several: each as if those before it had the scores expected of them (GP-BUCB, Desautels et al. 2014)."""
        process, known, chosen = self.process, set(self._tried), []
        for told in infos:
            with _one_thread():
                joint = self._next(process, told, known)
            chosen.append(self._turns.as_actions(joint))
            known.add(joint.tobytes())
            if len(process) and len(infos) > 1:
                process = process.imagined(joint)
        return chosen

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Learn the score of a joint action."""
        joint = self._turns.as_joint(transition.actions)
        self._tried[joint.tobytes()] = joint
        with _one_thread():
            self.process.learn(joint[None], np.array([transition.score]))
        return {}

    def _next(
        self, process: GaussianProcess, infos: Mapping[str, dict[str, Any]], known: Collection[bytes]
    ) -> np.ndarray:
        """The next uniform plan; or of the ends of climbs and what is beside them the best that is not known."""
        if self._uniform:
            wished = np.full(len(self._turns.agents), self._uniform.pop(0))
            return self._turns.raised(infos, wished, self._rng)

        if not self._tried:  # more at a time than there are levels
            anywhere = self._rng.integers(self._turns.num_levels, size=len(self._turns.agents))
            return self._turns.raised(infos, anywhere, self._rng)

        def bound(joints: np.ndarray) -> np.ndarray:
            expected, deviations = process.believed(joints)
            return expected + self.alpha * deviations

        starts = self._promising(process, STARTS)
        picked = self._rng.permutation(len(starts))[: self.climbs]
        ends = [self._turns.climb(infos, starts[place], bound, self._rng) for place in picked]
        best = ends[int(np.argmax(bound(np.stack(ends))))]
        if best.tobytes() not in known:
            return best
        beside = self._beside(best)
        for place in np.argsort(-bound(beside), kind="stable"):
            if beside[place].tobytes() not in known and self._turns.allows(infos, beside[place]):
                return beside[place]
        return best

    def _promising(self, process: GaussianProcess, count: int) -> np.ndarray:
        """Of the joint actions that were tried those with the highest expected scores, ``[count, agents]``."""
        tried = np.stack(list(self._tried.values()))
        order = np.argsort(-process.expected(tried), kind="stable")
        return tried[order[:count]]

    def _beside(self, joint: np.ndarray) -> np.ndarray:
        """All joint actions in which one agent has another level."""
        count, levels = len(joint), self._turns.num_levels
        beside = np.tile(joint, (count * levels, 1))
        beside[np.arange(count * levels), np.repeat(np.arange(count), levels)] = np.tile(np.arange(levels), count)
        return beside


def _one_thread() -> AbstractContextManager[Any]:
    """Within this context, NumPy computes on one thread: of small matrices, several would wait for each other."""
    context: AbstractContextManager[Any] = _threads().limit(limits=1)
    return context


@lru_cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()
