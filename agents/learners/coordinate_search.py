"""Coordinate search: change one layer's ratio at a time, keep what is better.

A sweep tries every layer in random order, one step up and one step down from the best joint action. Steps of three
levels come first, then of two and of one; when no step of one is better, the search starts again from a random
joint action. What is kept is the best of all.

In longer episodes it learns from the score of every step as if it were an episode of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.learners.in_turn import InTurn

STEPS = (3, 2, 1)  # levels
ATTEMPTS = 100  # to find a joint action that masks do not turn into one that was tried


class CoordinateSearch:
    """A learner of the whole team.

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
        for _ in range(ATTEMPTS):
            joint = self._allowed(infos, self._propose())
            if joint.tobytes() not in self._tried:
                break
        return self._turns.as_actions(joint)

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

    def _propose(self) -> np.ndarray:
        """The start of a search, or a neighbour of where it is that was not tried."""
        while self._next_start is None:
            while self._sweep:
                number, change = self._sweep.pop(0)
                neighbour = self._here[1].copy()
                neighbour[number] = np.clip(neighbour[number] + change, 0, self._turns.num_levels - 1)
                if neighbour.tobytes() not in self._tried:
                    return neighbour
            self._begin_sweep()
        start, self._next_start = self._next_start, None
        self._here, self._steps, self._before = (-np.inf, start), list(STEPS), -np.inf
        return start

    def _begin_sweep(self) -> None:
        """With the same step if the last sweep found something better, then the next, then from a new start."""
        if self._here[0] <= self._before:
            self._steps.pop(0)
        if not self._steps:
            self._next_start = self._rng.integers(self._turns.num_levels, size=len(self._turns.agents))
            return
        self._before = self._here[0]
        changes = [-self._steps[0], self._steps[0]]
        numbers = self._rng.permutation(len(self._middle)).tolist()
        self._sweep = [
            (number, change) for number in numbers for change in self._rng.permutation(changes).tolist()
        ]
