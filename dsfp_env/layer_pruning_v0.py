"""The environment under PettingZoo's conventional names: `parallel_env`, `env` and `raw_env`.

Version history: v0, the first.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from gymnasium.spaces import Discrete
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, ClipOutOfBoundsWrapper, OrderEnforcingWrapper

from dsfp_env.common.choices import names_checked
from dsfp_env.common.errors import InputError
from dsfp_env.criteria.criterion import Criterion
from dsfp_env.environment.backends import check_beside, make_evaluator
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.environment.turn_based import TurnBasedEnv
from dsfp_env.evaluation.budgets import LATENCY, Budget, budget_from
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.interface import AnyEvaluator
from dsfp_env.evaluation.latency import LatencyMeter
from dsfp_env.evaluation.latency_predictor import LatencyPredictor, predictor_of
from dsfp_env.evaluation.rewards import RewardFunction, needs_time
from dsfp_env.surrogates.surrogate import Surrogate
from dsfp_env.tables.table import Table
from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity


@names_checked
def parallel_env(
    given: frozenset[str],
    task: str | Task | Table | Surrogate = "digits",
    actions: str = "box",
    reward: str | RewardFunction = "accuracy_x_saving",
    macs_budget: float | Budget | None = None,
    horizon: int = 1,
    seed: int | None = None,
    render_mode: str | None = None,
    observation: str = "layers",
    context: float = 50.0,
    criterion: str | Criterion = "dsfp",
    fidelity: Fidelity | None = None,
    device: str = "auto",
    min_filters: int = 1,
    round_to: int = 1,
    latency: LatencyMeter | LatencyPredictor | None = None,
    store: bool = True,
    evaluator: AnyEvaluator | None = None,
    credit: str = "shared",
    backend: str = "live",
    executor: str | Executor = "processes",
    *,
    layers: Mapping[str, Any] | str | None = None,
    tie: Iterable[Iterable[str]] | str | None = None,
    agents_per: str = "layer",
    params_budget: float | None = None,
    latency_budget: float | str | None = None,
    fill_budget: bool = False,
    max_cycles: int | None = None,
) -> LayerPruningEnv:
    """Make the parallel environment.

    Args:
        given: The names of the arguments that were given; for `names_checked`.
        task: A name for `load_task`, or a `Task`; with ``backend="table"`` a name for `load_table`, or a `Table`;
            with ``backend="surrogate"`` one for `load_surrogate`, or a `Surrogate`.
        actions: ``"box"`` or ``"levels"``.
        reward: A name in `rewards.REWARDS`, or a function (outcome, original) -> score.
        macs_budget: Relative MACs allowed, in (0, 1); for the reward ``"budget"``, and seen by the agents.
        horizon: Steps in an episode.
        seed: Of the evaluations, until ``reset`` gives another; drawn anew if not given.
        render_mode: ``"ansi"`` returns text, ``"rgb_array"`` a picture, ``"human"`` prints the text at every
            reset and step.
        observation: ``"layers"`` or ``"context"``.
        context: The number seen with ``observation="context"``, in [10, 90]; ``reset(options={"context": 60})``
            changes it.
        criterion: Which filters go first; see `score_filters`.
        fidelity: The work of one evaluation; the task's own if not given.
        device: For a task given by name.
        min_filters: Filters that every layer keeps at least.
        round_to: Layers that lose filters keep a multiple of this, for hardware.
        latency: How to measure the time of a forward pass, or to predict it (`LatencyPredictor`); for the reward
            ``"accuracy_x_speed"``, which measures with `LatencyMeter()` unless this is given, and for
            ``latency_budget``, which predicts with `LatencyPredictor()`, or one with the meter that is given.
        store: Whether to take what an earlier process measured from the disk, and keep there what is measured.
        evaluator: One that is there already, so that environments share what they measure. What says how to
            measure (``task``, ``criterion``, ``fidelity``, ``device``, ``min_filters``, ``round_to``,
            ``latency``, ``store``, ``backend``, ``executor``, ``layers``, ``tie``, ``agents_per``) is left out
            then, or is what the evaluator was made with.
        credit: ``"shared"``, or ``"difference"``, which costs an evaluation for each agent; see
            `environment.credit`.
        backend: ``"live"`` measures; ``"table"`` looks up what was measured once of every joint action, in
            microseconds, see `tables.evaluator`; ``"surrogate"`` predicts from what was measured of some, see
            `surrogates.evaluator`.
        executor: Where many joint actions are evaluated at once, as for `Evaluator`; tables and surrogates have no
            use for it.
        layers: Layers that are left alone, bounded, or of one ratio: name or pattern -> None, ``(20, 60)`` or
            ``30``, in percent, as in ``{"first": None, "features.*": (20, 60)}``; see `tasks.layer_control`.
        tie: Groups of layers that have one agent, as in ``[["conv_1", "conv_2"]]``.
        agents_per: ``"layer"``, or ``"set"``: one agent for layers that are coupled.
        params_budget: Relative parameters allowed, in (0, 1), in place of ``macs_budget``.
        latency_budget: Time of a forward pass that is allowed, likewise: a share of the original network's in
            (0, 1), or ``"3.5ms"``; see `evaluation.budgets`.
        fill_budget: Bring every joint action to the budget, by adding one number to all ratios; there are no masks
            then. See `AtBudget`.
        max_cycles: PettingZoo's word for ``horizon``; give one of them.

    Raises:
        InputError: If an argument is unknown, or not what was expected.
    """
    if max_cycles is not None:
        if "horizon" in given:
            raise InputError("Both max_cycles and horizon were given, and they mean the same: give one.")
        horizon = max_cycles
    budget = budget_from(macs_budget, params_budget, latency_budget)
    measuring: dict[str, Any] = {
        "task": task,
        "criterion": criterion,
        "fidelity": fidelity,
        "device": device,
        "min_filters": min_filters,
        "round_to": round_to,
        "latency": latency,
        "store": store,
        "backend": backend,
        "layers": layers,
        "tie": tie,
        "agents_per": agents_per,
        "executor": executor,
    }
    if evaluator is not None:
        check_beside(evaluator, {name: value for name, value in measuring.items() if name in given})
    elif budget is not None and budget.of == LATENCY and backend == "live":
        measuring["latency"] = predictor_of(latency)
    elif latency is None and needs_time(reward) and backend == "live":
        measuring["latency"] = LatencyMeter()
    return LayerPruningEnv(
        partial(make_evaluator, **measuring) if evaluator is None else evaluator,
        actions,
        reward,
        budget,
        horizon,
        seed,
        render_mode,
        observation,
        context,
        credit,
        fill_budget,
    )


def raw_env(*args: Any, order: str | Iterable[str] = "execution", **kwargs: Any) -> AECEnv:
    """Make the environment turn by turn (AEC), with no wrapper: an action outside its space is refused.

    Args:
        *args: As for `parallel_env`.
        order: In which agents choose: ``"execution"``, ``"reverse"``, or all agents, each once.
        **kwargs: As for `parallel_env`.

    Raises:
        InputError: If an argument is unknown, or not what was expected.
    """
    return TurnBasedEnv(parallel_env(*args, **kwargs), order)


def env(*args: Any, order: str | Iterable[str] = "execution", **kwargs: Any) -> AECEnv:
    """As `raw_env`, in PettingZoo's usual wrappers: ratios are clipped to [10, 90]."""
    turns = raw_env(*args, order=order, **kwargs)
    levels = isinstance(turns.action_space(turns.possible_agents[0]), Discrete)
    return OrderEnforcingWrapper((AssertOutOfBoundsWrapper if levels else ClipOutOfBoundsWrapper)(turns))


for _made in (raw_env, env):  # they take what parallel_env takes and the order, and show it
    _taken = inspect.signature(parallel_env)
    _made.__signature__ = _taken.replace(  # type: ignore[attr-defined]
        parameters=[*_taken.parameters.values(), inspect.signature(_made).parameters["order"]],
        return_annotation=AECEnv,
    )
