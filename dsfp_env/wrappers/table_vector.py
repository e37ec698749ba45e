"""Many joint actions in one step, answered from a table: a handful of NumPy calls for all environments.

The state of an environment is a row of the table (or the original network), the seed that answers, and the time.
Scores and observations of all rows are computed once, so a step looks them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.environment.actions import ratios_of_centred
from dsfp_env.environment.observations import SHARED, column_of, states
from dsfp_env.evaluation.budgets import MACS, Budget
from dsfp_env.evaluation.rewards import RewardFunction
from dsfp_env.tables.evaluator import TableEvaluator
from dsfp_env.tables.table import Table
from dsfp_env.tasks.layer_features import bounded
from dsfp_env.wrappers.joint_action import JointActionEnv
from dsfp_env.wrappers.many_masks import ManyMasks
from dsfp_env.wrappers.table_rows import rows_of

Infos = dict[str, Any]
MOST_ENVS = 10_000_000


class TableVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many `JointActionEnv` over one table, with all that a `SyncVectorEnv` of them does, to the last bit.

    All that: spaces, observations ``[num_envs, 3 * agents + 5]``, rewards ``[num_envs]``, infos, seeds
    (``reset(seed=s)`` gives ``s + i`` to the i-th), the end of episodes. It is what

        gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=1024, task="digits", backend="table")

    makes. What differs:

    - There are no environments inside: no ``envs``, ``call``, ``get_attr`` or ``set_attr``, and nothing to render.
    - Bad actions are refused before any environment has changed.
    - A reward function is asked about every joint action, when this is made, and must give finite numbers.
    - In infos, what is the same for the team and for each agent is one array: copy it before you write into it.
    - ``reset(options={"reset_mask": ...})`` leaves the options as they are.

    Where levels meet a budget, the infos of agents have masks, drawn for every episode by the generator of its
    environment. That is most of the time of such a step; ``agent_infos=False`` leaves it out.

    Args:
        num_envs: How many.
        task: A table, or a name for `load_table`.
        actions: As for `LayerPruningEnv`, and so up to `seed`.
        reward: Likewise.
        macs_budget: Likewise.
        horizon: Likewise.
        seed: Likewise, the same for all; drawn anew for each if not given.
        autoreset_mode: What follows the end of an episode: ``NEXT_STEP`` or ``SAME_STEP``.
        agent_infos: Whether infos have, by agent, what the parallel environment tells it; quicker without.
        **kwargs: See `layer_pruning_v0.parallel_env`; for example ``fidelity``, or ``params_budget``.

    Raises:
        InputError: If an argument is not what was expected.
    """

    def __init__(
        self,
        num_envs: int = 1,
        task: str | Table = "digits",
        actions: str = "box",
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | None = None,
        horizon: int = 1,
        seed: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        agent_infos: bool = True,
        **kwargs: Any,
    ) -> None:
        # What is for this class to check.
        if not isinstance(num_envs, (int, np.integer)) or not 1 <= num_envs <= MOST_ENVS:
            raise InputError(f"num_envs is {shortened(num_envs)}: expected a number of environments, 1 or more.")
        self._mode = _checked_mode(autoreset_mode)
        for name, only in (("backend", "table"), ("render_mode", None)):
            if (came := kwargs.pop(name, only)) is not only and not (isinstance(came, str) and came == only):
                raise InputError(f"Environments of a table in a vector have {name}={only!r} only: leave it out.")
        given = kwargs.get("evaluator")
        if not isinstance(given, (TableEvaluator, type(None))):
            raise InputError(
                f"The evaluator is of type {type(given).__name__}: expected a TableEvaluator, or none."
            )

        # One environment, which checks the rest, and is what each of them is like.
        looked_up = {} if given is not None and task == "digits" else {"task": task, "backend": "table"}
        pattern = JointActionEnv(
            actions=actions,
            reward=reward,
            macs_budget=macs_budget,
            horizon=horizon,
            seed=seed,
            **looked_up,
            **kwargs,
        )
        evaluator: TableEvaluator = pattern.parallel_env.evaluator

        # Spaces and rules.
        self.num_envs = int(num_envs)
        self.metadata = {**pattern.metadata, "autoreset_mode": self._mode}
        self.single_observation_space = pattern.observation_space
        self.observation_space = batch_space(pattern.observation_space, self.num_envs)
        self.single_action_space = pattern.action_space
        self.action_space = batch_space(pattern.action_space, self.num_envs)
        self._levels = actions == "levels"
        self._horizon, self._agent_infos = int(horizon), agent_infos

        # What is known of joint actions, and of agents.
        _, told = pattern.reset()
        self.table, self.agents = evaluator.table, list(evaluator.task.agents)
        self._places = rows_of(evaluator)
        self._bounds = np.array(
            [one[1:] for one in evaluator.task.control.agents.values()]
        ).T  # [2, agents], percent
        sets = [[told[agent]["coupled_set"]] for agent in self.agents]
        self._coupled_sets = np.repeat(np.array(sets), self.num_envs, axis=1)  # [agents, num_envs]
        budget, allowed = pattern.parallel_env.budget, pattern.parallel_env.allowed
        self._tells_params = budget is not None and budget.of != MACS
        self._look_all_up(evaluator, reward, budget)

        # Masks, and what is drawn at random.
        self._masks: ManyMasks | None = None
        if self._levels and budget is not None and agent_infos:
            used = self._relative_macs if budget.of == MACS else self._relative_params
            self._masks = ManyMasks(self._places, used[:-1] <= allowed)
            shape = self.num_envs, len(self.agents), int(self._places.sizes.max())
            self._drawn = np.ones(shape, np.int8)
        self._rngs: list[np.random.Generator | None] = [None] * self.num_envs  # draw masks; None: not made yet
        self.evaluation_seeds = (  # [num_envs] int64
            np.random.default_rng().integers(2**63, size=self.num_envs)
            if seed is None
            else np.full(self.num_envs, pattern.parallel_env.evaluation_seed)
        )

        # Where each environment is.
        self._started = np.zeros(self.num_envs, bool)  # there was a reset
        self._over = np.zeros(self.num_envs, bool)  # a reset follows in place of a step
        self._rows = np.full(self.num_envs, self._original)
        self._offsets = self._offsets_of(self.evaluation_seeds)
        self._time = np.zeros(self.num_envs, np.int64)
        self._ratios = np.zeros((self.num_envs, len(self.agents)))  # percent, as chosen

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Infos]:
        """Start an episode in every environment.

        Args:
            seed: ``s`` gives ``s + i`` to the i-th; or one for each. Where it is None, the one before stays.
            options: ``{"reset_mask": mask}``, ``[num_envs]`` bool, says which; without, all. Others are ignored.

        Returns:
            Observations and infos.

        Raises:
            InputError: If the seeds or the mask are not such.
        """
        which = self._which(options)
        given, seeds = self._seeds_of(seed)
        given &= which
        if given.any():
            self.evaluation_seeds = np.where(given, seeds, self.evaluation_seeds)
            self._offsets = self._offsets_of(self.evaluation_seeds)
            if self._masks is not None:
                self._rngs = [None if new else rng for new, rng in zip(given, self._rngs, strict=True)]
        self._started |= which
        self._over = self._over & ~which
        self._begin(which)
        return self._observe(), self._infos(which)

    def step(self, actions: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Prune by a joint action for each; where an episode was over, see the autoreset mode.

        Args:
            actions: ``[num_envs, agents]``, as in the action space; not looked at where an episode was over.

        Returns:
            Observations, rewards, terminations, truncations and infos.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InputError: If an action is not in its space; nothing has changed then.
        """
        if not self._started.all():
            raise ResetNeeded("step was called before reset: call env.reset(seed=...) first.")
        new = self._over
        rows, ratios = self._decoded(actions, ~new)
        before = self._scores[self._offsets + self._rows]
        self._rows, self._ratios, self._time = rows, ratios, self._time + 1
        if new.any():
            self._begin(new)
        rewards = np.where(new, 0.0, self._scores[self._offsets + self._rows] - before)
        over = self._time >= self._horizon
        final = {}
        if self._mode is AutoresetMode.NEXT_STEP:
            self._over = over
        elif over.any():
            final = self._final(over)
            self._begin(over)
        everyone = np.ones(self.num_envs, bool)
        return self._observe(), rewards, over.copy(), ~everyone, final | self._infos(everyone)

    def render(self) -> None:
        """Nothing: the render mode is None."""

    def _look_all_up(
        self,
        evaluator: TableEvaluator,
        reward: str | RewardFunction,
        budget: Budget | None,
    ) -> None:
        """What is known of every joint action, and of the original network after the last of them.

        Args:
            evaluator: Of the table.
            reward: As for the environment.
            budget: That of the environment.
        """
        table, whole, name = self.table, evaluator.original, evaluator.fidelity_name
        count = len(table)
        self._original = count  # its row
        known = table.query(table.levels_of(np.arange(count)))
        self._macs = np.append(known.macs, whole.macs)
        self._relative_macs = np.append(known.relative_macs, whole.relative_macs)
        self._params = np.append(known.params, whole.params)
        self._relative_params = self._params / whole.params
        filters = np.array(list(whole.filters_kept.values()))
        of_agents = [table.filters_kept[:, members].sum(1, dtype=np.int64) for members in self._places.members]
        self._filters_kept = np.append(np.stack(of_agents), filters[:, None], 1)  # [agents, rows]
        self._applied_ratios = 100 * (1 - self._filters_kept / filters[:, None])  # [agents, rows], percent
        # By seed and row, one seed after another: a place is offset + row.
        accuracies = [table.accuracies(seed, "validation", name) for seed in table.seeds]
        self._accuracies = np.concatenate([np.append(one, whole.accuracy) for one in accuracies])
        scores = [table.scores(reward, budget, seed, "validation", name) for seed in table.seeds]
        self._scores = np.concatenate([np.append(one, 0.0) for one in scores])
        # Observations, but for accuracy and time.
        unknown = np.zeros(count + 1)
        shared = {
            "accuracy": unknown,
            "relative_macs": self._relative_macs,
            "relative_params": self._relative_params,
            "macs_budget": np.full(count + 1, 1.0 if budget is None else budget.share),
            "time": unknown,
        }
        fixed = np.stack(list(evaluator.layer_features.values()))  # [agents, features]
        self._observations = states(fixed, self._applied_ratios.T, np.stack([shared[name] for name in SHARED], 1))
        self._seen_accuracies = bounded(self._accuracies)
        self._accuracy_column, self._time_column = (column_of(name, len(fixed)) for name in ("accuracy", "time"))
        self._middles = (table.levels[1:] + table.levels[:-1]) / 2

    def _begin(self, which: np.ndarray) -> None:
        """Start an episode in these, ``[num_envs]`` bool."""
        self._rows = np.where(which, self._original, self._rows)
        self._time = np.where(which, 0, self._time)
        self._ratios = np.where(which[:, None], 0.0, self._ratios)
        if self._masks is not None:
            places = np.flatnonzero(which)
            self._drawn = self._drawn.copy()
            self._drawn[places] = self._masks.draw([self._rng(place) for place in places.tolist()])

    def _rng(self, place: int) -> np.random.Generator:
        """The generator of one environment, as a `LayerPruningEnv` with its seed would have."""
        rng = self._rngs[place]
        if rng is None:
            rng = self._rngs[place] = np.random.default_rng(int(self.evaluation_seeds[place]))
        return rng

    def _decoded(self, actions: ArrayLike, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows ``[num_envs]`` and ratios in percent ``[num_envs, agents]``; anything where none is live.

        Raises:
            InputError: If an action cannot be used.
        """
        try:
            given = np.asarray(actions)
        except Exception as error:  # whatever their class raises
            raise_if_of_the_machine(error, "reading actions", "the actions")
            raise InputError(
                f"The actions are no array of numbers ({error}): expected {self._expected()}."
            ) from error
        kinds = "iu" if self._levels else "iuf"
        if given.shape != (self.num_envs, len(self.agents)) or given.dtype.kind not in kinds:
            raise InputError(
                f"The actions have shape {given.shape} and type {given.dtype}: expected {self._expected()}."
            )
        if self._levels:
            levels = given + self._places.lowest
            fine = (given >= 0) & (given < self._places.sizes)
        else:
            lowest, highest = self._bounds
            with np.errstate(over="ignore", invalid="ignore"):
                ratios = ratios_of_centred(given, lowest, highest).astype(np.float64)
            fine = (ratios >= lowest) & (ratios <= highest)
            levels = np.searchsorted(self._middles, ratios)
        if not fine.all():
            fine |= ~live[:, None]
            for place, agent in np.argwhere(~fine)[:1]:
                action = given[place, agent]
                raise InputError(
                    f"The action of {self.agents[agent]} in environment {place} is {action}: expected "
                    f"{self._expected(agent)}."
                )
            levels = np.where(live[:, None], levels, 0)
        levels = levels.astype(np.int64)
        return self._places.of(levels), self.table.levels[levels] if self._levels else ratios

    def _expected(self, agent: int = 0) -> str:
        """In words, of one of the agents."""
        lowest, highest = (ends[agent] for ends in self._bounds)
        what = f"numbers from -1 ({lowest:.0f} %) to 1 ({highest:.0f} %)"
        if self._levels:
            first, count = int(self._places.lowest[agent]), int(self._places.sizes[agent])
            levels = self.table.levels[first : first + count]
            what = f"integers from 0 ({levels[0]:.0f} %) to {count - 1} ({levels[-1]:.0f} %)"
        return f"{what}, in an array [{self.num_envs}, {len(self.agents)}]"

    def _observe(self) -> np.ndarray:
        """Observations ``[num_envs, 3 * agents + 5]`` float32, new each time."""
        seen = self._observations[self._rows]
        seen[:, self._accuracy_column] = self._seen_accuracies[self._offsets + self._rows]
        seen[:, self._time_column] = self._time / self._horizon
        return seen

    def _infos(self, which: np.ndarray) -> Infos:
        """Infos of these, ``[num_envs]`` bool, as `SyncVectorEnv` puts them together; 0 for others."""
        rows, places = self._rows, self._offsets + self._rows
        team = {
            "accuracy": self._accuracies[places],
            "relative_macs": self._relative_macs[rows],
            "macs": self._macs[rows],
            "params": self._params[rows],
            "score": self._scores[places],
            "evaluations": (rows != self._original).astype(np.int64),
        }
        if self._tells_params:
            team["relative_params"] = self._relative_params[rows]
        everyone = which.all()
        if not everyone:
            team = {key: _only(which, value) for key, value in team.items()}
        infos = _with_masks(team, which)
        if not self._agent_infos:
            return infos
        own: dict[str, np.ndarray] = {
            "ratio": self._ratios.T.copy(),
            "applied_ratio": self._applied_ratios[:, rows],
            "coupled_set": self._coupled_sets.copy(),
            "filters_kept": self._filters_kept[:, rows],
        }
        if self._masks is not None:
            own["action_mask"] = self._drawn.swapaxes(0, 1).copy()
        if not everyone:
            own = {key: _only(which, value) for key, value in own.items()}
        shared = {**team, "credit": team["score"]}  # one controller: the credit is shared
        for place, agent in enumerate(self.agents):
            mine = {key: value[place] for key, value in own.items()}
            if "action_mask" in mine:
                mine["action_mask"] = mine["action_mask"][:, : self._places.sizes[place]]
            infos |= _with_masks({agent: _with_masks(shared | mine, which)}, which)
        return infos

    def _final(self, over: np.ndarray) -> Infos:
        """What is told of episodes that are over, ``[num_envs]`` bool, before the next ones start."""
        final_obs = np.full(self.num_envs, None, object)
        final_obs[over] = np.fromiter(self._observe()[over], object, int(over.sum()))
        return _with_masks({"final_obs": final_obs, "final_info": self._infos(over)}, over)

    def _which(self, options: Mapping[str, Any] | None) -> np.ndarray:
        """The environments to reset, ``[num_envs]`` bool."""
        if options is not None and not isinstance(options, Mapping):
            raise InputError(f"The options are {shortened(options)}: expected a dict, or None.")
        if not options or "reset_mask" not in options:
            return np.ones(self.num_envs, bool)
        mask = options["reset_mask"]
        fits = isinstance(mask, np.ndarray) and mask.shape == (self.num_envs,) and mask.dtype == np.bool_
        if not fits or not mask.any():
            raise InputError(
                f"options['reset_mask'] is {shortened(mask)}: expected an array [{self.num_envs}] of bool, True "
                "somewhere."
            )
        return mask.copy()

    def _seeds_of(self, seed: int | Sequence[int | None] | None) -> tuple[np.ndarray, np.ndarray]:
        """Where a seed was given, ``[num_envs]`` bool, and the seeds, ``[num_envs]`` int64."""
        if seed is None:
            return np.zeros(self.num_envs, bool), self.evaluation_seeds
        if isinstance(seed, (int, np.integer)):
            _check_seed(seed, 0)
            seeds = np.uint64(int(seed) % 2**63) + np.arange(self.num_envs, dtype=np.uint64)
            return np.ones(self.num_envs, bool), (seeds % np.uint64(2**63)).astype(np.int64)
        numbers = isinstance(seed, np.ndarray) and seed.ndim == 1
        if not numbers and (not isinstance(seed, Sequence) or isinstance(seed, (str, bytes))):
            raise InputError(f"The seeds are {shortened(seed)}: expected one, one for each environment, or None.")
        if len(seed) != self.num_envs:
            raise InputError(f"{len(seed)} seeds came for {self.num_envs} environments: expected one for each.")
        for place, one in enumerate(seed):
            _check_seed(one, place)
        given = np.array([one is not None for one in seed])
        return given, np.array([int(one or 0) % 2**63 for one in seed], np.int64)

    def _offsets_of(self, seeds: np.ndarray) -> np.ndarray:
        """Where the seed that answers begins, ``[num_envs]``; see `TableEvaluator.measured_seed`."""
        places = seeds % len(self.table.seeds)
        for place, measured in enumerate(self.table.seeds):
            places[seeds == measured] = place
        return places * (self._original + 1)


def _with_masks(values: Mapping[str, Any], which: np.ndarray) -> Infos:
    """Infos with a mask for each, as Gymnasium has them."""
    infos = {}
    for key, value in values.items():
        infos[key], infos[f"_{key}"] = value, which
    return infos


def _only(which: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values ``[num_envs]``, ``[agents, num_envs]`` or ``[agents, num_envs, levels]``; 0 for others than these."""
    return np.where(which[:, None] if values.ndim == 3 else which, values, values.dtype.type(0))


def _check_seed(seed: Any, place: int) -> None:
    if seed is not None and not (isinstance(seed, (int, np.integer)) and not isinstance(seed, bool) and seed >= 0):
        raise InputError(
            f"The seed of environment {place} is {shortened(seed)}: expected a whole number, 0 or more, or None."
        )


def _checked_mode(mode: str | AutoresetMode) -> AutoresetMode:
    offered = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    found = next(
        (one for one in offered if isinstance(mode, (str, AutoresetMode)) and mode in (one, one.value)), None
    )
    if found is None:
        raise InputError(
            f"The autoreset mode is {shortened(mode)}: expected "
            f"{' or '.join(repr(one.value) for one in offered)}; without "
            "one, use SyncVectorEnv."
        )
    return found
