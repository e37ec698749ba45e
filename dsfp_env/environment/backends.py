"""Who tells what a joint action is worth: the arguments about measuring become an evaluator.

``"live"`` measures; ``"table"`` looks up what was measured once of every joint action, see `tables.evaluator`;
``"surrogate"`` asks a model of what was measured of some, see `surrogates.evaluator`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.criteria.criterion import Criterion
from dsfp_env.evaluation.at_budget import unfilled
from dsfp_env.evaluation.budgets import LATENCY, Budget
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.chosen import executor_from
from dsfp_env.evaluation.interface import AnyEvaluator, check_evaluator
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor
from dsfp_env.surrogates.evaluator import predicting
from dsfp_env.surrogates.surrogate import Surrogate
from dsfp_env.tables.evaluator import tabulated
from dsfp_env.tables.known_outcomes import KnownOutcomes
from dsfp_env.tables.table import Table
from dsfp_env.tasks.layer_control import control_of
from dsfp_env.tasks.loading import load_task
from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity

BACKENDS = ("live", "table", "surrogate")


def make_evaluator(
    task: str | Task | Table | Surrogate = "digits",
    criterion: str | Criterion = "dsfp",
    fidelity: Fidelity | None = None,
    device: str = "auto",
    min_filters: int = 1,
    round_to: int = 1,
    latency: LatencyMeter | LatencyPredictor | None = None,
    store: bool = True,
    backend: str = "live",
    layers: Any = None,
    tie: Any = None,
    agents_per: str = "layer",
    executor: str | Executor = "processes",
) -> AnyEvaluator:
    """The evaluator that these arguments of `layer_pruning_v0.parallel_env` mean.

    Raises:
        InputError: If one is not what was expected.
    """
    choose("backend", backend, dict.fromkeys(BACKENDS))
    if backend != "live":
        made = tabulated if backend == "table" else predicting
        how = {"layers": layers, "tie": tie, "agents_per": agents_per}
        return made(task, criterion, fidelity, min_filters, round_to, latency, **how)
    if isinstance(task, (Table, Surrogate)):
        name = type(task).__name__.lower()
        raise InputError(f"The task is a {name}: expected backend={name!r} with it.")
    loaded = load_task(task, device=device)
    if layers is not None or tie is not None or not isinstance(agents_per, str) or agents_per != "layer":
        loaded = loaded.with_layers(layers, tie, agents_per)
    return Evaluator(loaded, criterion, fidelity, min_filters, round_to, latency, store, executor)


CONTROLS = {"layers": None, "tie": None, "agents_per": "layer"}  # arguments that say who decides for what

MEASURING = tuple(inspect.signature(make_evaluator).parameters)  # the names of these arguments


def check_predicts(evaluator: AnyEvaluator, budget: Budget | None) -> None:
    """Refuse a budget of time with an evaluator that predicts none.

    Raises:
        InputError: If so.
    """
    if budget is None or budget.of != LATENCY or isinstance(evaluator.latency, LatencyPredictor):
        return
    if known := _known_by(evaluator):
        raise InputError(
            f"A {known} has no times, and latency_budget was given: expected macs_budget or params_budget, or "
            "backend='live'."
        )
    raise InputError(
        "latency_budget needs predicted times, and the evaluator has none: make it with "
        "latency=dsfp_env.LatencyPredictor()."
    )


def check_beside(evaluator: AnyEvaluator, measuring: Mapping[str, Any]) -> None:
    """Refuse arguments of `make_evaluator` that came beside an evaluator, and that it was not made with.

    Raises:
        InputError: If one would be ignored, or there is no evaluator.
    """
    check_evaluator(evaluator)
    evaluator = unfilled(evaluator)
    if "backend" in measuring:
        choose("backend", measuring["backend"], dict.fromkeys(BACKENDS))
    for name, value in measuring.items():
        if not _agrees(evaluator, name, value):
            raise InputError(
                f"{name}={shortened(value)} came beside an evaluator, which was not made with it: leave {name} "
                "out, or make the evaluator with it."
            )


def _known_by(evaluator: Any) -> str | None:
    """``"table"`` or ``"surrogate"``, if an evaluator measures nothing itself."""
    return evaluator.kind if isinstance(evaluator, KnownOutcomes) else None


def _agrees(evaluator: Any, name: str, value: Any) -> bool:
    """Whether an evaluator was made with this value of an argument, or need not be."""
    looks_up = _known_by(evaluator)
    if name == "task":
        known = getattr(evaluator, looks_up) if looks_up else None
        names = [evaluator.task.name, *([str(known.folder)] if known else [])]
        return (
            value is evaluator.task
            or (known and value is known)
            or (isinstance(value, (str, Path)) and str(value) in names)
        )
    if name == "backend":
        return looks_up == value if value != "live" else isinstance(evaluator, Evaluator)
    if name in ("device", "store", "executor") and looks_up:
        return True
    if name == "device":
        device = getattr(evaluator.task, "device", None)
        return str(value) in ("auto", str(device), getattr(device, "type", None))  # "cuda" is any GPU
    if name == "executor":
        return value is evaluator.executor or type(executor_from(value)) is type(evaluator.executor)
    if name == "fidelity":
        return value is None or evaluator.measures_with(value)
    if name in CONTROLS:
        try:
            return bool(value == control_of(evaluator.task).said.get(name, CONTROLS[name]))
        except (TypeError, ValueError, RuntimeError):  # of arrays, which have no truth value
            return False
    made_with = getattr(evaluator, name, None)
    return value is made_with or (
        isinstance(value, (int, str, LatencyMeter, LatencyPredictor)) and bool(value == made_with)
    )
