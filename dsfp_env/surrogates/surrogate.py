"""A surrogate: what joint actions of a network are worth, predicted by a model of some that were measured.

Costs are exact, they follow from the structure. Accuracies are predictions; `Surrogate.trust` says how good they
are, and `Surrogate.distance` how far a joint action is from what was measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dsfp_env.channels.costs import Costs
from dsfp_env.common.choices import choose, did_you_mean
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.random_numbers import LARGEST_EVALUATION_SEED, check_seed
from dsfp_env.evaluation.budgets import Budget
from dsfp_env.evaluation.outcome import Outcome, outcome_of
from dsfp_env.evaluation.plans import HIGHEST, LEVELS, LOWEST, check_agents
from dsfp_env.evaluation.rewards import RewardFunction, many_scores
from dsfp_env.pareto import pareto_front
from dsfp_env.surrogates import files
from dsfp_env.surrogates.drawn import normal_numbers
from dsfp_env.surrogates.ensemble import BLOCK
from dsfp_env.surrogates.long_search import long_search
from dsfp_env.tables.files import COSTS, SPLITS
from dsfp_env.tables.table import Optimum, Outcomes

SHIPPED = Path(__file__).parent / "shipped"  # the folders in it are known by name
_BUDGETS = np.linspace(0.05, 0.8, 16)  # of MACs, at which a front is searched for
_AT_ONCE = 64 * BLOCK  # joint actions; what is computed of them in between fits into the cache
_DRAWN = 20_000  # joint actions, for what one drawn at random is worth
_UNSURE = 4e-6  # of an accuracy that was computed in float32, which is wrong by less


class Found(NamedTuple):
    """The best joint actions that long searches have found, from small to large networks."""

    ratios: np.ndarray  # [k, agents], percent
    accuracy: np.ndarray  # [k], predicted
    relative_macs: np.ndarray  # [k]


def load_surrogate(name: str | Path = "resnet20") -> Surrogate:
    """A surrogate by name, or from its folder; checked.

    Args:
        name: One that comes with the package, such as ``"resnet20"``, or the path of a folder.

    Raises:
        InputError: If there is no such surrogate, or it is damaged, or of another schema.
    """
    if not isinstance(name, (str, Path)):
        raise InputError(
            f"The surrogate is {shortened(name)}: expected the name of one, or the path of its folder."
        )
    shipped = sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir()) if SHIPPED.is_dir() else []
    if str(name) in shipped:
        return Surrogate(SHIPPED / str(name))
    if not os.path.isdir(name):  # never raises
        raise InputError(
            f"There is no surrogate {shortened(str(name))}.{did_you_mean(str(name), shipped)} Expected one that "
            f"comes with the package ({', '.join(shipped)}), or the path of a folder that `python -m "
            "dsfp_env.fit_surrogate` has made."
        )
    return Surrogate(Path(name))


class Surrogate:
    """Predicts what joint actions of one task are worth; see `load_surrogate`.

    Joint actions are ratios in percent, in [10, 90]; any, not levels alone.

    Args:
        folder: Where it lies.

    Attributes:
        agents: Their names, in the order of columns.
        levels: The ratios in percent that actions="levels" means.
        whole: What the original network costs.
        trust: How good predictions are, as cross-validation found; see docs/surrogates.md.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.meta, self.cost_tables, self._ensemble, self._data = files.read(folder)
        self.task: str = self.meta["task"]
        self.agents: list[str] = list(self.meta["agents"])
        self.levels = LEVELS.copy()
        self.trust: dict[str, Any] = self.meta["trust"]
        self.whole = Costs(**{name: self.meta["original"][name] for name in COSTS})
        self._optima: dict[tuple[Any, ...], np.ndarray] = {}
        self._ends: dict[tuple[Any, ...], tuple[float, float]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Surrogate, (self.folder,)

    def __repr__(self) -> str:
        what = f"{len(self.agents)} agents, {self.meta['rows']} measurements"
        return f"Surrogate({self.task!r}: {what})"

    def query(self, ratios: ArrayLike, seed: int | None = None, split: str = "validation") -> Outcomes:
        """Predict many joint actions at once.

        Args:
            ratios: ``[N, agents]``, percent, in [10, 90].
            seed: Of the fine-tuning, whose noise is drawn; equal questions have equal answers. None for the mean
                over all seeds.
            split: ``"validation"`` or ``"test"``.

        Returns:
            Arrays ``[N]``: accuracy in [0, 1], and the exact costs.

        Raises:
            InputError: If the ratios are not such, or there is no such seed or split.
        """
        checked = self._checked(ratios)
        parts = (checked[first : first + _AT_ONCE] for first in range(0, len(checked) or 1, _AT_ONCE))
        answers = [self.query_lost(self.cost_tables.classes_lost(part / 100), seed, split) for part in parts]
        return Outcomes(*map(np.concatenate, zip(*answers, strict=True))) if len(answers) > 1 else answers[0]

    def query_lost(
        self, lost: np.ndarray, seed: int | np.ndarray | None = None, split: str = "validation"
    ) -> Outcomes:
        """As `query`, of what `classes_lost` gives; seeds may be one for each, ``[N]``."""
        place = SPLITS.index(choose("split of a surrogate", split, {name: name for name in SPLITS}))
        costs = self.cost_tables.costs(lost, kept=False)
        accuracy = self.accuracy_lost(lost, seed, place)
        return Outcomes(accuracy, costs.macs, costs.macs / self.whole.macs, costs.params, costs.filters)

    def classes_lost(self, ratios: ArrayLike) -> np.ndarray:
        """How many classes of each coupled set go, ``[N, agents]`` in percent -> ``[N, sets]``.

        What a joint action is worth depends on this alone.

        Raises:
            InputError: If the ratios are no numbers in [10, 90] of this shape.
        """
        return self.cost_tables.classes_lost(self._checked(ratios) / 100)

    def accuracy_lost(self, lost: np.ndarray, seed: int | np.ndarray | None, split: int = 0) -> np.ndarray:
        """``[N]`` float64, of what `classes_lost` gives; with a seed, of so many images as were looked at.

        With a seed, equal questions have equal answers, to the last bit, however many are asked at once: which
        whole number of images is nearest is decided in float64 where float32 might tell otherwise.
        """
        kept = self._kept(lost)
        if seed is None:
            accuracy: np.ndarray = self._ensemble.predict(kept).accuracy[:, split].astype(np.float64)
            return accuracy
        if not isinstance(seed, np.ndarray):
            check_seed(seed, "The seed of an evaluation", LARGEST_EVALUATION_SEED)
            seed = np.full(len(lost), seed, np.int64)
        numbers = self._numbers(lost, seed, split)
        images = self.meta["splits"][SPLITS[split]]
        right = self._right(kept, numbers, split, images)
        rounded = np.rint(right)
        unsure = (np.abs(right - rounded) > 0.5 - _UNSURE * images).nonzero()[0]
        if len(unsure):
            rounded[unsure] = np.rint(self._right(kept[unsure], numbers[unsure], split, images, exactly=True))
        return rounded / images

    def _right(
        self, kept: np.ndarray, numbers: np.ndarray, split: int, images: int, exactly: bool = False
    ) -> np.ndarray:
        """Of so many images, those that are classified rightly, not rounded, ``[N]`` float64.

        Args:
            kept: The share that is kept of each coupled set, ``[N, sets]``.
            numbers: Standard normal, ``[N]``: what the seed does.
            split: 0 or 1.
            images: Of this split.
            exactly: As for `Ensemble.predict`.
        """
        expected = self._ensemble.predict(kept, exactly).accuracy[:, split]
        noise = self._ensemble.deviations(expected, split) * numbers
        right: np.ndarray = np.minimum(np.maximum(expected + noise, 0), 1) * images
        return right

    def _numbers(self, lost: np.ndarray, seeds: np.ndarray, split: int) -> np.ndarray:
        """What the seed of the fine-tuning does, ``[N]`` standard normal; on both splits it is partly the same."""
        common = normal_numbers(lost, seeds)
        if split == 0:
            return common
        both = self.trust["noise"]["correlation"]
        own = normal_numbers(lost, ~seeds.astype(np.int64))
        numbers: np.ndarray = both * common + np.sqrt(1 - both**2) * own
        return numbers

    def _kept(self, lost: np.ndarray) -> np.ndarray:
        """The share that is kept of each coupled set."""
        return 1 - lost / self.cost_tables.sizes

    def distance(self, ratios: ArrayLike) -> np.ndarray:
        """How far joint actions are from the nearest that was measured, ``[N]``.

        It is the mean over coupled sets of the difference of what is kept, in percentage points. How far the
        measured ones are from their nearest other is in `trust`.

        Raises:
            InputError: As `query`.
        """
        return self.distance_lost(self.classes_lost(ratios))

    def distance_lost(self, lost: np.ndarray) -> np.ndarray:
        """As `distance`, of what `classes_lost` gives."""
        measured, units = self._measured
        asked = (lost * (units / self.cost_tables.sizes)).astype(measured.dtype)
        nearest, apart = np.empty(len(lost)), np.empty_like(measured)
        for row, one in enumerate(asked):
            np.subtract(measured, one[:, None], out=apart)
            np.abs(apart, out=apart)
            nearest[row] = np.minimum.reduce(np.add.reduce(apart, 0, dtype=apart.dtype))
        return 100 * nearest / (units * len(measured))

    @cached_property
    def _measured(self) -> tuple[np.ndarray, int]:
        """What was lost in the measurements, each once, ``[sets, measurements]``, and what a whole set counts as.

        There are thousands to go through, so they are whole numbers, of as few bytes as their sums need, if sizes
        allow that.
        """
        sizes = self.cost_tables.sizes
        units = math.lcm(*sizes.tolist())
        whole = units * len(sizes) < 2**31
        kind = np.min_scalar_type(-units * len(sizes) - 1) if whole else np.float32
        units = units if whole else 1
        lost = np.unique(self._data["lost"], axis=0) * (units / sizes)
        return np.ascontiguousarray(lost.T, kind), units

    def disagreement(self, ratios: ArrayLike) -> np.ndarray:
        """How far the networks of the ensemble are apart, ``[N]``: a standard deviation of accuracy.

        Raises:
            InputError: As `query`.
        """
        spread = self._ensemble.predict(self._kept(self.classes_lost(ratios))).spread
        return spread.astype(np.float64)

    def scores(
        self,
        ratios: ArrayLike,
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | Budget | None = None,
        seed: int | None = None,
        split: str = "validation",
    ) -> np.ndarray:
        """What joint actions are worth, ``[N]``.

        Args:
            ratios: As for `query`.
            reward: As for the environment; what needs measured times is not here.
            macs_budget: As for the environment; or a `budgets.Budget` of parameters.
            seed: As for `query`.
            split: As for `query`.

        Raises:
            InputError: If an argument is none of these.
        """
        return self._scores_lost(self.classes_lost(ratios), reward, macs_budget, seed, split)

    def _scores_lost(
        self,
        lost: np.ndarray,
        reward: str | RewardFunction,
        macs_budget: float | Budget | None,
        seed: int | None = None,
        split: str = "validation",
    ) -> np.ndarray:
        outcomes = self.query_lost(lost, seed, split)
        return many_scores(reward, macs_budget, self._as_outcome(outcomes), self.original(split))

    def _as_outcome(self, many: Outcomes) -> Outcome:
        """Many outcomes as one whose numbers are arrays."""
        arrays: Any = many
        return Outcome(
            accuracy=arrays.accuracy,
            macs=arrays.macs,
            relative_macs=arrays.relative_macs,
            params=arrays.params,
            relative_params=arrays.params / self.whole.params,
            filters=arrays.filters,
            filters_kept={},
            applied_ratios={},
        )

    def optimum(
        self, reward: str | RewardFunction = "accuracy_x_saving", macs_budget: float | Budget | None = None
    ) -> Optimum:
        """The best joint action of levels that a long search has found, by its mean over seeds.

        It is the best known: nobody has looked at all.

        Raises:
            InputError: As `scores`.
        """
        ratios = self._best_known(reward, macs_budget)[None]
        score = self.scores(ratios, reward, macs_budget)[0]
        found, test = self.query(ratios), self.query(ratios, split="test")
        plan = dict(zip(self.agents, ratios[0].tolist(), strict=True))
        return Optimum(
            plan, float(score), float(found.accuracy[0]), float(test.accuracy[0]), float(found.relative_macs[0])
        )

    def regret(
        self,
        joint_actions: Any,
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | Budget | None = None,
        normalised: bool = False,
    ) -> Any:
        """How much less joint actions are worth than the best known one, by their means over seeds.

        It may be negative, for one that is better than all that the long search has found.

        Args:
            joint_actions: Ratios in percent by agent, or ``[N, agents]``.
            reward: As for `scores`.
            macs_budget: As for `scores`.
            normalised: Whether to divide by the regret that a joint action of levels drawn at random has on
                average.

        Returns:
            A number for ratios by agent, ``[N]`` for an array.

        Raises:
            InputError: As `scores`.
        """
        alone, ratios = False, joint_actions
        if isinstance(joint_actions, Mapping):
            check_agents(joint_actions, self.agents)
            alone, ratios = True, [[joint_actions[agent] for agent in self.agents]]
        best, chance = self.best_and_chance(reward, macs_budget)
        regrets = best - self.scores(ratios, reward, macs_budget)
        if normalised:
            regrets = regrets / ((best - chance) or 1.0)
        return float(regrets[0]) if alone else regrets

    def best_and_chance(
        self,
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | Budget | None = None,
        split: str = "validation",
    ) -> tuple[float, float]:
        """The scores of the best joint action known, and on average of one of levels drawn at random.

        Means over seeds; arguments as for `scores`.

        Raises:
            InputError: As `scores`.
        """
        key = reward, macs_budget, split
        if key not in self._ends:
            drawn = np.random.default_rng(0).choice(self.levels, (_DRAWN, len(self.agents)))
            both = self._best_known(*key)[None], drawn
            best, chance = (self.scores(some, reward, macs_budget, split=split).mean() for some in both)
            self._ends[key] = float(best), float(chance)
        return self._ends[key]

    def pareto(self, split: str = "validation") -> Found:
        """The best joint actions of levels known for sixteen budgets of MACs, of which none beats another.

        Raises:
            InputError: If there is no such split.
        """
        cheapest = self.query(np.full((1, len(self.agents)), HIGHEST)).relative_macs[0]
        budgets = [float(budget) for budget in _BUDGETS if budget > cheapest]
        plans = np.stack([self._best_known("budget", budget) for budget in budgets])
        outcomes = self.query(plans, split=split)
        front = pareto_front(np.stack([outcomes.accuracy, -outcomes.relative_macs], axis=1))
        front = front[np.argsort(outcomes.relative_macs[front], kind="stable")]
        return Found(plans[front], outcomes.accuracy[front], outcomes.relative_macs[front])

    def original(self, split: str = "validation") -> Outcome:
        """What was measured of the original network.

        Raises:
            InputError: If there is no such split.
        """
        choose("split of a surrogate", split, dict.fromkeys(SPLITS))
        accuracy = self.meta["original"]["correct"][split] / self.meta["splits"][split]
        filters = {agent: about["filters"] for agent, about in self.meta["agents"].items()}
        return outcome_of(accuracy, self.whole, self.whole, filters, filters)

    def _best_known(
        self, reward: str | RewardFunction, macs_budget: float | Budget | None, split: str = "validation"
    ) -> np.ndarray:
        """The ratios of the best joint action that a long search finds, ``[agents]``."""
        key = reward, macs_budget, split
        if key not in self._optima:
            sets = self.cost_tables.set_of_layer
            together = [np.flatnonzero(sets == one).tolist() for one in range(sets.max() + 1)]
            groups = [[agent] for agent in range(len(self.agents))] + [one for one in together if len(one) > 1]

            def scores(levels: np.ndarray) -> np.ndarray:
                lost = self.classes_lost(self.levels[levels])
                return self._scores_lost(lost, reward, macs_budget, split=split)

            found = long_search(scores, len(self.levels), groups, len(self.agents))
            self._optima[key] = self.levels[found]
        return self._optima[key]

    def _checked(self, ratios: ArrayLike) -> np.ndarray:
        """Ratios as an array ``[N, agents]`` of float64."""
        try:
            array = np.asarray(ratios, np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"The ratios are no array of numbers ({error}): expected percentages [N, agents]."
            ) from error
        if array.ndim != 2 or array.shape[1] != len(self.agents):
            raise InputError(
                f"Ratios of shape {array.shape} came: expected percentages [N, {len(self.agents)}], one for each "
                f"of the agents {', '.join(self.agents)}."
            )
        if array.size and not (array.min() >= LOWEST and array.max() <= HIGHEST):
            row, agent = np.argwhere(~((array >= LOWEST) & (array <= HIGHEST)))[0]
            raise InputError(
                f"The ratio of {self.agents[agent]} in joint action {row} is {array[row, agent]}: expected a "
                f"percentage in [{LOWEST:g}, {HIGHEST:g}]."
            )
        return array
