"""Where joint actions are in a table, be its agents those it was made with or others; see `layer_control`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dsfp_env.environment.actions import choices_of
from dsfp_env.tables.evaluator import TableEvaluator


class TableRows(NamedTuple):
    """Rows by levels of the table: ``base + levels [..., agents] @ strides``."""

    base: int  # the row at which all agents choose the lowest level of the table
    strides: np.ndarray  # [agents], rows between neighbouring levels
    lowest: np.ndarray  # [agents], the first level of the table that an agent may choose
    sizes: np.ndarray  # [agents], levels that it may choose, from that upwards
    members: list[np.ndarray]  # of each agent, the places in the table of the agents it decides for

    def of(self, levels: np.ndarray) -> np.ndarray:
        """The rows ``[...]`` of levels of the table, ``[..., agents]``."""
        rows: np.ndarray = self.base + levels @ self.strides
        return rows

    def of_own(self, levels: np.ndarray) -> np.ndarray:
        """The same of levels that are counted from each agent's own lowest."""
        return self.of(levels + self.lowest)


def rows_of(evaluator: TableEvaluator) -> TableRows:
    """Where the joint actions of an evaluator's agents are in its table."""
    table, control = evaluator.table, evaluator.task.control
    place = {about["path"]: number for number, about in enumerate(table.meta["agents"].values())}
    strides = len(table.levels) ** np.arange(len(place) - 1, -1, -1)  # of the table's agents
    members = [np.array([place[path] for path in decides.paths]) for decides in control.agents.values()]
    fixed = {place[path]: int(np.searchsorted(table.levels, ratio)) for path, ratio in control.fixed.items()}
    choices = choices_of(control.agents, "box", table.levels).values()
    return TableRows(
        base=sum(level * int(strides[number]) for number, level in fixed.items()),
        strides=np.array([strides[numbers].sum() for numbers in members]),
        lowest=np.array([np.searchsorted(table.levels, choice.lowest) for choice in choices]),
        sizes=np.array([len(choice.levels) for choice in choices]),
        members=members,
    )
