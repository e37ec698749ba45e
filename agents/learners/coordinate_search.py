"""Coordinate search: change one layer's ratio at a time, keep what is better.

A sweep tries every layer in random order, one step up and one step down from the best joint action. Steps of three
levels come first, then of two and of one; when no step of one is better, the search starts again from a random
joint action. What is kept is the best of all.

Asked for several joint actions at once, it proposes the next of its sweep. Where the sweep ends before they are
enough, what comes next depends on what is not known yet: then the smaller steps that will follow if nothing is
better, and after these random joint actions, which may be better places to go on from.

In longer episodes it learns from the score of every step as if it were an episode of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.in_turn import InTurn

STEPS = (3, 2, 1)  # levels
ATTEMPTS = 100  # to find a joint action that masks do not turn into one that was tried


class CoordinateSearch:
    """Changes one layer's ratio at a time, keeps what is better: first where layers are few, weak with 13 or more.

    Args:
        env: Its actions are levels.
        seed: Of what is drawn.

    Raises:
        InputError: If actions are no levels.
    """

    team = True

    def __init__(self, env: ParallelEnv[str, Any, Any], seed: int | None = None) -> None:
        self._rng, self._turns = np.random.default_rng(seed), InTurn(env, "Coordinate search")
        self._middle = np.full(len(self._turns.agents), self._turns.num_levels // 2)
        self._best: tuple[float, np.ndarray] = (-np.inf, self._middle)  # of all
        self._here: tuple[float, np.ndarray] = (-np.inf, self._middle)  # since the last start
        self._tried: set[bytes] = set()  # joint actions
        self._steps = list(STEPS)  # that are left, of this start
        self._sweep: list[tuple[int, int]] = []  # (number of an agent, change of its level), left of this sweep
        self._before = -np.inf  # the score here when the sweep began
        self._next_start: np.ndarray | None = self._middle

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The next joint action to try, or the best so far."""
        if deterministic:
            return self._turns.as_actions(self._allowed(infos, self._best[1]))
        return self.act_many([observations], [infos])[0]

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """The next joint actions to try; see the top of this file."""
        chosen: dict[bytes, np.ndarray] = {}
        ahead = self._ahead(chosen)
        joints = [self._untried(one, chosen, ahead) for one in infos]
        return [self._turns.as_actions(joint) for joint in joints]

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Move to the joint action if it is better."""
        joint = self._turns.as_joint(transition.actions)
        score = transition.score
        self._tried.add(joint.tobytes())
        if score > self._here[0]:
            self._here = score, joint
        if score > self._best[0]:
            self._best = score, joint
        return {"best_score": self._best[0]}

    def _allowed(self, infos: Mapping[str, dict[str, Any]], wished: np.ndarray) -> np.ndarray:
        """The nearest joint action that masks leave; those who prune most give way least."""
        return self._turns.nearest(infos, wished, np.argsort(-wished, kind="stable"))

    def _untried(
        self, infos: Mapping[str, dict[str, Any]], chosen: dict[bytes, np.ndarray], ahead: Iterator[np.ndarray]
    ) -> np.ndarray:
        """A joint action that is neither tried nor among those chosen, if one is found; it is put among them."""
        for _ in range(ATTEMPTS):
            joint = self._allowed(infos, self._propose(chosen, ahead))
            if joint.tobytes() not in self._tried and joint.tobytes() not in chosen:
                break
        chosen[joint.tobytes()] = joint
        return joint

    def _propose(self, chosen: Collection[bytes], ahead: Iterator[np.ndarray]) -> np.ndarray:
        """The start of a search, or a neighbour of where it is that was not tried.

        Args:
            chosen: Joint actions of which nothing is known yet.
            ahead: What to propose while the next step depends on them.
        """
        while self._next_start is None:
            while self._sweep:
                neighbour = self._neighbour(*self._sweep.pop(0))
                if neighbour.tobytes() not in self._tried:
                    return neighbour
            if chosen:
                return next(ahead)
            self._begin_sweep()
        start, self._next_start = self._next_start, None
        self._here, self._steps, self._before = (-np.inf, start), list(STEPS), -np.inf
        return start

    def _ahead(self, chosen: Collection[bytes]) -> Iterator[np.ndarray]:
        """The sweeps that follow if nothing is better, then what is random."""
        for step in self._steps:
            for number, change in self._changes(step):
                neighbour = self._neighbour(number, change)
                if neighbour.tobytes() not in self._tried and neighbour.tobytes() not in chosen:
                    yield neighbour
        while True:
            yield self._anywhere()

    def _neighbour(self, number: int, change: int) -> np.ndarray:
        """Where the search is, but for the level of one agent."""
        neighbour = self._here[1].copy()
        neighbour[number] = np.clip(neighbour[number] + change, 0, self._turns.num_levels - 1)
        return neighbour

    def _begin_sweep(self) -> None:
        """With the same step if the last sweep found something better, then the next, then from a new start."""
        if self._here[0] <= self._before:
            self._steps.pop(0)
        if not self._steps:
            self._next_start = self._anywhere()
            return
        self._before = self._here[0]
        self._sweep = self._changes(self._steps[0])

    def _changes(self, step: int) -> list[tuple[int, int]]:
        """A sweep with this step: numbers of agents, with the changes of their levels, in random order."""
        numbers = self._rng.permutation(len(self._middle)).tolist()
        return [(number, change) for number in numbers for change in self._rng.permutation([-step, step]).tolist()]

    def _anywhere(self) -> np.ndarray:
        """A random joint action."""
        return self._rng.integers(self._turns.num_levels, size=len(self._turns.agents))
