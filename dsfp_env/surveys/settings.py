"""What can be asked of ``python -m dsfp_env.survey``; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from dsfp_env.evaluation.executors.options import ExecutorSettings
from dsfp_env.evaluation.options import EvaluationOptions
from dsfp_env.tasks.options import SplitOptions, TaskOptions


@dataclass(frozen=True)
class SurveyedOptions(TaskOptions, SplitOptions, EvaluationOptions, ExecutorSettings):
    """What a command says of a survey that it adds to; the settings of a command inherit it."""

    out: str
    """The folder of the survey; one that was begun with the same settings goes on."""
    device: str = "cpu"
    """Where it is measured: cpu, auto (a GPU if there is one), cuda:1, ... On a GPU, every worker has a copy of
    the images of its own there."""


@dataclass(frozen=True)
class SurveySettings(SurveyedOptions):
    """What is measured, and where it is kept."""

    plans: int = 6000
    """Joint actions that are drawn: uniform ones, sweeps of one layer, random ones, and ones stratified over the
    multiply-adds. With a larger number later, those that were measured stay."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Of the fine-tuning. Each joint action is measured with one of them, every tenth with all."""
    part: str = "1/1"
    """Measure only a part of the joint actions: 1/2 and 2/2 are halves."""
    merge: tuple[str, ...] = ()
    """Folders of surveys to put together, in place of measuring."""
