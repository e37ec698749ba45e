"""What follows a run: it is told when learning begins, of every evaluation, and when it ends.

A callback is any object with these three methods; `Callback` has them all, doing nothing. What it does changes no
result, unless it changes what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from agents.loop import Evaluation


class Follower(Protocol):
    """An object that follows a run."""

    def on_start(self, settings: Mapping[str, Any]) -> None:
        """Learning begins.

        Args:
            settings: What was asked: of `train_agents.py` all its settings and the folder; of `agents.train` the
                number of ``evaluations``, the ``seed`` and the names of the ``agents``.
        """

    def on_evaluation(self, evaluation: Evaluation, learned: Mapping[str, float] | None) -> None:
        """A joint action was evaluated, and the team has learned from it.

        Args:
            evaluation: What came.
            learned: What the team's ``update`` returned, such as ``{"conv_0/td_error": 0.1}``; None if nothing, or
                if the team has a loop of its own.
        """

    def on_end(self, result: Mapping[str, Any] | None) -> None:
        """It is over.

        Args:
            result: Of `train_agents.py` as in ``result.json``; of `agents.train` the number of ``evaluations``,
                and of the best of them its ``actions`` and ``reward``. None if the run was stopped, or failed.
        """


class Callback:
    """A `Follower` that does nothing, to be filled in."""

    def on_start(self, settings: Mapping[str, Any]) -> None:
        """See `Follower`."""

    def on_evaluation(self, evaluation: Evaluation, learned: Mapping[str, float] | None) -> None:
        """See `Follower`."""

    def on_end(self, result: Mapping[str, Any] | None) -> None:
        """See `Follower`."""


class EvaluationsOnly(Callback):
    """Tells others of evaluations only; for who tells them of start and end by itself.

    Args:
        followers: The others.
    """

    def __init__(self, followers: Iterable[Follower]) -> None:
        self._followers = tuple(followers)

    def on_evaluation(self, evaluation: Evaluation, learned: Mapping[str, float] | None) -> None:
        """Pass it on."""
        for follower in self._followers:
            follower.on_evaluation(evaluation, learned)
