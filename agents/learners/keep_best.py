"""What the yardsticks have in common: they propose actions whatever happens, and keep the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.base import Transition


class KeepBest:
    """Plays what `propose` says, and remembers the action that was worth most.

    As the learners of a team share the reward, what they keep is the best joint action of all.

    Args:
        first: The action that is best until one was tried.
    """

    def __init__(self, first: Any) -> None:
        self._best: tuple[float, Any] = (-np.inf, first)

    def propose(self, info: Mapping[str, Any]) -> Any:
        """The next action to try, of those that the info allows."""
        raise NotImplementedError

    def act(self, observation: Any, info: dict[str, Any], *, deterministic: bool = False) -> Any:
        """The next action to try, or the best so far."""
        return self._best[1] if deterministic else self.propose(info)

    def update(self, transition: Transition) -> None:
        """Remember the action if it was worth most."""
        if transition.score > self._best[0]:
            self._best = (transition.score, transition.action)
