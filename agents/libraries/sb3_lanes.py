"""Several episodes at once as one ``VecEnv`` of Stable-Baselines3, whose joint actions are evaluated at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from pettingzoo import ParallelEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.libraries.recording import Ledger, Recorded
from dsfp_env.environment.lanes import Lane, start_lanes
from dsfp_env.wrappers import JointActionEnv, LayerByLayerEnv, ParallelVecEnv


def seen_together(
    env: ParallelEnv[str, Any, Any], batch: int, view: str, ledger: Ledger, workers: int | None
) -> VecEnv:
    """So many episodes of an environment, as a model sees them.

    Args:
        env: The environment.
        batch: How many.
        view: As in `agents.libraries.sb3`.
        ledger: Where steps are written.
        workers: As in `Evaluator.evaluate_many`.
    """
    lanes: dict[str, Any] = {"shared": SharedLanes, "joint": JointLanes, "in_turn": LayerByLayerLanes}
    seen: VecEnv = lanes[view](Together(env, batch, ledger, workers))
    return seen


class Together:
    """Lanes of one environment that write into one ledger.

    Args:
        env: The environment.
        batch: How many.
        ledger: Where steps are written.
        workers: As in `Evaluator.evaluate_many`.
    """

    def __init__(self, env: ParallelEnv[str, Any, Any], batch: int, ledger: Ledger, workers: int | None) -> None:
        self._env, self._ledger, self._workers = env, ledger, workers
        self._lanes = [Lane(env) for _ in range(batch)]
        self.recorded = [Recorded(lane, ledger) for lane in self._lanes]

    def start(self, actions: Sequence[Mapping[str, Any]]) -> None:
        """Begin to evaluate the joint actions of all lanes, or of the first that the budget is enough for."""
        count = min(len(self._lanes), self._ledger.steps_left(self._env))
        known = start_lanes(self._lanes[:count], actions[:count], self._workers) if count else iter(())
        for lane in self.recorded:
            lane.known = known


class SharedLanes(ParallelVecEnv):
    """One policy for all agents of all lanes."""

    def __init__(self, together: Together) -> None:
        self._together = together
        super().__init__(together.recorded)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """See `ParallelVecEnv.step_wait`."""
        self._together.start(self.by_agent(self._actions))
        return super().step_wait()


class JointLanes(DummyVecEnv):
    """One controller of the joint action of every lane."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._controlled = [JointActionEnv(lane) for lane in together.recorded]
        super().__init__([partial(_the_same, env) for env in self._controlled])

    def step_wait(self) -> Any:
        """As `DummyVecEnv` does."""
        self._together.start(
            [env.by_agent(action) for env, action in zip(self._controlled, self.actions, strict=True)]
        )
        return super().step_wait()


class LayerByLayerLanes(DummyVecEnv):
    """One controller that decides layer by layer in every lane; all come to their last layers at once."""

    def __init__(self, together: Together) -> None:
        self._together = together
        self._controlled = [LayerByLayerEnv(lane) for lane in together.recorded]
        super().__init__([partial(_the_same, env) for env in self._controlled])

    def step_wait(self) -> Any:
        """As `DummyVecEnv` does."""
        if self._controlled[0].turns.is_last:
            self._together.start(
                [env.with_last(action) for env, action in zip(self._controlled, self.actions, strict=True)]
            )
        return super().step_wait()


def _the_same(env: Any) -> Any:
    return env
