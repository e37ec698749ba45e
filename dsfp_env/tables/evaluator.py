"""A table in the place of the live evaluator: the environment's ``backend="table"``.

It answers what the live `Evaluator` would, to the last bit on the machine that made the table, at no cost. Two
things are coarser, and said here:

- A ratio that is no level is answered by the nearest level, the lower of two; ``applied_ratio`` tells.
- A seed that was not measured is answered by one that was: ``seeds[seed % len(seeds)]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from dsfp_env.channels.costs import Costs
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.random_numbers import LARGEST_EVALUATION_SEED, check_seed
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.plans import by_layer, listed
from dsfp_env.tables.known_outcomes import KnownOutcomes, check_made, same_work, work_of
from dsfp_env.tables.recorded_task import RecordedTask
from dsfp_env.tables.table import Table, load_table
from dsfp_env.training.distillation import Fidelity


class TableEvaluator(KnownOutcomes):
    """Looks joint actions up, with the interface that environments and learners use of `Evaluator`.

    Args:
        table: From `load_table`.
        fidelity: The work of one evaluation: one that was tabulated; the short distillation unless given.
        layers: Bounds of layers, or ratios that layers always have; see `tasks.layer_control`. As every row prunes
            all that the table was made for, none of that can be left alone.
        tie: Layers with one agent; likewise.
        agents_per: ``"layer"`` or ``"set"``; likewise.

    Raises:
        InputError: If the fidelity was not tabulated, or the layers cannot be controlled so.
    """

    kind = "table"

    def __init__(
        self,
        table: Table,
        fidelity: Fidelity | None = None,
        layers: Any = None,
        tie: Any = None,
        agents_per: str = "layer",
    ) -> None:
        if not isinstance(table, Table):
            raise InputError(f"The table is {shortened(table)}: expected one, as dsfp_env.load_table gives.")
        self.table = table
        self.task = _controlled(table, layers, tie, agents_per)
        self.levels = table.levels
        self.layer_features = self.task.features()
        self.fidelity_name = _named(table, fidelity)
        self.fidelity = Fidelity(**table.meta["fidelities"][self.fidelity_name])
        self.criterion: str = table.meta["criterion"]
        self._known: dict[tuple[int, int], Outcome] = {}  # (row, seed) -> outcome

    @cached_property
    def original(self) -> Outcome:
        """The unpruned network as it is, without fine-tuning."""
        return self.task.by_agent(self.table.original())

    def row_of(self, ratios: Mapping[str, float]) -> int:
        """The place in the table of ratios in percent by agent of this task.

        Raises:
            InputError: If an agent is missing or unknown, or a ratio is not a number within its bounds.
        """
        of_layer = by_layer(ratios, self.task.control)
        return self.table.row_of({agent: of_layer[path] for agent, path in self.task.paths.items()})

    def evaluate(self, ratios: Mapping[str, float], seed: int = 0) -> Outcome:
        """Look a joint action up; see `Evaluator.evaluate`, and the top of this file."""
        check_seed(seed, "The seed of an evaluation", LARGEST_EVALUATION_SEED)
        key = self.row_of(ratios), self.measured_seed(seed)
        if key not in self._known:
            self._known[key] = self.task.by_agent(self.table.outcome(*key, fidelity=self.fidelity_name))
        return self._known[key]

    def evaluate_many(
        self,
        plans: Iterable[Mapping[str, float]],
        seed: int | Sequence[int] = 0,
        workers: int | None = None,
    ) -> list[Outcome]:
        """Look many up; see `Evaluator.evaluate_many`. There are no workers."""
        plans, seeds = listed(plans, seed)
        return [self.evaluate(plan, one) for plan, one in zip(plans, seeds, strict=True)]

    def costs(self, ratios: Mapping[str, float]) -> Costs:
        """The costs of the pruned network."""
        return self.table.costs(self.row_of(ratios))

    def build(self, ratios: Mapping[str, float], seed: int = 0) -> NoReturn:
        """Refuse, as a table has no networks; arguments as for `Evaluator.build`.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "A table knows what joint actions are worth, and has no networks: expected an evaluator that "
            "measures, as dsfp_env.parallel_env(task=...) has without backend='table'."
        )

    def measures_with(self, fidelity: Fidelity) -> bool:
        """Whether this is the work that was tabulated."""
        try:
            return _named(self.table, fidelity) == self.fidelity_name
        except (InputError, TypeError):
            return False

    def measured_seed(self, seed: int) -> int:
        """The seed that answers for this one."""
        seeds = self.table.seeds
        return int(seed) if seed in seeds else seeds[seed % len(seeds)]


def _controlled(table: Table, layers: Any, tie: Any, agents_per: str) -> RecordedTask:
    """The task of a table, with agents for its layers as they are wanted."""
    task = RecordedTask.of(table.task, table.meta["agents"], layers, tie, agents_per)
    for path, ratio in task.control.fixed.items():
        if ratio not in table.levels:
            what = "be left alone" if ratio == 0 else f"always lose {ratio:g} %"
            raise InputError(
                f"{path!r} is to {what}, and the table {table.task!r} has no row with that: expected one of its "
                f"levels, {', '.join(f'{level:g}' for level in table.levels)} %, or backend='live', or a table "
                "that was made so."
            )
    return task


def _named(table: Table, fidelity: Fidelity | None) -> str:
    """The name of a fidelity in the table."""
    if fidelity is None:
        return "distilled"
    if not isinstance(fidelity, Fidelity):
        raise InputError(f"The fidelity is {shortened(fidelity)}: expected a dsfp_env.Fidelity, or None.")
    tabulated = {name: Fidelity(**fields) for name, fields in table.meta["fidelities"].items()}
    for name, one in tabulated.items():
        if same_work(fidelity, one):
            return name
    what = work_of(fidelity)
    different = [
        {field: value for field, value in what.items() if value != getattr(one, field)}
        for one in tabulated.values()
    ]
    least = min(different, key=len)
    raise InputError(
        f"The table {table.task!r} was not made with {least}: expected one of its fidelities, which are "
        f"{', '.join(tabulated)} (`table.meta['fidelities']`), or None."
    )


def tabulated(
    task: Any,
    criterion: Any,
    fidelity: Fidelity | None,
    min_filters: int,
    round_to: int,
    latency: Any,
    layers: Any = None,
    tie: Any = None,
    agents_per: str = "layer",
) -> TableEvaluator:
    """The evaluator of ``backend="table"``, from the arguments of the environment.

    Raises:
        InputError: If there is no such table, or it was made otherwise.
    """
    if not isinstance(task, (str, Path, Table)):
        raise InputError(
            f"The task is a {type(task).__name__}: expected, with backend='table', the name of a table."
        )
    table = task if isinstance(task, Table) else load_table(task)
    asked = {"criterion": criterion, "min_filters": min_filters, "round_to": round_to, "latency": latency}
    check_made("table", table.task, table.meta["criterion"], asked)
    return TableEvaluator(table, fidelity, layers, tie, agents_per)
