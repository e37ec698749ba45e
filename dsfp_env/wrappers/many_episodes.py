"""The episodes of many environments that step at once: seeds, resets, autoreset, infos as Gymnasium makes them.

What is known of the networks that they have made comes from elsewhere (`Networks`): a table, or a surrogate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike

from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.environment.actions import choices_of, ratios_of_centred
from dsfp_env.environment.infos import TEAM
from dsfp_env.environment.observations import column_of
from dsfp_env.evaluation.at_budget import many_brought_to, unfilled
from dsfp_env.wrappers.joint_action import JointActionEnv

Infos = dict[str, Any]
MOST_ENVS = 10_000_000
DEFAULT_TASKS = {"table": "digits", "surrogate": "resnet20"}  # backend -> what it is asked about unless told


class Known(NamedTuple):
    """What is known of the networks of many environments as they are; arrays that nobody else holds."""

    seen: np.ndarray  # [num_envs, 3 * agents + 5] float32: observations, but for the time
    score: np.ndarray  # [num_envs]
    team: Infos  # what infos tell of the network beside the score: key -> [num_envs]
    applied_ratios: np.ndarray | None  # [agents, num_envs], percent; None if infos are of the team only
    filters_kept: np.ndarray | None  # [agents, num_envs], likewise


class Networks(Protocol):
    """One network for each environment: the original, or what a joint action has made of it."""

    def prune(self, actions: Actions) -> None:
        """Each becomes what a joint action makes of the original."""

    def restore(self, which: np.ndarray) -> None:
        """These, ``[num_envs]`` bool, become the original."""

    def reseed(self, seeds: np.ndarray) -> None:
        """Fine-tuning has these seeds from now on, ``[num_envs]`` int64; networks that are there stay."""

    def known(self) -> Known:
        """What is known of them."""

    def used(self, ratios: np.ndarray) -> np.ndarray:
        """What ratios ``[N, agents]`` cost, ``[N]``; see `ManyEpisodes.relative_cost`."""


class Masks(Protocol):
    """Draws the masks of a budget."""

    def draw(self, rngs: Sequence[np.random.Generator]) -> np.ndarray:
        """Masks ``[N, agents, levels]`` int8, each drawn by its own generator; 0 beyond the levels of an agent."""


class Actions(NamedTuple):
    """A joint action for each environment."""

    ratios: np.ndarray  # [num_envs, agents] float64, percent
    levels: np.ndarray | None  # [num_envs, agents] int64, among all levels; None if actions are no levels


class ManyEpisodes(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many `JointActionEnv` without these; see `TableVectorEnv`, which says what it does.

    Args:
        num_envs: How many.
        pattern: One environment, which is what each of them is like.
        horizon: Steps in an episode.
        seed: Of all; drawn anew for each if None.
        mode: What follows the end of an episode; as `checked_mode` gives it.
        agent_infos: Whether infos have, by agent, what the parallel environment tells it.
    """

    def __init__(
        self,
        num_envs: int,
        pattern: JointActionEnv,
        horizon: int,
        seed: int | None,
        mode: AutoresetMode,
        agent_infos: bool,
    ) -> None:
        env = pattern.parallel_env
        evaluator = env.evaluator

        # Spaces and rules.
        self.num_envs, self._mode = num_envs, mode
        self.metadata = {**pattern.metadata, "autoreset_mode": mode}
        self.single_observation_space = pattern.observation_space
        self.observation_space = batch_space(pattern.observation_space, num_envs)
        self.single_action_space = pattern.action_space
        self.action_space = batch_space(pattern.action_space, num_envs)
        self._horizon, self._agent_infos = int(horizon), agent_infos

        # What agents can choose, and what they are told that never changes.
        _, told = pattern.reset()
        self.agents = list(evaluator.task.agents)
        self._levels = not isinstance(pattern.action_space, Box)
        self._all_levels = evaluator.levels  # percent
        deciders = evaluator.task.control.agents
        choices = choices_of(deciders, "box", evaluator.levels).values()
        self._lowest = np.array([np.searchsorted(evaluator.levels, choice.lowest) for choice in choices])
        self._sizes = np.array([len(choice.levels) for choice in choices])
        self._bounds = np.array([one[1:] for one in deciders.values()]).T  # [2, agents], percent
        sets = [[told[agent]["coupled_set"]] for agent in self.agents]
        self._coupled_sets = np.repeat(np.array(sets), num_envs, axis=1)  # [agents, num_envs]
        self._fills_to = None if env.at_budget is None else env.allowed  # a share
        self._time_column = column_of("time", len(self.agents))

        # What is drawn at random.
        self._masks: Masks | None = None
        shape = num_envs, len(self.agents), int(self._sizes.max())
        self._drawn = np.ones(shape, np.int8)
        self._rngs: list[np.random.Generator | None] = [None] * num_envs  # draw masks; None: not made yet
        self.evaluation_seeds = (  # [num_envs] int64
            np.random.default_rng().integers(2**63, size=num_envs)
            if seed is None
            else np.full(num_envs, env.evaluation_seed)
        )

        # Where each environment is.
        self._started = np.zeros(num_envs, bool)  # there was a reset
        self._over = np.zeros(num_envs, bool)  # a reset follows in place of a step
        self._time = np.zeros(num_envs, np.int64)
        self._ratios = np.zeros((num_envs, len(self.agents)))  # percent, as chosen, or brought to a budget

    def _use(self, networks: Networks, masks: Masks | None) -> None:
        """Have these; the last thing that is done when one is made."""
        self._networks, self._masks = networks, masks
        networks.reseed(self.evaluation_seeds)
        self._look()

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, Infos]:
        """Start an episode in every environment.

        Args:
            seed: ``s`` gives ``s + i`` to the i-th; or one for each. Where it is None, the one before stays.
            options: ``{"reset_mask": mask}``, ``[num_envs]`` bool, says which; without, all. Others are ignored.

        Returns:
            Observations ``[num_envs, 3 * agents + 5]`` float32, and infos.

        Raises:
            InputError: If the seeds or the mask are not such.
        """
        which = self._which(options)
        given, seeds = self._seeds_of(seed)
        given &= which
        if given.any():
            self.evaluation_seeds = np.where(given, seeds, self.evaluation_seeds)
            self._networks.reseed(self.evaluation_seeds)
            if self._masks is not None:
                self._rngs = [None if new else rng for new, rng in zip(given, self._rngs, strict=True)]
        self._started |= which
        self._over = self._over & ~which
        self._begin(which)
        self._look()
        return self._observe(), self._infos(which)

    def step(self, actions: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, Infos]:
        """Prune by a joint action for each; where an episode was over, see the autoreset mode.

        Args:
            actions: ``[num_envs, agents]``, as in the action space; not looked at where an episode was over.

        Returns:
            Observations ``[num_envs, 3 * agents + 5]`` float32, rewards ``[num_envs]`` float64, terminations and
            truncations ``[num_envs]`` bool, and infos.

        Raises:
            gymnasium.error.ResetNeeded: Before the first reset.
            InputError: If an action is not in its space; nothing has changed then.
        """
        if not self._started.all():
            raise ResetNeeded("step was called before reset: call env.reset(seed=...) first.")
        new = self._over
        chosen, before = self._decoded(actions, ~new), self._score
        if self._fills_to is not None:  # see `AtBudget`
            filled = many_brought_to(self._bounds, chosen.ratios, self._networks.used, self._fills_to)
            chosen = Actions(filled, None)
        self._ratios, self._time = chosen.ratios, self._time + 1
        if not new.all():
            self._networks.prune(chosen)
        if new.any():
            self._begin(new)
        self._look()
        rewards = np.where(new, 0.0, self._score - before)
        over = self._time >= self._horizon
        final = {}
        if self._mode is AutoresetMode.NEXT_STEP:
            self._over = over
        elif over.any():
            final = self._final(over)
            self._begin(over)
            self._look()
        everyone = np.ones(self.num_envs, bool)
        return self._observe(), rewards, over.copy(), ~everyone, final | self._infos(everyone)

    def relative_cost(self, ratios: np.ndarray) -> np.ndarray:
        """What joint actions cost, relative to the original network, ``[N]``.

        Args:
            ratios: ``[N, agents]`` float64, in percent, within the bounds of the agents.

        Returns:
            In (0, 1]; of the kind of cost that the budget is of, of MACs if there is none.
        """
        return self._networks.used(ratios)

    def render(self) -> None:
        """Nothing: the render mode is None."""

    def _begin(self, which: np.ndarray) -> None:
        """Start an episode in these, ``[num_envs]`` bool."""
        self._networks.restore(which)
        self._time = np.where(which, 0, self._time)
        self._ratios = np.where(which[:, None], 0.0, self._ratios)
        if self._masks is not None:
            places = np.flatnonzero(which)
            self._drawn = self._drawn.copy()
            self._drawn[places] = self._masks.draw([self._rng(place) for place in places.tolist()])

    def _look(self) -> None:
        """See what the networks are worth."""
        self._known = self._networks.known()
        self._score = self._known.score.copy()  # what is given to others may be written to

    def _rng(self, place: int) -> np.random.Generator:
        """The generator of one environment, as a `LayerPruningEnv` with its seed would have."""
        rng = self._rngs[place]
        if rng is None:
            rng = self._rngs[place] = np.random.default_rng(int(self.evaluation_seeds[place]))
        return rng

    def _decoded(self, actions: ArrayLike, live: np.ndarray) -> Actions:
        """What these actions mean; the lowest ratios, where one that is not live has none.

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
            fine = (given >= 0) & (given < self._sizes)
        else:
            (lowest, highest), ratios = self._bounds, self._ratios_of(given)
            fine = (ratios >= lowest) & (ratios <= highest)
        if not fine.all():
            fine |= ~live[:, None]
            for place, agent in np.argwhere(~fine)[:1]:
                action = given[place, agent]
                raise InputError(
                    f"The action of {self.agents[agent]} in environment {place} is {action}: expected "
                    f"{self._expected(agent)}."
                )
            given = np.where(live[:, None], given, 0 if self._levels else -1)
        if self._levels:
            levels = given.astype(np.int64) + self._lowest
            return Actions(self._all_levels[levels], levels)
        return Actions(self._ratios_of(given), None)

    def _ratios_of(self, given: np.ndarray) -> np.ndarray:
        """Of numbers in [-1, 1], in percent."""
        with np.errstate(over="ignore", invalid="ignore"):
            return ratios_of_centred(given, *self._bounds).astype(np.float64)

    def _expected(self, agent: int = 0) -> str:
        """In words, of one of the agents."""
        lowest, highest = (ends[agent] for ends in self._bounds)
        what = f"numbers from -1 ({lowest:.0f} %) to 1 ({highest:.0f} %)"
        if self._levels:
            first, count = int(self._lowest[agent]), int(self._sizes[agent])
            levels = self._all_levels[first : first + count]
            what = f"integers from 0 ({levels[0]:.0f} %) to {count - 1} ({levels[-1]:.0f} %)"
        return f"{what}, in an array [{self.num_envs}, {len(self.agents)}]"

    def _observe(self) -> np.ndarray:
        """Observations ``[num_envs, 3 * agents + 5]`` float32, new each time."""
        seen = self._known.seen
        seen[:, self._time_column] = self._time / self._horizon
        return seen

    def _infos(self, which: np.ndarray) -> Infos:
        """Infos of these, ``[num_envs]`` bool, as `SyncVectorEnv` puts them together; 0 for others."""
        known = {**self._known.team, "score": self._known.score, "evaluations": (self._time > 0).astype(np.int64)}
        team = {key: known[key] for key in TEAM if key in known}
        everyone = which.all()
        if not everyone:
            team = {key: _only(which, value) for key, value in team.items()}
        infos = with_masks(team, which)
        if not self._agent_infos:
            return infos
        own: dict[str, Any] = {
            "ratio": self._ratios.T.copy(),
            "applied_ratio": self._known.applied_ratios,
            "coupled_set": self._coupled_sets.copy(),
            "filters_kept": self._known.filters_kept,
        }
        if self._masks is not None:
            own["action_mask"] = self._drawn.swapaxes(0, 1).copy()
        if not everyone:
            own = {key: _only(which, value) for key, value in own.items()}
        shared = with_masks({**team, "credit": team["score"]}, which)  # one controller: the credit is shared
        for place, agent in enumerate(self.agents):
            mine = {key: value[place] for key, value in own.items()}
            if "action_mask" in mine:
                mine["action_mask"] = mine["action_mask"][:, : self._sizes[place]]
            infos[agent], infos[f"_{agent}"] = {**shared, **with_masks(mine, which)}, which
        return infos

    def _final(self, over: np.ndarray) -> Infos:
        """What is told of episodes that are over, ``[num_envs]`` bool, before the next ones start."""
        final_obs = np.full(self.num_envs, None, object)
        final_obs[over] = np.fromiter(self._observe()[over], object, int(over.sum()))
        return with_masks({"final_obs": final_obs, "final_info": self._infos(over)}, over)

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


def with_masks(values: Mapping[str, Any], which: np.ndarray) -> Infos:
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


def pattern_of(backend: str, evaluator: type, task: Any, game: dict[str, Any], kwargs: dict[str, Any]) -> Any:
    """One environment, which checks arguments, and is what each of many is like.

    Args:
        backend: The one that there is.
        evaluator: The class of its evaluators.
        task: As for `layer_pruning_v0.parallel_env`; its default beside an evaluator counts as none.
        game: More for `layer_pruning_v0.parallel_env`.
        kwargs: Likewise, as they were given.

    Raises:
        InputError: If one is not what was expected.
    """
    kwargs = dict(kwargs)
    for name, only in (("backend", backend), ("render_mode", None)):
        if (came := kwargs.pop(name, only)) is not only and not (isinstance(came, str) and came == only):
            raise InputError(f"Environments of a {backend} in a vector have {name}={only!r} only: leave it out.")
    given = kwargs.get("evaluator")
    measuring = unfilled(given)
    if not isinstance(measuring, (evaluator, type(None))):
        raise InputError(
            f"The evaluator is of type {type(measuring).__name__}: expected a {evaluator.__name__}, or none."
        )
    left_out = given is not None and isinstance(task, str) and task == DEFAULT_TASKS[backend]
    measured = {} if left_out else {"task": task, "backend": backend}
    return JointActionEnv(**game, **measured, **kwargs)


def checked_number(num_envs: Any) -> int:
    """How many environments.

    Raises:
        InputError: If that is no number of them.
    """
    if not isinstance(num_envs, (int, np.integer)) or not 1 <= num_envs <= MOST_ENVS:
        raise InputError(f"num_envs is {shortened(num_envs)}: expected a number of environments, 1 or more.")
    return int(num_envs)


def checked_mode(mode: str | AutoresetMode) -> AutoresetMode:
    """The autoreset mode.

    Raises:
        InputError: If it is neither of the two that environments of this kind have.
    """
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
