"""Stable-Baselines3's algorithms as teams, and its trained models as players.

Three views of the environment: ``"shared"``, one policy for all agents, each of which is a slot of a
`dsfp_env.wrappers.ParallelVecEnv`; ``"joint"``, one controller of the joint action (`JointActionEnv`); and
``"in_turn"``, one controller that decides layer by layer (`LayerByLayerEnv`). What the library calls a step, as in
``n_steps``, is an evaluation in the first two, and a turn in the third.

Their own defaults are made for millions of steps: PPO would spend 2048 evaluations before its first update. The
defaults here are fit for budgets of tens to hundreds; every hyperparameter of the library can be given instead.
"""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.libraries.recording import BudgetSpent, Ledger, Recorded
from agents.loop import Evaluation, check_budget, evaluations_per_step
from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError
from dsfp_env.common.optional import import_for
from dsfp_env.wrappers import JointActionEnv, LayerByLayerEnv

VIEWS = ("shared", "joint", "in_turn")


class Budget(NamedTuple):
    """What defaults are fit for."""

    evaluations: int
    slots: int  # transitions that each evaluation gives
    batch: int  # evaluations at once
    actions: int  # numbers in one action
    turns: int  # steps of the library's in each evaluation


class Algorithm(NamedTuple):
    """Where an algorithm is found, and what suits it here."""

    module: str
    name: str
    defaults: Callable[[Budget], dict[str, Any]]


def _ppo(budget: Budget) -> dict[str, Any]:
    """About fifteen updates, each from 4 to 16 joint actions in one batch."""
    n_steps = int(np.clip(budget.evaluations // 15, 4, 16))
    policy = {"net_arch": [32], "log_std_init": -0.7}  # the library's 0 plays the bounds half of the time
    n_steps = -(-n_steps // budget.batch)  # of each of the episodes that go on at once
    transitions = n_steps * budget.batch * budget.slots
    return {
        "n_steps": n_steps * budget.turns,
        "batch_size": transitions,
        "learning_rate": 1e-2,
        "gamma": 1.0,
        "policy_kwargs": policy,
    }


def _maskable_ppo(budget: Budget) -> dict[str, Any]:
    return {**_ppo(budget), "policy_kwargs": {"net_arch": [32]}}


def _a2c(budget: Budget) -> dict[str, Any]:
    policy = {"net_arch": [32], "log_std_init": -0.7}
    n_steps = -(-4 // budget.batch) * budget.turns
    return {"n_steps": n_steps, "learning_rate": 3e-3, "gamma": 1.0, "policy_kwargs": policy}


def _off_policy(budget: Budget) -> dict[str, Any]:
    """Random ratios for a tenth of the budget, then as many updates as transitions."""
    return {
        "learning_starts": max(2, budget.evaluations // 10) * budget.slots,
        "buffer_size": budget.evaluations * budget.slots,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "train_freq": 1,
        "gradient_steps": -1,
        "gamma": 1.0,
        "policy_kwargs": {"net_arch": [64, 64]},
    }


def _entropy(budget: Budget) -> dict[str, Any]:
    return {**_off_policy(budget), "ent_coef": "auto_0.1"}  # scores differ by tenths


def _noise(budget: Budget) -> dict[str, Any]:
    """Of a deterministic policy; without entropy it is easily led astray, so it learns more slowly."""
    from stable_baselines3.common.noise import NormalActionNoise

    noise = NormalActionNoise(np.zeros(budget.actions), np.full(budget.actions, 0.3))
    return {**_off_policy(budget), "learning_rate": 3e-4, "action_noise": noise}


def _dqn(budget: Budget) -> dict[str, Any]:
    exploration = {"exploration_fraction": 0.6, "exploration_final_eps": 0.05}
    return {**_off_policy(budget), **exploration, "target_update_interval": max(10, budget.batch) * budget.slots}


ALGORITHMS = {
    "ppo": Algorithm("stable_baselines3", "PPO", _ppo),
    "a2c": Algorithm("stable_baselines3", "A2C", _a2c),
    "sac": Algorithm("stable_baselines3", "SAC", _entropy),
    "td3": Algorithm("stable_baselines3", "TD3", _noise),
    "ddpg": Algorithm("stable_baselines3", "DDPG", _noise),
    "dqn": Algorithm("stable_baselines3", "DQN", _dqn),
    "maskable_ppo": Algorithm("sb3_contrib", "MaskablePPO", _maskable_ppo),
    "tqc": Algorithm("sb3_contrib", "TQC", _entropy),
}


def algorithm_class(algorithm: str) -> Any:
    """The library's class.

    Args:
        algorithm: A name in `ALGORITHMS`.

    Raises:
        InputError: If the library is not installed.
    """
    return getattr(import_for(algorithm, ALGORITHMS[algorithm].module), ALGORITHMS[algorithm].name)


def from_sb3(model: Any, env: ParallelEnv[str, Any, Any]) -> Player:
    """A trained model as a team that plays, for `agents.play` and `agents.train`.

    Args:
        model: Anything with ``predict`` and an observation space, trained on `ParallelVecEnv`, `JointActionEnv` or
            `LayerByLayerEnv`.
        env: The environment to play in.

    Raises:
        InputError: If its spaces are those of none of them.
    """
    views = VIEWS if hasattr(env, "cost_range") else VIEWS[:2]  # without it there are no turns
    for view in views:
        seen = as_seen(env, view)
        if model.observation_space == seen.observation_space and model.action_space == seen.action_space:
            return Player(model, env, view)
    raise InputError(
        f"The model sees {model.observation_space} and does {model.action_space}: expected the spaces of "
        "ParallelVecEnv(env), of JointActionEnv(env) or of LayerByLayerEnv(env). Make the environment as it was "
        "for training."
    )


def as_seen(env: ParallelEnv[str, Any, Any], view: str) -> Any:
    """The environment as a model sees it."""
    if view == "joint":
        return JointActionEnv(env)
    if view == "in_turn":
        return LayerByLayerEnv(env)
    from dsfp_env.wrappers import ParallelVecEnv

    return ParallelVecEnv(env)


class Player:
    """A model's policy for a team; it does not learn.

    Args:
        model: See `from_sb3`.
        env: The environment to play in.
        view: One of `VIEWS`.
    """

    def __init__(self, model: Any, env: ParallelEnv[str, Any, Any], view: str) -> None:
        self._model, self._env, self._view = model, env, view
        self._seen = as_seen(env, view)
        self.alternates = view == "joint"  # it asks the environment for its state, and each of several has its own
        self._masked = "action_masks" in inspect.signature(model.predict).parameters

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """What the model says."""
        if self._view == "in_turn":
            return self._in_turn(observations, infos, deterministic)
        joint = self._view == "joint"
        seen = self._env.state() if joint else self._seen.seen(observations)
        actions, _ = self._model.predict(seen, deterministic=deterministic, **self._masks(infos))
        by_agent = self._seen.by_agent(actions)
        return by_agent if joint else by_agent[0]

    def update(self, transition: JointTransition) -> None:
        """Nothing is learned."""

    def _in_turn(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], deterministic: bool
    ) -> dict[str, Any]:
        """A round of turns."""
        turns = self._seen.turns

        def action() -> Any:
            masks = {"action_masks": self._seen.action_masks()} if self._masked and turns.levels else {}
            return self._model.predict(turns.seen(turns.agent), deterministic=deterministic, **masks)[0]

        turns.begin(observations, infos)
        while not turns.is_last:
            self._seen.choose(action())
        joint: dict[str, Any] = self._seen.with_last(action())
        return joint

    def _masks(self, infos: Mapping[str, dict[str, Any]]) -> dict[str, np.ndarray]:
        """What a model that respects masks is told."""
        masks = [info["action_mask"] for info in infos.values() if "action_mask" in info]
        if not self._masked or not masks:
            return {}
        if self._view == "joint":
            return {"action_masks": np.concatenate(masks)}
        most = max(map(len, masks))  # those of agents with fewer levels end with what they lack
        return {"action_masks": np.stack([np.pad(mask, (0, most - len(mask))) for mask in masks])}


class StableBaselines3:
    """A team that an algorithm of Stable-Baselines3 trains, by the library's own loop.

    Args:
        env: The environment; its kind of actions must suit the algorithm.
        seed: Of the model; the environment gets the seed of `learn`.
        evaluations: The budget that the defaults are fit for.
        algorithm: A name in `ALGORITHMS`.
        view: ``"shared"``, ``"joint"`` or ``"in_turn"``.
        **hyperparameters: Of the algorithm, in place of the defaults.

    Raises:
        InputError: If the algorithm, the view or a hyperparameter is unknown, the library is not installed, or the
            algorithm cannot use the actions.
    """

    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        seed: int,
        evaluations: int,
        algorithm: str,
        view: str = "shared",
        **hyperparameters: Any,
    ) -> None:
        self._algorithm, self._view = choose("algorithm", algorithm, ALGORITHMS), view
        choose("view", view, dict.fromkeys(VIEWS))
        self._make = algorithm_class(algorithm)
        for name in hyperparameters:
            choose(f"hyperparameter of {algorithm}:", name, inspect.signature(self._make).parameters)
        num_agents = len(env.possible_agents)
        self._slots = 1 if view == "joint" else num_agents
        self._width = num_agents if view == "shared" else 1  # environments that an episode is to the library
        actions = num_agents if view == "joint" else 1
        self._budget = Budget(evaluations, self._slots, 1, actions, self._slots // self._width)
        self._given = {"seed": seed, "device": "cpu", **hyperparameters}
        try:
            self.model = self._model(as_seen(env, view), batch=1)
        except AssertionError as error:  # how the library refuses actions
            raise InputError(f"{algorithm} cannot be used here, with the view {view!r}: {error}") from error
        self._player = Player(self.model, env, view)

    def learn(
        self,
        env: ParallelEnv[str, Any, Any],
        evaluations: int,
        *,
        seed: int | None = None,
        on_evaluation: Callable[[Evaluation], None] | None = None,
        batch: int = 1,
        workers: int | None = None,
    ) -> list[Evaluation]:
        """Train; see `agents.train`. Warns if no update fits into the budget.

        With a batch of k, the library sees k environments; what it calls ``n_steps`` is of each of them.

        Raises:
            InputError: If the budget is not enough for one step, or the model has learned with another batch.
        """
        check_budget(env, evaluations)
        self._suit(env, batch)
        self._warn_of_no_update(evaluations // evaluations_per_step(env), batch)
        ledger = Ledger(evaluations, on_evaluation)
        if batch == 1:
            self.model.set_env(as_seen(Recorded(env, ledger), self._view))
            if seed is not None:
                self.model.env.seed(seed)
        else:
            self.model.set_env(self._seen_together(env, batch, ledger, workers))
            if seed is not None:
                env.reset(seed=seed)  # one seed for all, as those who have no loop of their own do it
        with contextlib.suppress(BudgetSpent):  # in the middle of a rollout, from which nothing more is learned
            self.model.learn(evaluations * self._slots)
        return ledger.history

    def act(
        self, observations: Mapping[str, Any], infos: Mapping[str, dict[str, Any]], *, deterministic: bool = False
    ) -> dict[str, Any]:
        """What the model says."""
        return self._player.act(observations, infos, deterministic=deterministic)

    def update(self, transition: JointTransition) -> None:
        """The library has a loop of its own: `learn`."""

    def _suit(self, env: ParallelEnv[str, Any, Any], batch: int) -> None:
        """See that the model is one for so many environments; it is made anew if it has learned nothing yet."""
        if self.model.n_envs == batch * self._width:
            return
        if self.model.num_timesteps:
            raise InputError(
                f"The batch is {batch}, and the model has learned with {self.model.n_envs // self._width}: "
                "expected the same."
            )
        self.model = self._model(self._seen_together(env, batch, Ledger(0), None), batch)
        self._player = Player(self.model, env, self._view)

    def _model(self, seen: Any, batch: int) -> Any:
        given = self._algorithm.defaults(self._budget._replace(batch=batch))
        if "n_steps" in self._given and "batch_size" in given:
            given["batch_size"] = self._given["n_steps"] * batch * self._width
        return self._make("MlpPolicy", seen, **{**given, **self._given})

    def _seen_together(
        self, env: ParallelEnv[str, Any, Any], batch: int, ledger: Ledger, workers: int | None
    ) -> Any:
        from agents.libraries.sb3_lanes import seen_together

        return seen_together(env, batch, self._view, ledger, workers)

    def _warn_of_no_update(self, steps: int, batch: int) -> None:
        """Say so if the budget ends before the model has learned anything."""
        if hasattr(self.model, "learning_starts"):
            needed = self.model.learning_starts // self._slots + 1
        else:
            needed = -(-self.model.n_steps * batch // self._budget.turns)
        if steps < needed:
            warnings.warn(
                f"{type(self.model).__name__} learns nothing in {steps} step(s) of the environment: its first "
                f"update comes after {needed}. Give it a larger budget, or a smaller n_steps or learning_starts.",
                stacklevel=3,
            )
