"""What the settings of a command mean for its budget, for how times are predicted, and for what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsfp_env.common.errors import InputError
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.evaluation.budgets import LATENCY, Budget, budget_from
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.latency import parse_meter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor, read_model, write_model
from dsfp_env.tasks.task import Task

LATENCY_MODEL = "latency.json"  # of a run folder: the model that it predicts with


def budget_of(settings: Any) -> Budget | None:
    """The budget that was asked for.

    Raises:
        InputError: If there are several, or it is not what was expected, or what goes with it is not.
    """
    budget = budget_from(settings.macs_budget, settings.params_budget, settings.latency_budget)
    timed = budget is not None and budget.of == LATENCY
    if settings.deployed is not None and not timed:
        raise InputError("--deployed says how times are measured: expected a --latency-budget with it.")
    if timed:
        predictor_for(settings)
    if settings.fill_budget and budget is None:
        raise InputError("--fill-budget brings joint actions to a budget: expected one with it.")
    return budget


def predictor_for(settings: Any, folder: Path | None = None) -> LatencyPredictor:
    """The predictor that was asked for; with the model of a run folder, if that has one.

    Raises:
        InputError: If something said of it cannot be used.
    """
    model = None if folder is None else read_model(folder / LATENCY_MODEL)
    return LatencyPredictor(parse_meter(settings.deployed or ""), settings.latency_networks, model=model)


def measured_as(settings: Any, task: Task, folder: Path | None = None) -> dict[str, Any]:
    """The arguments of an evaluator, or of an environment, about how a task is measured.

    Args:
        settings: Of a command, with `EvaluationOptions`, `WidthOptions` and a budget.
        task: The task.
        folder: Of the run, which may hold the model that times are predicted with.
    """
    return {
        "criterion": settings.criterion,
        "fidelity": settings.fidelity(task.fidelity),
        "min_filters": settings.min_filters,
        "round_to": settings.round_to,
        "latency": None if settings.latency_budget is None else predictor_for(settings, folder),
    }


def measuring(env: LayerPruningEnv) -> Evaluator:
    """The evaluator of a live environment."""
    assert isinstance(env.evaluator, Evaluator)
    return env.evaluator


def kept_in(folder: Path, evaluator: Evaluator) -> None:
    """Write the model that an evaluator predicts with, if there is one, so that the run goes on with it."""
    predicted = evaluator.measurement.predicted
    if predicted is not None and not (folder / LATENCY_MODEL).exists():
        write_model(folder / LATENCY_MODEL, predicted.model)


def told(settings: Any, evaluator: Evaluator) -> dict[str, Any]:
    """What a result says of the budget, unless it is one of MACs."""
    names = ("params_budget", "latency_budget", "deployed", "fill_budget")
    said = {name: value for name in names if (value := getattr(settings, name)) not in (None, False)}
    predicted = evaluator.measurement.predicted
    return said if predicted is None else {**said, "latency_model": predicted.model.about()}
