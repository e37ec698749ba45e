"""Coordinate search: change one layer's ratio at a time, keep what is better.

A sweep tries every layer in random order, one step up and one step down from the best joint action. Steps of three
levels come first, then of two and of one; when no step of one is better, the search starts again from a random
joint action. What is kept is the best of all.

In longer episodes it learns from the score of every step as if it were an episode of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.in_turn import InTurn

STEPS = (3, 2, 1)  # levels


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
        self._found: dict[bytes, float] = {}  # joint action -> score
        self._proposals = self._search()

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The next joint action to try, or the best so far."""
        wished = self._best[1] if deterministic else next(self._proposals)
        order = np.argsort(-wished, kind="stable")  # under masks, those who prune most give way least
        return self._turns.as_actions(self._turns.nearest(infos, wished, order))

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Move to the joint action if it is better."""
        joint = self._turns.as_joint(transition.actions)
        score = transition.of(self._turns.agents[0]).score
        self._found[joint.tobytes()] = score
        if score > self._here[0]:
            self._here = score, joint
        if score > self._best[0]:
            self._best = score, joint
        return {"best_score": self._best[0]}

    def _search(self) -> Iterator[np.ndarray]:
        """What to try, for ever; `update` moves ``_here`` in between."""
        start = self._middle
        while True:
            self._here = -np.inf, start
            yield start
            for step in STEPS:
                yield from self._sweeps(step)
            start = self._rng.integers(self._turns.num_levels, size=len(self._turns.agents))

    def _sweeps(self, step: int) -> Iterator[np.ndarray]:
        """Neighbours at this distance, until none is better."""
        score = -np.inf
        while self._here[0] > score:
            score = self._here[0]
            for number in self._rng.permutation(len(self._middle)):
                for direction in self._rng.permutation([-step, step]):
                    neighbour = self._here[1].copy()
                    neighbour[number] = np.clip(neighbour[number] + direction, 0, self._turns.num_levels - 1)
                    if neighbour.tobytes() not in self._found:
                        yield neighbour
