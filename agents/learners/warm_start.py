"""A team that begins with joint actions it is given, as with the plan of a rule from the literature.

What is known of a problem before anything is tried saves evaluations: a learner that explores around the best
joint action known begins where a rule ends. It learns from these joint actions as from its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pettingzoo import ParallelEnv

from agents.base import JointTransition, MultiAgent
from agents.masking import under_masks
from agents.verbs import check_env, check_team, joint_actions_of
from dsfp_env.common.errors import InputError, shortened


class WarmStart:
    """Plays given joint actions, one each time, then what its learners choose; they learn from all.

    Args:
        team: The learners, with the verbs ``act`` and ``update``.
        env: Gives the agents, and the masks that the joint actions are brought under.
        first: Joint actions, by agent, in the order in which they are played; such as ``env.actions_of(plan)``.

    Raises:
        InputError: If the team has a loop of its own, or an action is not in its space.
    """

    team = True

    def __init__(
        self, team: MultiAgent, env: ParallelEnv[str, Any, Any], first: Iterable[Mapping[str, Any]]
    ) -> None:
        check_env(env)
        check_team(team, learns=True)
        if hasattr(team, "learn"):
            raise InputError(
                f"{type(team).__name__} has a loop of its own, in which it learns from what it chose itself: "
                "expected learners that are told of what was played, with the verbs act and update."
            )
        self.learners, self._env = team, env
        self.alternates = bool(getattr(team, "alternates", False))
        self._left = iter(_checked(first, env))

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """The next of the given joint actions; when all were played, or if deterministic, what learners choose."""
        wished = None if deterministic else next(self._left, None)
        if wished is not None:
            return under_masks(self._env, infos, wished)
        return self.learners.act(observations, infos, deterministic=deterministic)

    def act_many(
        self, observations: Sequence[Mapping[str, Any]], infos: Sequence[Mapping[str, dict[str, Any]]]
    ) -> list[dict[str, Any]]:
        """Several: those given that are left, then what learners choose."""
        begun = [under_masks(self._env, own, wished) for own, wished in zip(infos, self._left, strict=False)]
        left = zip(observations[len(begun) :], infos[len(begun) :], strict=True)
        return begun + joint_actions_of(self.learners, list(left))

    def update(self, transition: JointTransition) -> Mapping[str, float] | None:
        """Let the learners learn."""
        return self.learners.update(transition)


def _checked(first: Any, env: ParallelEnv[str, Any, Any]) -> list[dict[str, Any]]:
    """Joint actions as they came; what is none is refused."""
    if isinstance(first, (Mapping, str)) or not isinstance(first, Iterable):
        raise InputError(
            f"The joint actions to begin with are {shortened(first)}: expected a list of them, each a dict of an "
            "action for each agent, such as [env.actions_of(plan)]."
        )
    joints = list(first)
    for joint in joints:
        if not isinstance(joint, Mapping) or set(joint) != set(env.possible_agents):
            raise InputError(
                f"A joint action to begin with is {shortened(joint)}: expected a dict with one action for each of "
                f"the agents {', '.join(env.possible_agents)}."
            )
        for agent, action in joint.items():
            if isinstance(action, bool) or not env.action_space(agent).contains(action):
                raise InputError(
                    f"A joint action to begin with has {shortened(action)} for {agent}: expected one of "
                    f"{env.action_space(agent)}."
                )
    return [dict(joint) for joint in joints]
