"""Many joint actions in one step: the environment as a vectorised Gymnasium one."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from dsfp_env.common.errors import InputError
from dsfp_env.environment.backends import MEASURING
from dsfp_env.wrappers.joint_action import JointActionEnv
from dsfp_env.wrappers.surrogate_vector import SurrogateVectorEnv
from dsfp_env.wrappers.table_vector import TableVectorEnv
from dsfp_env.wrappers.together import evaluate_ahead


def vector_env(num_envs: int = 1, backend: str = "live", **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """What `gymnasium.make_vec` makes: of a table a `TableVectorEnv`, of a surrogate a `SurrogateVectorEnv`.

    Else it is a `VectorJointActionEnv`.

    Args:
        num_envs: How many.
        backend: ``"live"``, ``"table"`` or ``"surrogate"``, as for `layer_pruning_v0.parallel_env`.
        **kwargs: See these classes; only the last has a use for ``workers``.

    Raises:
        InputError: If an argument is not what was expected.
    """
    kinds: dict[str, Any] = {"table": TableVectorEnv, "surrogate": SurrogateVectorEnv}
    if isinstance(backend, str) and backend in kinds:
        kwargs.pop("workers", None)
        return cast(VectorEnv[Any, Any, Any], kinds[backend](num_envs, **kwargs))
    return VectorJointActionEnv(num_envs, backend=backend, **kwargs)


class VectorJointActionEnv(SyncVectorEnv):
    """Several `JointActionEnv` of one task and one evaluator, whose joint actions are evaluated at once.

    Everything else is as in Gymnasium's `SyncVectorEnv`: spaces, observations ``[num_envs, ...]``, rewards
    ``[num_envs]``, infos, seeds (``reset(seed=s)`` gives ``s + i`` to the i-th), the end of episodes. It is what

        gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=8, task="digits")

    makes.

    Args:
        num_envs: How many.
        workers: As in `Evaluator.evaluate_many`.
        autoreset_mode: What follows the end of an episode, as in Gymnasium.
        **kwargs: See `layer_pruning_v0.parallel_env`.

    Raises:
        InputError: If an argument is not what was expected.
    """

    def __init__(
        self,
        num_envs: int = 1,
        workers: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        if not isinstance(num_envs, (int, np.integer)) or num_envs < 1:
            raise InputError(f"num_envs is {num_envs!r}: expected a number of environments, 1 or more.")
        first = JointActionEnv(**kwargs)
        game = {name: value for name, value in kwargs.items() if name not in MEASURING}
        env = first.parallel_env
        shared = {**game, "evaluator": env.at_budget or env.evaluator}
        self._members = [first, *(JointActionEnv(**shared) for _ in range(num_envs - 1))]
        self._workers = workers
        super().__init__([partial(_the_same, env) for env in self._members], autoreset_mode=autoreset_mode)

    def step(self, actions: np.ndarray) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Prune by a joint action for each; where an episode was over, see the autoreset mode.

        Args:
            actions: ``[num_envs, agents]``.

        Returns:
            Observations ``[num_envs, 3 * agents + 5]``, rewards, terminations and truncations ``[num_envs]``, and
            infos.

        Raises:
            InputError: If an action is not in its space.
        """
        members = zip(self._members, actions, strict=True)
        live = [(env, env.by_agent(action)) for env, action in members if env.parallel_env.agents]
        evaluate_ahead([env.parallel_env for env, _ in live], [one for _, one in live], self._workers)
        return super().step(actions)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for env in self._members:  # the first has made one anew
            env.parallel_env.evaluator = self._members[-1].parallel_env.evaluator


def _the_same(env: JointActionEnv) -> JointActionEnv:
    return env
