"""Several episodes of one environment at once: each is played in a copy, as it would come after the others."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper

from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.environment.ahead import start_ahead
from dsfp_env.environment.env import LayerPruningEnv


class Lane(BaseParallelWrapper[str, Any, Any]):
    """One of several episodes: `reset` begins the next one of the environment, and a copy goes on from there.

    So whatever an environment draws at the start of an episode (masks) it draws for one lane after another, in the
    order in which they are reset, as it would for one episode after another. It takes no step itself.

    Args:
        env: The one environment of all lanes; `copy.deepcopy` can copy it.

    Raises:
        InputError: At a reset, if it cannot be copied.
    """

    def __init__(self, env: ParallelEnv[str, Any, Any]) -> None:
        super().__init__(env)
        self._one = env
        spaces = [
            space(agent) for space in (env.observation_space, env.action_space) for agent in env.possible_agents
        ]
        self._shared = {id(space): space for space in spaces}  # nobody draws from them here

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin the next episode of the environment.

        Returns:
            What its ``reset`` does.

        Raises:
            InputError: If the environment cannot be copied.
        """
        began = self._one.reset(seed=seed, options=options)
        try:
            self.env = copy.deepcopy(self._one, dict(self._shared))
        except Exception as error:  # whatever the environment holds
            raise_if_of_the_machine(error, "copying the environment", "what else is in memory")
            raise InputError(
                f"The environment {self._one} cannot be copied ({type(error).__name__}: {error}), and each of "
                "several joint actions at once needs a copy: expected one that copy.deepcopy copies, or batch=1."
            ) from error
        return began


def start_lanes(
    lanes: Sequence[Lane], actions: Sequence[Mapping[str, Any]], workers: int | None = None
) -> Iterator[None]:
    """Begin to evaluate at once what the next steps of lanes will ask for.

    Args:
        lanes: In an episode each. Copies of environments other than `LayerPruningEnv`, or of one in a wrapper,
            evaluate when they take their steps.
        actions: A joint action for each.
        workers: As in `Evaluator.evaluate_many`.

    Returns:
        For each lane, in their order, a wait until its step can be taken.
    """
    envs = [lane.env for lane in lanes]
    if all(isinstance(env, LayerPruningEnv) for env in envs):
        return start_ahead(envs, actions, workers)
    return repeat(None, len(envs))
