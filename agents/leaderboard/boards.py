"""What learners are judged on: a table, which knows all joint actions, or a surrogate, which predicts them.

On a table the optimum is known, and a run is judged by what its own seed sees. On a surrogate the best known of a
long search stands for the optimum, and a joint action is judged by its mean over seeds: what the noise of the
run's own seed made of it is what the learner saw, and by that it chose its best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np
from msgspec import Meta

import agents
import dsfp_env
from agents.leaderboard.forms import Form
from dsfp_env.common.schemas import Natural, Positive, Strict
from dsfp_env.evaluation.budgets import Budget
from dsfp_env.evaluation.interface import AnyEvaluator
from dsfp_env.tables.travelling import TravellingTable

Run = dict[str, Any]  # as a board keeps it


class Regrets(NamedTuple):
    """How far a run was from the optimum, normalised: 0 is the optimum, 1 is chance."""

    best: np.ndarray  # [joint actions], of the best one that was seen so far
    greedy: float  # of the one that is played in the end
    test: float  # of the best one, on the test split


class TableLine(Strict):
    """A run on a table in its file; rows are places of joint actions in the table."""

    seed: Natural
    rows: Annotated[list[Natural], Meta(min_length=1)]
    evaluations: Annotated[list[Positive], Meta(min_length=1)]  # spent, when each was known
    greedy: Natural


class SurrogateLine(Strict):
    """A run on a surrogate in its file; scores are of the joint actions in the order in which they were tried."""

    seed: Natural
    seen: Annotated[list[float], Meta(min_length=1)]  # as the learner saw them
    worth: Annotated[list[float], Meta(min_length=1)]  # mean over seeds
    evaluations: Annotated[list[Positive], Meta(min_length=1)]  # spent, when each was known
    greedy: float  # of the one that is played in the end, mean over seeds
    test: float  # of the best that was seen, on the test split, mean over seeds
    best: dict[str, float]  # that one: ratios in percent by agent


class Board(Protocol):
    """What learners are judged on."""

    @property
    def kind(self) -> str:
        """Of board, in a word."""

    @property
    def line(self) -> type[Strict]:
        """What is kept of a run."""

    @property
    def task(self) -> str:
        """Its name."""

    @property
    def checksum(self) -> str:
        """Of all that it knows."""

    def evaluator(self) -> AnyEvaluator:
        """For an environment."""

    def kept(self, form: Form, seed: int, history: Sequence[agents.Evaluation], greedy: dict[str, float]) -> Run:
        """What is kept of a run: what it tried, and the ratios in percent that it plays in the end."""

    def fits(self, run: Run) -> bool:
        """Whether a run that was read may be one on this board."""

    def check(self, form: Form) -> None:
        """Refuse a reward that cannot be had here."""

    def regrets(self, form: Form, run: Run) -> Regrets:
        """How far a run was from the optimum."""

    def optima(self, form: Form) -> list[dict[str, Any]]:
        """The best joint actions; one of each seed, if it depends on that."""

    def live_seconds(self, runs: Iterable[Sequence[Run]]) -> float | None:
        """What all evaluations would have taken live, one after another on one core, if that is known."""


class TableBoard:
    """A table.

    Args:
        table: From `load_table`.
    """

    kind, line = "table", TableLine

    def __init__(self, table: dsfp_env.Table) -> None:
        self.table, self.task, self.checksum = table, table.task, table.meta["checksum"]
        self._measured_seed = dsfp_env.TableEvaluator(table).measured_seed

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (TravellingTable(self.table),)

    def evaluator(self) -> dsfp_env.TableEvaluator:
        """See `Board.evaluator`."""
        return dsfp_env.TableEvaluator(self.table)

    def kept(self, form: Form, seed: int, history: Sequence[agents.Evaluation], greedy: dict[str, float]) -> Run:
        """See `Board.kept`."""
        row_of = self.table.row_of
        return {
            "seed": seed,
            "rows": [row_of(evaluation.ratios) for evaluation in history],
            "evaluations": [evaluation.number for evaluation in history],
            "greedy": row_of(greedy),
        }

    def fits(self, run: Run) -> bool:
        """See `Board.fits`."""
        return len(run["rows"]) == len(run["evaluations"]) and max(*run["rows"], run["greedy"]) < len(self.table)

    def check(self, form: Form) -> None:
        """See `Board.check`."""
        self.table.scores(form.reward, form.macs_budget)

    def regrets(self, form: Form, run: Run) -> Regrets:
        """See `Board.regrets`."""
        regrets = self.of_all(form, self._measured_seed(run["seed"]))
        tried = np.array(run["rows"])
        best = np.minimum.accumulate(regrets[tried])
        in_test = self.of_all(form, None, "test")
        return Regrets(best, float(regrets[run["greedy"]]), float(in_test[tried[regrets[tried].argmin()]]))

    def of_all(self, form: Form, seed: int | None, split: str = "validation") -> np.ndarray:
        """The normalised regret of every joint action, ``[rows]``; all are 0 if all are worth the same."""
        return self.table.landscape(form.reward, form.macs_budget, seed, split).regrets(normalised=True)

    def optima(self, form: Form) -> list[dict[str, Any]]:
        """See `Board.optima`."""
        found = [self.table.optimum(form.reward, form.macs_budget, seed)._asdict() for seed in self.table.seeds]
        return [{"seed": seed, **optimum} for seed, optimum in zip(self.table.seeds, found, strict=True)]

    def live_seconds(self, runs: Iterable[Sequence[Run]]) -> float:
        """See `Board.live_seconds`."""
        table = self.table
        seconds = sum(table.live_seconds(table.levels_of(run["rows"])) for found in runs for run in found)
        return round(seconds, 1)


def _arrived(travelling: TravellingTable) -> TableBoard:
    return TableBoard(travelling.table)


class SurrogateBoard:
    """A surrogate.

    Args:
        surrogate: From `load_surrogate`.
    """

    kind, line = "surrogate", SurrogateLine

    def __init__(self, surrogate: dsfp_env.Surrogate) -> None:
        self.surrogate = surrogate
        self.task, self.checksum = surrogate.task, surrogate.meta["checksum"]

    def evaluator(self) -> dsfp_env.SurrogateEvaluator:
        """See `Board.evaluator`."""
        return dsfp_env.SurrogateEvaluator(self.surrogate)

    def kept(self, form: Form, seed: int, history: Sequence[agents.Evaluation], greedy: dict[str, float]) -> Run:
        """See `Board.kept`."""
        best = agents.best(list(history)).ratios
        worth = self._scores(form, [evaluation.ratios for evaluation in history])
        return {
            "seed": seed,
            "seen": [float(evaluation.score) for evaluation in history],
            "worth": worth.tolist(),
            "evaluations": [evaluation.number for evaluation in history],
            "greedy": float(self._scores(form, [greedy])[0]),
            "test": float(self._scores(form, [best], "test")[0]),
            "best": {agent: float(ratio) for agent, ratio in best.items()},
        }

    def fits(self, run: Run) -> bool:
        """See `Board.fits`."""
        lengths = {len(run[name]) for name in ("seen", "worth", "evaluations")}
        return len(lengths) == 1 and list(run["best"]) == self.surrogate.agents

    def check(self, form: Form) -> None:
        """See `Board.check`."""
        self.surrogate.scores(np.full((1, len(self.surrogate.agents)), 50.0), form.reward, form.macs_budget)

    def regrets(self, form: Form, run: Run) -> Regrets:
        """See `Board.regrets`."""
        seen, worth = np.array(run["seen"]), np.array(run["worth"])
        incumbent = np.maximum.accumulate(np.where(seen == np.maximum.accumulate(seen), np.arange(len(seen)), 0))
        return Regrets(
            self._normalised(form, worth[incumbent]),
            float(self._normalised(form, np.array(run["greedy"]))),
            float(self._normalised(form, np.array(run["test"]), "test")),
        )

    def optima(self, form: Form) -> list[dict[str, Any]]:
        """See `Board.optima`."""
        return [self.surrogate.optimum(form.reward, form.macs_budget)._asdict()]

    def live_seconds(self, runs: Iterable[Sequence[Run]]) -> None:
        """See `Board.live_seconds`."""

    def _scores(self, form: Form, plans: Sequence[Any], split: str = "validation") -> np.ndarray:
        """What plans are worth on average over seeds, ``[N]``."""
        ratios = [[plan[agent] for agent in self.surrogate.agents] for plan in plans]
        return self.surrogate.scores(ratios, form.reward, form.macs_budget, split=split)

    def _normalised(self, form: Form, scores: np.ndarray, split: str = "validation") -> np.ndarray:
        best, chance = self.surrogate.best_and_chance(form.reward, form.macs_budget, split)
        regrets: np.ndarray = (best - scores) / ((best - chance) or 1.0)
        return regrets


def budget_of(form: Form) -> float | None:
    """The share of MACs that a reward allows, if it does."""
    return None if isinstance(form.macs_budget, Budget) else form.macs_budget
