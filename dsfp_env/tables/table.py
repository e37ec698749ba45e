"""Precomputed outcomes: every joint action of a real network, measured once, so that nothing is left to chance.

    table = dsfp_env.load_table("digits")
    table.query(levels)            # levels [N, agents] -> accuracies, MACs, ... [N], millions a second
    table.optimum("accuracy_x_saving")
    table.regret({"conv_0": 50.0, ...}, "accuracy_x_saving")

`tabulate` makes tables, `files` says what is in them, `evaluator` puts one behind the environment.

Accuracies are of one split, one fine-tuning seed and one fidelity. Agents may see the validation split only; the
test split is for judging what they found. With ``seed=None`` scores are means over the seeds of the table: what a
joint action is worth, as far as that is known. With a seed they are what a search with that seed sees.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from dsfp_env.channels.costs import Costs
from dsfp_env.common.choices import choose, did_you_mean
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.evaluation.budgets import Budget
from dsfp_env.evaluation.outcome import Outcome, outcome_of
from dsfp_env.evaluation.plans import check_plan
from dsfp_env.evaluation.rewards import RewardFunction, reward_function
from dsfp_env.pareto import pareto_front
from dsfp_env.tables import files
from dsfp_env.tables.files import COSTS, FIDELITIES, SPLITS
from dsfp_env.tables.landscape import Landscape
from dsfp_env.tasks.layer_control import Decider

SHIPPED = Path(__file__).parent / "shipped"  # the folders in it are known by name


class Outcomes(NamedTuple):
    """What was measured of N joint actions, in their order."""

    accuracy: np.ndarray  # [N] float64, in [0, 1]
    macs: np.ndarray  # [N] int64, multiply-adds per image
    relative_macs: np.ndarray  # [N] float64, of the original network's
    params: np.ndarray  # [N] int64
    filters: np.ndarray  # [N] int64


class Optimum(NamedTuple):
    """The best joint action, and what is known of it."""

    ratios: dict[str, float]  # percent by agent
    score: float
    accuracy: float  # on the split that was asked for
    test_accuracy: float
    relative_macs: float


class Front(NamedTuple):
    """Joint actions that no other beats in both accuracy and MACs, from small to large networks."""

    levels: np.ndarray  # [k, agents]
    accuracy: np.ndarray  # [k]
    relative_macs: np.ndarray  # [k]


def load_table(name: str | Path = "digits") -> Table:
    """A table by name, or from its folder; checked, and mapped rather than read.

    Args:
        name: ``"digits"`` or another that comes with the package, or the path of a folder.

    Raises:
        InputError: If there is no such table, or it is not finished, damaged, or of another schema.
    """
    if not isinstance(name, (str, Path)):
        raise InputError(f"The table is {shortened(name)}: expected the name of one, or the path of its folder.")
    shipped = sorted(folder.name for folder in SHIPPED.iterdir() if folder.is_dir())
    if str(name) in shipped:
        return Table(SHIPPED / str(name))
    if not os.path.isdir(name):  # never raises
        raise InputError(
            f"There is no table {shortened(str(name))}.{did_you_mean(str(name), shipped)} Expected one that comes "
            f"with the package ({', '.join(shipped)}), or the path of a folder that `python -m dsfp_env.tabulate` "
            "has made."
        )
    return Table(Path(name))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


def _check_split(split: str) -> None:
    choose("split of a table", split, dict.fromkeys(SPLITS))


class Table:
    """All joint actions of one task, measured; see `load_table`.

    Joint actions are levels, whole numbers from 0, which mean the ratios `levels` in percent; or rows: their
    places in the order of `files`.

    Args:
        folder: Where it lies, or has come from.
        content: What it holds, if that has been read and checked.
    """

    def __init__(self, folder: Path, content: tuple[dict[str, Any], files.Arrays] | None = None) -> None:
        self.folder = folder.resolve()
        self.meta, self.arrays = content or files.read(folder)
        self.task: str = self.meta["task"]
        self.agents: list[str] = list(self.meta["agents"])
        self.levels = np.array(self.meta["levels"], np.float64)  # percent
        self.seeds: list[int] = list(self.meta["seeds"])
        self._middles = ((self.levels[1:] + self.levels[:-1]) / 2).tolist()
        self._whole = Costs(**{name: self.meta["original"][name] for name in COSTS})
        self._deciders = {agent: Decider((about["path"],)) for agent, about in self.meta["agents"].items()}
        self._filters = {agent: about["filters"] for agent, about in self.meta["agents"].items()}
        costs = self.arrays.costs
        self._costs = {name: np.ascontiguousarray(costs[:, place]) for place, name in enumerate(COSTS)}
        self.relative_macs = self._costs["macs"] / self._whole.macs
        self._accuracies: dict[tuple[int | None, str, str], np.ndarray] = {}
        self._landscapes: dict[tuple[Any, ...], Landscape] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Table, (self.folder,)

    def __len__(self) -> int:
        """How many joint actions there are."""
        return len(self.relative_macs)

    def __repr__(self) -> str:
        what = f"{len(self)} joint actions of {len(self.agents)} agents, seeds {self.seeds}"
        return f"Table({self.task!r}: {what})"

    def query(
        self,
        levels: ArrayLike,
        seed: int | None = None,
        split: str = "validation",
        fidelity: str = "distilled",
    ) -> Outcomes:
        """Look many joint actions up at once.

        Args:
            levels: ``[N, agents]`` integers, from 0 to the number of levels less 1.
            seed: Of the fine-tuning, one of `seeds`; None for the mean over all.
            split: ``"validation"`` or ``"test"``.
            fidelity: ``"distilled"``, after the short knowledge distillation, or ``"recalibrated"``, without.

        Raises:
            InputError: If the levels are not such, or there is no such seed, split or fidelity.
        """
        rows = self.rows(levels)
        macs, params, filters = (self._costs[name][rows] for name in COSTS)
        accuracies = self.accuracies(seed, split, fidelity)[rows]
        return Outcomes(accuracies, macs, self.relative_macs[rows], params, filters)

    def accuracies(
        self, seed: int | None = None, split: str = "validation", fidelity: str = "distilled"
    ) -> np.ndarray:
        """Of every joint action, ``[rows]``; arguments as for `query`."""
        _check_split(split)
        choose("fidelity of a table", fidelity, dict.fromkeys(FIDELITIES))
        if seed is not None:
            self._place_of(seed)
        key = seed, split, fidelity
        if key not in self._accuracies:
            counts = self.arrays.correct[:, FIDELITIES.index(fidelity), :, SPLITS.index(split)]  # [rows, seeds]
            size = self.meta["splits"][split]
            known = counts.mean(1) if seed is None else counts[:, self._place_of(seed)].astype(np.float64)
            self._accuracies[key] = _read_only(known / size)
        return self._accuracies[key]

    def landscape(
        self,
        reward: str | RewardFunction = "accuracy_x_saving",
        macs_budget: float | Budget | None = None,
        seed: int | None = None,
        split: str = "validation",
        fidelity: str = "distilled",
    ) -> Landscape:
        """What every joint action is worth; the same object for the same arguments.

        Args:
            reward: As for the environment; what needs measured times is not here.
            macs_budget: As for the environment; or a `budgets.Budget` of parameters.
            seed: One of `seeds`; None for the mean of the scores over all.
            split: As for `query`.
            fidelity: As for `query`.

        Raises:
            InputError: If an argument is none of these, or the reward gives a number that is not finite.
        """
        key = reward, macs_budget, seed, split, fidelity
        if key not in self._landscapes:
            self._landscapes[key] = Landscape(
                _read_only(self._scores(reward, macs_budget, seed, split, fidelity)),
                self.accuracies(seed, split, fidelity),
                self.accuracies(seed, "test", fidelity),
                self.relative_macs,
            )
        return self._landscapes[key]

    def scores(self, *which: Any, **named: Any) -> np.ndarray:
        """What every joint action is worth, ``[rows]``; arguments as for `landscape`."""
        return self.landscape(*which, **named).scores

    def optimum(self, *which: Any, **named: Any) -> Optimum:
        """The joint action with the highest score; arguments as for `landscape`."""
        landscape = self.landscape(*which, **named)
        row = landscape.best
        known = landscape.scores, landscape.accuracy, landscape.test_accuracy, landscape.relative_macs
        return Optimum(self.ratios_of(row), *(float(one[row]) for one in known))

    def regret(
        self, joint_actions: Mapping[str, float] | ArrayLike, *which: Any, normalised: bool = False, **named: Any
    ) -> Any:
        """How much less joint actions are worth than the best one.

        Args:
            joint_actions: Ratios in percent by agent, or levels ``[N, agents]``.
            *which: Arguments as for `landscape`.
            normalised: As for `Landscape.regrets`.
            **named: Likewise.

        Returns:
            A number for ratios, ``[N]`` for levels; 0 for the best.
        """
        regrets = self.landscape(*which, **named).regrets(normalised)
        if isinstance(joint_actions, Mapping):
            return float(regrets[self.row_of(joint_actions)])
        return regrets[self.rows(joint_actions)]

    def _scores(
        self,
        reward: str | RewardFunction,
        macs_budget: float | Budget | None,
        seed: int | None,
        split: str,
        fidelity: str,
    ) -> np.ndarray:
        if seed is None:
            each = [self.landscape(reward, macs_budget, one, split, fidelity).scores for one in self.seeds]
            return np.mean(each, axis=0)
        worth, original = reward_function(reward, macs_budget), self.original(split)
        outcomes = (self.outcome(row, seed, split, fidelity) for row in range(len(self)))
        return np.array([worth(outcome, original) for outcome in outcomes], np.float64)

    def pareto(self, seed: int | None = None, split: str = "validation", fidelity: str = "distilled") -> Front:
        """The joint actions that no other beats in both accuracy and MACs; arguments as for `query`."""
        accuracies = self.accuracies(seed, split, fidelity)
        front = pareto_front(np.stack([accuracies, -self.relative_macs], axis=1))
        front = front[np.argsort(self.relative_macs[front], kind="stable")]
        return Front(self.levels_of(front), accuracies[front], self.relative_macs[front])

    def live_seconds(self, levels: ArrayLike, fidelity: str = "distilled") -> float:
        """The time that live evaluations of joint actions ``[N, agents]`` would have taken, on one core.

        Equal ones count once, as the live evaluator answers equal questions once. Times were measured when the
        table was made, on the machines that its `meta` names.
        """
        choose("fidelity of a table", fidelity, dict.fromkeys(FIDELITIES))
        rows = np.unique(self.rows(levels))
        return float(self.arrays.seconds[rows, FIDELITIES.index(fidelity)].sum(dtype=np.float64))

    @property
    def filters_kept(self) -> np.ndarray:
        """Of every joint action, by agent, ``[rows, agents]``."""
        return self.arrays.filters_kept

    def rows(self, levels: ArrayLike) -> np.ndarray:
        """The places of joint actions ``[N, agents]`` in the table, ``[N]``.

        Raises:
            InputError: If the levels are no integers of this shape, or out of range.
        """
        try:
            levels = np.asarray(levels)
        except Exception as error:  # whatever their class raises
            raise_if_of_the_machine(error, "reading levels", "the levels")
            raise InputError(f"The levels are no array ({error}): expected integers [N, agents].") from error
        count, agents = len(self.levels), len(self.agents)
        if levels.ndim != 2 or levels.shape[1] != agents or levels.dtype.kind not in "iu":
            raise InputError(
                f"Levels of shape {levels.shape} and type {levels.dtype} came: expected integers [N, {agents}], "
                f"one for each of the agents {', '.join(self.agents)}."
            )
        if levels.size and not 0 <= levels.min() <= levels.max() < count:
            place, agent = np.argwhere((levels < 0) | (levels >= count))[0]
            raise InputError(
                f"The level of {self.agents[agent]} in joint action {place} is {levels[place, agent]}: expected 0 "
                f"({self.levels[0]:.0f} %) to {count - 1} ({self.levels[-1]:.0f} %)."
            )
        rows = levels[:, 0].astype(np.intp)
        for agent in range(1, agents):
            rows *= count
            rows += levels[:, agent].astype(np.intp, copy=False)
        return rows

    def row_of(self, ratios: Mapping[str, float]) -> int:
        """The place of the joint action that is nearest to these ratios, in percent by agent.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number in [10, 90].
        """
        row = 0
        for ratio in check_plan(ratios, self._deciders):
            row = row * len(self.levels) + bisect_left(self._middles, ratio)
        return row

    def levels_of(self, rows: ArrayLike) -> np.ndarray:
        """The levels of the joint actions in these places, ``[N]`` -> ``[N, agents]``."""
        return files.levels_of(rows, len(self.agents), len(self.levels))

    def ratios_of(self, row: int) -> dict[str, float]:
        """The ratios of the joint action in this place, in percent by agent."""
        return dict(zip(self.agents, self.levels[self.levels_of(row)].tolist(), strict=True))

    def costs(self, row: int) -> Costs:
        """The costs of the joint action in this place."""
        return Costs(**{name: int(self._costs[name][row]) for name in COSTS})

    def outcome(self, row: int, seed: int, split: str = "validation", fidelity: str = "distilled") -> Outcome:
        """What was measured of the joint action in this place, as a live evaluator tells it."""
        kept = dict(zip(self.agents, self.filters_kept[row].tolist(), strict=True))
        accuracy = float(self.accuracies(seed, split, fidelity)[row])
        return outcome_of(accuracy, self.costs(row), self._whole, kept, self._filters)

    def original(self, split: str = "validation") -> Outcome:
        """What was measured of the original network.

        Raises:
            InputError: If there is no such split.
        """
        _check_split(split)
        accuracy = self.meta["original"]["correct"][split] / self.meta["splits"][split]
        return outcome_of(accuracy, self._whole, self._whole, self._filters, self._filters)

    def _place_of(self, seed: int) -> int:
        if not isinstance(seed, Integral) or seed not in self.seeds:
            raise InputError(
                f"The table has no seed {shortened(seed)}: expected one of {self.seeds}, or None for the mean."
            )
        return self.seeds.index(seed)
