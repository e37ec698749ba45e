"""What can be asked of ``python -m dsfp_env.tabulate``; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from dsfp_env.evaluation.executors.options import ExecutorSettings
from dsfp_env.evaluation.options import EvaluationOptions
from dsfp_env.tasks.options import SplitOptions, TaskOptions
from dsfp_env.tasks.ratios import LEVELS


@dataclass(frozen=True)
class TableSettings(TaskOptions, SplitOptions, EvaluationOptions, ExecutorSettings):
    """What is measured, and where it is kept."""

    out: str
    """The folder of the table; one that was begun with the same settings goes on."""
    levels: tuple[int, ...] = tuple(int(level) for level in LEVELS)
    """Ratios in percent that every agent chooses from, rising."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the fine-tuning."""
    part: str = "1/1"
    """Measure only a part of the joint actions: 1/2 and 2/2 are halves."""
    merge: tuple[str, ...] = ()
    """Folders of parts to put together, in place of measuring."""
