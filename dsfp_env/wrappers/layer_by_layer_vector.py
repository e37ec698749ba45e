"""Many environments in which one controller decides for a layer a step, over one table or surrogate.

All begin at once and their episodes are as long, so in all it is the turn of the same layer: a step is a handful
of NumPy calls, and every round of turns is one step of a `TableVectorEnv` or `SurrogateVectorEnv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.environment.actions import choices_of, ratios_of_centred
from dsfp_env.environment.backends import MEASURING
from dsfp_env.environment.observations import FEATURES
from dsfp_env.tasks.layer_features import FIXED, bounded
from dsfp_env.wrappers.layer_by_layer import LayerByLayerEnv
from dsfp_env.wrappers.many_episodes import Infos, ManyEpisodes, checked_mode, checked_number, with_masks
from dsfp_env.wrappers.surrogate_vector import SurrogateVectorEnv
from dsfp_env.wrappers.table_vector import TableVectorEnv

KINDS: dict[str, Any] = {"table": TableVectorEnv, "surrogate": SurrogateVectorEnv}


def layer_by_layer_vector(num_envs: int = 1, backend: str = "live", **kwargs: Any) -> VectorEnv[Any, Any, Any]:
    """What `gymnasium.make_vec` makes: of a table or a surrogate a `LayerByLayerVectorEnv`.

    Else it is Gymnasium's `SyncVectorEnv`, of environments with one evaluator.

    Args:
        num_envs: How many.
        backend: ``"live"``, ``"table"`` or ``"surrogate"``, as for `layer_pruning_v0.parallel_env`.
        **kwargs: See `LayerByLayerEnv`, and ``autoreset_mode``.

    Raises:
        InputError: If an argument is not what was expected.
    """
    if isinstance(backend, str) and backend in KINDS:
        return cast(VectorEnv[Any, Any, Any], LayerByLayerVectorEnv(num_envs, backend=backend, **kwargs))
    mode = kwargs.pop("autoreset_mode", AutoresetMode.NEXT_STEP)
    first = LayerByLayerEnv(backend=backend, **kwargs)
    game = {name: value for name, value in kwargs.items() if name not in MEASURING}
    shared = {**game, "evaluator": first.parallel_env.at_budget or first.parallel_env.evaluator}
    others = [LayerByLayerEnv(**shared) for _ in range(checked_number(num_envs) - 1)]
    return SyncVectorEnv([partial(_the_same, env) for env in (first, *others)], autoreset_mode=mode)


class LayerByLayerVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many `LayerByLayerEnv` over one table or surrogate, with all that a `SyncVectorEnv` of them does.

    That is spaces, observations ``[num_envs, m + 3 * agents + 2]``, rewards ``[num_envs]``, infos, exact masks in
    turn, seeds (``reset(seed=s)`` gives ``s + i`` to the i-th) and the end of episodes, to the last bit; what
    differs is what `TableVectorEnv` and `SurrogateVectorEnv` say. It is what

        gymnasium.make_vec("dsfp/LayerByLayer-v0", num_envs=1024, task="digits", backend="table")

    makes. In all it is the turn of the same layer, so all are reset together: there is no ``reset_mask``.

    Args:
        num_envs: How many.
        backend: ``"table"`` or ``"surrogate"``.
        order: In which layers are decided for, as in `LayerByLayerEnv`.
        horizon: As for `LayerPruningEnv`.
        autoreset_mode: What follows the end of an episode: ``NEXT_STEP`` or ``SAME_STEP``.
        **kwargs: See `layer_pruning_v0.parallel_env`; of a surrogate ``distances``, too.

    Attributes:
        order: The agents in the order of their turns.
        features: Names of the entries of an observation; see `environment.turns`.
        levels: Whether actions are.

    Raises:
        InputError: If an argument is not what was expected.
    """

    def __init__(
        self,
        num_envs: int = 1,
        backend: str = "table",
        order: str | Iterable[str] = "execution",
        horizon: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **kwargs: Any,
    ) -> None:
        number, self._mode = checked_number(num_envs), checked_mode(autoreset_mode)
        kind = choose("backend of many environments, layer by layer", backend, KINDS)
        told = {"distances": kwargs.pop("distances")} if "distances" in kwargs and backend == "surrogate" else {}
        pattern = LayerByLayerEnv(None, order, backend=backend, horizon=horizon, **kwargs)
        env = pattern.parallel_env
        if tuple(env.features) != FEATURES:
            raise InputError("Many environments show agents their layers: expected observation='layers'.")
        game = {name: value for name, value in kwargs.items() if name not in MEASURING}
        game |= {
            "evaluator": env.at_budget or env.evaluator,
            "autoreset_mode": self._mode,
            "horizon": horizon,
            "masks": False,
        }
        self._rounds: ManyEpisodes = kind(number, **game, **told)

        # Spaces and rules.
        self.num_envs, self.agents, self.order = number, list(env.possible_agents), pattern.turns.order
        self.features, self.metadata = pattern.turns.features, {**pattern.metadata, "autoreset_mode": self._mode}
        self.single_observation_space = pattern.observation_space
        self.observation_space = batch_space(pattern.observation_space, number)
        self.single_action_space = pattern.action_space
        self.action_space = batch_space(pattern.action_space, number)
        self._fills = env.at_budget is not None
        self.levels, self._horizon, self._allowed = pattern.turns.levels, int(horizon), env.allowed
        control = env.evaluator.task.control.agents
        self._choices = choices_of(control, "levels" if self.levels else "box", env.evaluator.levels)
        ends = [one.levels[[0, -1]] if self.levels else one[:2] for one in self._choices.values()]
        self._ends = np.array(ends).T  # [2, agents], percent
        self._fixed = np.stack(list(env.evaluator.layer_features.values()))  # [agents, features]

        # Where all of them are.
        self._turn: int | None = None  # in the order; None before the first reset, and at the end
        self._over, self._time = False, 0  # whether a reset follows in place of a step; rounds
        self._actions = np.zeros((number, len(self.agents)), np.int64 if self.levels else np.float32)
        self._ratios = np.zeros((number, len(self.agents)))  # percent; of who has not chosen, of the round before
        self._told: Infos = {}  # of the last outcome

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Infos]:
        """Start an episode in every environment.

        Args:
            seed: ``s`` gives ``s + i`` to the i-th; or one for each. Where it is None, the one before stays.
            options: Are ignored.

        Returns:
            Observations and infos.

        Raises:
            InputError: If the seeds are not such, or some are to be reset and others not.
        """
        if options and "reset_mask" in options:
            raise InputError("All environments decide for the same layer: expected a reset without reset_mask.")
        _, infos = self._rounds.reset(seed=seed, options=options)
        self._time, self._over = 0, False
        return self._begin(infos)

    def step(self, actions: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Decide for the layer whose turn it is; where the episodes were over, see the autoreset mode.

        Args:
            actions: ``[num_envs]`` levels, or ``[num_envs, 1]`` in [-1, 1]; after the end not looked at.

        Returns:
            Observations, rewards, terminations, truncations and infos.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InputError: If an action is not in its space; nothing has changed then.
        """
        rewards, over, never = (np.zeros(self.num_envs, kind) for kind in (float, bool, bool))
        if self._over:
            *_, infos = self._rounds.step(self._actions)
            self._time, self._over = 0, False
            seen, told = self._begin(infos)
        elif self._turn is None:
            raise ResetNeeded("step was called before reset: call env.reset(seed=...) first.")
        else:
            place = self._place
            self._actions[:, place], self._ratios[:, place] = self._decoded(actions)
            self._turn += 1
            if self._turn < len(self.order):
                return self._observe(), rewards, over, never, self._infos()
            _, rewards, over, _, infos = self._rounds.step(self._actions)
            self._time += 1
            seen, told = self._begin(infos) if not over.all() else self._end(infos)
        return seen, rewards, over, never, told

    def action_masks(self) -> np.ndarray:
        """The levels that may be chosen for the layer whose turn it is, ``[num_envs, levels]`` bool.

        Raises:
            InputError: If actions are no levels.
        """
        if not isinstance(self.single_action_space, Discrete):
            raise InputError("Masks are for levels, and actions are 'box': expected actions='levels'.")
        mask = self._mask().astype(bool)
        return np.pad(mask, ((0, 0), (0, int(self.single_action_space.n) - mask.shape[1])))

    def _begin(self, infos: Infos, over: bool = False) -> tuple[np.ndarray, Infos]:
        """A round, or nobody's turn at the end of an episode: what is seen and told."""
        self._turn, self._told = None if over else 0, infos
        self._ratios = np.stack([infos[agent]["ratio"] for agent in self.agents], axis=1)
        return self._observe(), self._infos()

    def _end(self, infos: Infos) -> tuple[np.ndarray, Infos]:
        """The end of all episodes: what is seen and told, of the next ones if they begin in the same step."""
        if self._mode is AutoresetMode.NEXT_STEP:
            self._over = True
            return self._begin(infos, over=True)
        new = {key: value for key, value in infos.items() if not key.lstrip("_").startswith("final_")}
        last, told = self._begin(infos["final_info"], over=True)
        final = {"final_obs": np.fromiter(last, object, self.num_envs), "final_info": told}
        self._time = 0
        seen, told = self._begin(new)
        return seen, with_masks(final, np.ones(self.num_envs, bool)) | told

    @property
    def is_first(self) -> bool:
        """Whether it is the first turn of a round."""
        return self._turn == 0

    @property
    def _place(self) -> int:
        """Whose turn it is, or the first in the order: where it is among the agents."""
        return self.agents.index(self.order[self._turn or 0])

    def _chosen(self) -> np.ndarray:
        """Who has chosen in this round, ``[agents]`` bool."""
        return np.isin(self.agents, self.order[: self._turn or 0])

    def _decoded(self, actions: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The actions of the agent whose turn it is, ``[num_envs]``, and the ratios in percent that they mean.

        Raises:
            InputError: If one is not in the action space.
        """
        given, choice = np.asarray(actions), list(self._choices.values())[self._place]
        fits = given.shape == self.action_space.shape and given.dtype.kind in ("iu" if self.levels else "iuf")
        if fits and self.levels:
            assert isinstance(self.single_action_space, Discrete)
            fits = bool(((given >= 0) & (given < self.single_action_space.n)).all())
        elif fits:
            fits = bool((np.abs(given) <= 1).all())
        if not fits:
            raise InputError(
                f"The actions of {self.agents[self._place]} are {shortened(actions)}: expected an array of "
                f"{self.action_space}."
            )
        if self.levels:
            own = np.minimum(given, len(choice.levels) - 1)
            return own, choice.levels[own]
        return given[:, 0], ratios_of_centred(given[:, 0], choice.lowest, choice.highest).astype(np.float64)

    def _observe(self) -> np.ndarray:
        """What the agent sees whose turn it is, ``[num_envs, m + 3 * agents + 2]``; see `environment.turns`."""
        count, agents, place = len(FEATURES), len(self.agents), self._place
        seen = np.zeros((self.num_envs, len(self.features)), np.float32)
        seen[:, : len(FIXED)] = self._fixed[place]
        now = {"macs_budget": 1.0 if self._allowed is None else self._allowed, "time": self._time / self._horizon}
        now |= {"ratio": self._told[self.agents[place]]["applied_ratio"] / 100}
        for column, name in enumerate(FEATURES[len(FIXED) :], start=len(FIXED)):
            seen[:, column] = now[name] if name in now else self._told[name]
        bounded(seen[:, :count])
        seen[:, count : count + agents] = self._chosen()
        seen[:, count + agents : count + 2 * agents] = self._ratios / 100
        if self._turn is not None:
            seen[:, count + 2 * agents + place] = 1
        seen[:, -2:] = np.stack([self._rounds.relative_cost(self._completed(end)) for end in (1, 0)], axis=1)
        return seen

    def _completed(self, end: int) -> np.ndarray:
        """The ratios that were chosen, of all others the lowest, 0, or the highest, 1: ``[num_envs, agents]``."""
        return np.where(self._chosen(), self._ratios, self._ends[end])

    def _mask(self) -> np.ndarray:
        """The levels that the agent whose turn it is may choose, ``[num_envs, its levels]`` int8."""
        levels = list(self._choices.values())[self._place].levels
        if self._allowed is None or self._fills:
            return np.ones((self.num_envs, len(levels)), np.int8)
        tried = np.repeat(self._completed(1), len(levels), axis=0)
        tried[:, self._place] = np.tile(levels, self.num_envs)
        fine = (self._rounds.relative_cost(tried) <= self._allowed).reshape(self.num_envs, -1)
        fine[:, -1] = True  # where the others have left nothing, too
        return fine.astype(np.int8)

    def _infos(self) -> Infos:
        """Infos of the last outcome, with whose turn it is, and its mask."""
        agent = None if self._turn is None else self.order[self._turn]
        turn: dict[str, Any] = {"agent": np.full(self.num_envs, agent, object)}
        if self.levels:
            turn["action_mask"] = self._mask()
        return {**with_masks(turn, np.ones(self.num_envs, bool)), **self._told}


def _the_same(env: LayerByLayerEnv) -> LayerByLayerEnv:
    return env
