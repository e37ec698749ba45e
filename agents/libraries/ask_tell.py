"""A black-box optimiser as a team: it is asked for a joint action, and told what that was worth.

An optimiser has two methods:

- ``ask()`` proposes a joint action: a dictionary by agent, or a vector in the order of the agents. A ratio in
  percent or a level for each, as the environment's actions are; a number that is out of range is brought to the
  nearest action.
- ``tell(joint action, score)`` is called once the joint action was evaluated, with what it asked for, or, if
  something else was played, with that, in the same form. Higher scores are better.

With a batch of k, it is asked k times before it is told k times, in the same order, or, if it has a method
``ask_many(k)`` that proposes k joint actions, once by that. One that cannot be asked again before it was told says
``alternates = True``, and is refused a batch.

It neither sees observations nor knows of episodes: every step evaluates a joint action, and its score is told.
Where a budget of MACs masks levels, the nearest joint action under the masks is played.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.masking import under_masks
from dsfp_env.common.errors import InputError


class AskTell(Protocol):
    """Proposes joint actions and learns what they were worth."""

    def ask(self) -> Any:
        """The next joint action to try: numbers by agent, or in the order of the agents."""

    def tell(self, joint_action: Any, score: float) -> Any:
        """Learn what a joint action was worth; higher is better."""


def from_ask_tell(optimiser: AskTell, env: ParallelEnv[str, Any, Any]) -> AskTellTeam:
    """Make a team of an optimiser with ``ask`` and ``tell``; see the top of this file.

    Args:
        optimiser: Seeded by whoever made it.
        env: Gives the agents and their action spaces.

    Raises:
        InputError: If an action space is neither Discrete nor a Box of one number.
    """
    return AskTellTeam(optimiser, env)


class _Asked(NamedTuple):
    """A joint action that an optimiser has asked for."""

    asked: Any  # as the optimiser gave it
    actions: dict[str, Any]  # the same, by agent
    played: dict[str, Any]  # what masks left of it


class AskTellTeam:
    """A `MultiAgent` that plays what an optimiser asks for, and, if deterministic, the best that was evaluated.

    Args:
        optimiser: See the top of this file.
        env: Gives the agents, their action spaces and the masks.

    Raises:
        InputError: If an action space is neither Discrete nor a Box of one number.
    """

    team = True

    def __init__(self, optimiser: AskTell, env: ParallelEnv[str, Any, Any]) -> None:
        self.optimiser, self._env = optimiser, env
        self._spaces = {agent: _checked_space(agent, env.action_space(agent)) for agent in env.possible_agents}
        self._middle = {agent: _middle(space) for agent, space in self._spaces.items()}
        self.alternates = bool(getattr(optimiser, "alternates", False))
        # What the optimiser will be told of, or the last that it was.
        self._asked = [_Asked(None, {}, {})]
        self._best: JointTransition | None = None

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """What the optimiser asks for, or the best so far, brought under the masks.

        Raises:
            InputError: If the optimiser asks for no joint action.
        """
        if deterministic:
            return under_masks(self._env, infos, self._middle if self._best is None else self._best.actions)
        return self._played([self.optimiser.ask()], [infos])[0]

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """As many as the optimiser is asked for, brought under the masks. Raises as `act` does."""
        many = getattr(self.optimiser, "ask_many", None)
        return self._played([self.optimiser.ask() for _ in infos] if many is None else many(len(infos)), infos)

    def update(self, transition: JointTransition) -> dict[str, float]:
        """Tell the optimiser what the joint action was worth, and remember it if it is the best."""
        if self._best is None or transition.score > self._best.score:
            self._best = transition._replace(actions=dict(transition.actions))
        self.optimiser.tell(self._told(_numbers(transition.actions)), self._worth(transition))
        return {"best_score": self._best.score}

    def _played(self, asked: Sequence[Any], infos: Sequence[Mapping[str, dict[str, Any]]]) -> list[dict[str, Any]]:
        """What is played of what the optimiser asked for; it is told of it in this order."""
        if len(asked) != len(infos):
            raise InputError(f"The optimiser asked for {len(asked)} joint action(s): expected {len(infos)}.")
        wished = [_as_actions(one, self._spaces) for one in asked]
        played = [under_masks(self._env, own, one) for own, one in zip(infos, wished, strict=True)]
        self._asked = [
            _Asked(one, _numbers(actions), _numbers(there))
            for one, actions, there in zip(asked, wished, played, strict=True)
        ]
        return played

    def _told(self, played: dict[str, float]) -> Any:
        """What was played, in the optimiser's own words if it is what it asked for, else in its form."""
        first = self._asked[0]
        if played == first.played and len(self._asked) > 1:  # else somebody else chose it
            self._asked = self._asked[1:]
        if played == first.actions:
            return first.asked
        if first.asked is None or isinstance(first.asked, Mapping):
            return played
        return np.array([played[agent] for agent in self._spaces])

    def _worth(self, transition: JointTransition) -> Any:
        """What the optimiser is told of a joint action."""
        return transition.score


def _as_actions(asked: Any, spaces: Mapping[str, Space[Any]]) -> dict[str, Any]:
    """A joint action in the optimiser's form as actions by agent; numbers out of range are brought back."""
    if not isinstance(asked, Mapping):
        vector = np.ravel(asked)
        if len(vector) != len(spaces):
            raise InputError(
                f"The optimiser asked for {asked!r}: expected a number for each of the agents "
                f"{', '.join(spaces)}, in this order, or a dictionary by agent."
            )
        asked = dict(zip(spaces, vector, strict=True))
    if set(asked) != set(spaces):
        raise InputError(
            f"The optimiser asked for actions of {', '.join(map(str, asked))}: expected one for each of the "
            f"agents {', '.join(spaces)}."
        )
    return {agent: _nearest_action(agent, asked[agent], space) for agent, space in spaces.items()}


def _nearest_action(agent: str, value: Any, space: Space[Any]) -> Any:
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "iuf" or not np.isfinite(number).all():
        raise InputError(f"The optimiser asked for {value!r} for {agent}: expected one finite number.")
    if isinstance(space, Discrete):
        return int(np.clip(np.rint(number.item()), 0, space.n - 1))
    assert isinstance(space, Box)
    return np.clip(number.reshape(1), space.low, space.high).astype(np.float32)


def _middle(space: Space[Any]) -> Any:
    if isinstance(space, Discrete):
        return int(space.n) // 2
    assert isinstance(space, Box)
    return (space.low + space.high) / 2


def _numbers(actions: Mapping[str, Any]) -> dict[str, Any]:
    return {agent: np.asarray(action).item() for agent, action in actions.items()}


def _checked_space(agent: str, space: Space[Any]) -> Space[Any]:
    if isinstance(space, Discrete) or (isinstance(space, Box) and space.shape == (1,)):
        return space
    raise InputError(
        f"{agent} has the action space {space}: expected Discrete or a Box of one number, as with "
        "actions='levels' or actions='box'."
    )
