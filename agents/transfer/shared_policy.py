"""One policy for the layers of all networks: Stable-Baselines3's PPO, with parameters shared by all agents.

It sees the comparable features of a layer and says its ratio, so it can be asked about networks of any depth. On
a new network the ratios that it thinks best come first; further ones are drawn from it, and the best is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agents.base import JointTransition
from agents.leaderboard.forms import Form
from dsfp_env.common.devices import threads_set
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.evaluation.interface import AnyEvaluator
from dsfp_env.layer_pruning_v0 import parallel_env
from dsfp_env.wrappers.comparable import ComparableEnv

STEPS = 16  # evaluations of every network to an update


def train_policy(networks: Sequence[AnyEvaluator], form: Form, seed: int, evaluations: int) -> Any:
    """A PPO model that has learned on networks.

    Args:
        networks: One or more.
        form: The reward.
        seed: Of the model, and of the networks' episodes.
        evaluations: Of each network.
    """
    from stable_baselines3 import PPO  # takes seconds to import

    from dsfp_env.wrappers.side_by_side import SideBySideVecEnv

    envs = SideBySideVecEnv([_seen(_env(one, form)) for one in networks])
    with threads_set(1):
        model = PPO(
            "MlpPolicy",
            envs,
            n_steps=STEPS,
            batch_size=STEPS * envs.num_envs // 4,
            learning_rate=3e-3,
            gamma=1.0,
            policy_kwargs={"net_arch": [64, 64], "log_std_init": -0.7},
            seed=seed,
            device="cpu",
        )
        return model.learn(evaluations * envs.num_envs)


class PolicyPlayer:
    """A model of `train_policy` as a team.

    Args:
        model: The model.
        env: Its actions are ratios, its observations the features of layers.
        seed: Draws proposals.
    """

    team = True

    def __init__(self, model: Any, env: LayerPruningEnv, seed: int) -> None:
        from stable_baselines3.common.utils import set_random_seed

        self._model, self._comparable = model, ComparableEnv(env)
        self._slots, self._seed = _seen(self._comparable), seed
        set_random_seed(seed)
        self._best: tuple[float, dict[str, Any] | None] = (-np.inf, None)

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """What the policy thinks best, and after that what is drawn from it; or the best that was tried."""
        best = self._best[1]
        if deterministic and best is not None:
            return best
        seen = self._slots.seen(self._comparable.seen(observations))
        actions, _ = self._model.predict(seen, deterministic=best is None)
        return self._slots.by_agent(actions)[0]

    def update(self, transition: JointTransition) -> None:
        """Keep the joint action if it is the best."""
        if transition.score > self._best[0]:
            self._best = transition.score, dict(transition.actions)


def _env(network: AnyEvaluator, form: Form) -> ComparableEnv:
    return ComparableEnv(parallel_env(evaluator=network, reward=form.reward, macs_budget=form.macs_budget))


def _seen(env: ComparableEnv) -> Any:
    """The layers of a network as slots, with nothing that tells which is which but their features."""
    from dsfp_env.wrappers import ParallelVecEnv

    return ParallelVecEnv(env, agent_ids=False)
