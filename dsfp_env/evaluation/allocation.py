"""Ratios for a budget of multiply-adds by rules of the literature: nothing is learned, one number is found.

| rule             | every layer loses                                                                  |
|------------------|------------------------------------------------------------------------------------|
| `uniform`        | the same share of its filters                                                      |
| `erk`            | so many that it keeps a share in proportion to (in + out + kh + kw) / (in out kh kw), |
|                  | the Erdos-Renyi-Kernel (Evci et al. 2020, arXiv 1911.11134)                        |
| `global_ranking` | its filters below one threshold, of scores that are normalised layer by layer      |
|                  | (as Molchanov et al. 2017, arXiv 1611.06440)                                       |
| `sensitivity`    | as many as cost the same accuracy when it is pruned alone and nothing is trained   |
|                  | (Li et al. 2017, arXiv 1608.08710; Han et al. 2015, arXiv 1506.02626)              |

A rule is a path of plans, from the least pruned to the most, along a number in [0, 1]; bisection finds where the
budget is met. Where several layers lose a filter at the same place, as many of them keep it as the budget allows,
in order of execution, so that a budget is met to within one filter; of layers that are coupled, one of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Literal

import numpy as np

from dsfp_env.common.choices import choose, parse_call, with_options
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.progress import shown
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.evaluation.plans import LEVELS, Plan, within

Path = Callable[[float], Plan]  # of a number in [0, 1]: the more, the fewer filters stay
Sweep = Mapping[str, Sequence[float]]  # agent -> accuracy at each of `LEVELS`
_HALVINGS = 50
_TIE = 1e-6  # of accuracy for all filters of a layer: where none is lost, ratios rise together


def allocate(evaluator: Evaluator, rule: str, *, macs_budget: float, sweep: Sweep | None = None) -> Plan:
    """The plan of a rule that just meets a budget.

    Args:
        evaluator: Of the task, such as ``env.evaluator``; its criterion ranks the filters.
        rule: ``"uniform"``, ``"erk"``, ``"global_ranking"`` or ``"sensitivity"``, with options as in
            ``"global_ranking(normalisation=l2)"``, which may be ``minmax``, ``zscore`` or ``l2``.
        macs_budget: The share of the original network's multiply-adds that may be left, in (0, 1).
        sweep: What `sweep_of` told of the evaluator, for ``"sensitivity"``; measured unless given.

    Returns:
        Agent -> ratio in percent, within the bounds of each, and one that an action can say. Where even the least
        that can be removed is enough, that.

    Raises:
        InputError: If there is no such rule, or its plans cannot get down to the budget.
    """
    if not isinstance(evaluator, Evaluator):
        raise InputError(
            f"The evaluator is {shortened(evaluator)}: expected a dsfp_env.Evaluator (within an AtBudget, that is "
            "its .evaluator)."
        )
    if not isinstance(macs_budget, Real) or isinstance(macs_budget, bool) or not 0 < float(macs_budget) < 1:
        raise InputError(
            f"macs_budget is {shortened(macs_budget)}: expected a share of the original network's multiply-adds "
            "in (0, 1), for example 0.3."
        )
    path = path_of(evaluator, rule, sweep)
    whole = evaluator.task.graph.costs().macs
    allowed = macs_budget * whole
    least = evaluator.costs(path(1.0)).macs
    if least > allowed:
        raise InputError(
            f"macs_budget is {macs_budget}: pruned by the rule {rule!r} as far as bounds allow, "
            f"{100 * least / whole:.1f} % of the multiply-adds are left; expected a budget of "
            f"{math.ceil(1e4 * least / whole) / 1e4} or more."
        )
    return _bisected(evaluator, path, allowed)


def path_of(evaluator: Evaluator, rule: str, sweep: Sweep | None = None) -> Path:
    """The plans of a rule along a number in [0, 1]; for the arguments, and what is raised, see `allocate`."""
    name, made = check_rule(rule)
    path: Path = made(evaluator) if sweep is None or name != "sensitivity" else of_sweep(evaluator, sweep)
    agents = evaluator.task.control.agents
    return lambda place: within(agents, path(place))


def check_rule(rule: str, *others: str) -> tuple[str, Callable[[Evaluator], Path]]:
    """The name of a rule that is said with its options, and its paths.

    Args:
        rule: As for `allocate`.
        others: What else could have been said, for the message.

    Raises:
        InputError: If there is no such rule or option.
    """
    name, options = parse_call("rule", rule)
    known = RULES | dict.fromkeys(others, uniform)
    return name, with_options("rule", name, choose("rule", name, known), options)


def uniform(evaluator: Evaluator) -> Path:
    """The same share of every layer."""
    agents = evaluator.task.control.agents
    return lambda place: dict.fromkeys(agents, 100 * place)


def erk(evaluator: Evaluator) -> Path:
    """Shares that stay in proportion to (in + out + kh + kw) / (in out kh kw), but no more than all."""
    layers = evaluator.task.graph.layers

    def share(path: str) -> float:
        layer = layers[path]
        sides = (layer.in_channels, layer.out_channels, *layer.kernel_size)
        return sum(sides) / math.prod(sides)

    shares = {
        agent: float(np.mean([share(path) for path in decides.paths]))
        for agent, decides in evaluator.task.control.agents.items()
    }
    lowest = min(shares.values())
    return lambda place: {agent: 100 * (1 - min(1.0, (1 - place) * one / lowest)) for agent, one in shares.items()}


def global_ranking(evaluator: Evaluator, normalisation: Literal["minmax", "zscore", "l2"] = "minmax") -> Path:
    """The lowest filters of all layers, by scores that are normalised within each layer."""
    normalised = choose("normalisation", normalisation, NORMALISATIONS)
    scores = {
        agent: np.concatenate([normalised(evaluator.scores[path].numpy()) for path in decides.paths])
        for agent, decides in evaluator.task.control.agents.items()
    }
    ranked = np.sort(np.concatenate(list(scores.values())))

    def path(place: float) -> Plan:
        threshold = ranked[min(int(place * len(ranked)), len(ranked) - 1)]
        return {agent: 100 * float((of_one < threshold).mean()) for agent, of_one in scores.items()}

    return path


def sensitivity(evaluator: Evaluator) -> Path:
    """As much of every layer as costs the same accuracy, when it is pruned alone."""
    return of_sweep(evaluator, sweep_of(evaluator))


def of_sweep(evaluator: Evaluator, sweep: Sweep) -> Path:
    """As `sensitivity`, from what `sweep_of` told; between the levels ratios are interpolated."""
    for agent in evaluator.task.control.agents:
        _check_swept(agent, sweep.get(agent) if isinstance(sweep, Mapping) else sweep)
    ratios = np.array([0.0, *LEVELS])
    (original,) = evaluator.measurement.accuracies(evaluator.task.network, evaluator.task.validation)
    falls = {
        agent: np.maximum.accumulate([0.0, *(original - np.array(sweep[agent]))]) + _TIE * ratios / 100
        for agent in evaluator.task.control.agents
    }
    most = max(float(one[-1]) for one in falls.values())
    return lambda place: {agent: float(np.interp(place * most, one, ratios)) for agent, one in falls.items()}


def sweep_of(evaluator: Evaluator) -> dict[str, list[float]]:
    """Accuracy on the validation split when one layer is pruned, at each of `LEVELS`; nothing is trained.

    Layers that are coupled lose the same filters, so they are pruned together, and have equal numbers.

    Args:
        evaluator: Its criterion says which filters go.

    Returns:
        Agent -> accuracies ``[9]``.
    """
    task, control = evaluator.task, evaluator.task.control
    together = {agent: tuple(sorted((agent, *task.coupled_agents[agent]))) for agent in control.agents}

    def measured(agents: Sequence[str], ratio: float) -> float:
        paths = [path for agent in agents for path in control.agents[agent].paths]
        ratios = {path: fixed / 100 for path, fixed in control.fixed.items()} | dict.fromkeys(paths, ratio / 100)
        keep = task.graph.keep(ratios, evaluator.scores, evaluator.min_filters, evaluator.round_to)
        (accuracy,) = evaluator.measurement.accuracies(task.graph.slim(task.network, keep), task.validation)
        return accuracy

    asked = [(agents, float(ratio)) for agents in dict.fromkeys(together.values()) for ratio in LEVELS]
    accuracies = shown("one layer at a time", (measured(*one) for one in asked), len(asked))
    found = dict(zip(asked, accuracies, strict=True))
    return {agent: [found[together[agent], float(ratio)] for ratio in LEVELS] for agent in control.agents}


def _check_swept(agent: str, given: object) -> None:
    """Refuse what is not an accuracy at each of the levels."""
    try:
        accuracies = np.array(given, dtype=float)
    except (TypeError, ValueError):
        accuracies = np.array(np.nan)
    if accuracies.shape != (len(LEVELS),) or not np.isfinite(accuracies).all():
        raise InputError(
            f"The sweep says {shortened(given)} of {agent}: expected what sweep_of told of this evaluator, "
            f"{len(LEVELS)} accuracies of every agent."
        )


def _bisected(evaluator: Evaluator, path: Path, allowed: float) -> Plan:
    def macs(plan: Plan) -> int:
        return evaluator.costs(plan).macs

    less, more = 0.0, 1.0
    if macs(path(less)) <= allowed:
        return path(less)
    for _ in range(_HALVINGS):
        middle = (less + more) / 2
        less, more = (middle, more) if macs(path(middle)) > allowed else (less, middle)
    plan, too_much = path(more), path(less)
    for agent, ratio in too_much.items():
        if macs(fuller := {**plan, agent: ratio}) <= allowed:
            plan = fuller
    return _as_actions(evaluator, plan)


def _as_actions(evaluator: Evaluator, plan: Plan) -> Plan:
    """A plan in ratios that actions can say, which are float32: of each the nearest that takes the same filters.

    Bisection ends where a layer loses its next filter, so that one of rounding might take it, or leave it.
    """
    same = evaluator.costs(plan).macs
    for agent, one in evaluator.task.control.agents.items():
        near = np.float32(plan[agent])
        beside = (np.nextafter(near, np.float32(bound)) for bound in (one.lowest, one.highest))
        for ratio in (near, *beside):
            said = {**plan, agent: float(ratio)}
            if one.lowest <= ratio <= one.highest and evaluator.costs(said).macs == same:
                plan = said
                break
    return plan


def _minmax(scores: np.ndarray) -> np.ndarray:
    lowest, highest = scores.min(), scores.max()
    return (scores - lowest) / ((highest - lowest) or 1)


def _zscore(scores: np.ndarray) -> np.ndarray:
    return (scores - scores.mean()) / (scores.std() or 1)


def _l2(scores: np.ndarray) -> np.ndarray:
    return scores / (np.linalg.norm(scores) or 1)


RULES: dict[str, Callable[..., Path]] = {
    "uniform": uniform,
    "erk": erk,
    "global_ranking": global_ranking,
    "sensitivity": sensitivity,
}
NORMALISATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"minmax": _minmax, "zscore": _zscore, "l2": _l2}
