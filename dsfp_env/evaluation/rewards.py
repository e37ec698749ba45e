"""What an outcome is worth: a score that grows with accuracy and with what is saved.

A reward function maps (outcome, original) to a float; higher is better. Named forms, with a the validation
accuracy (of a task with another metric: that, scaled to [0, 1]), f the MACs relative to the original network's, F0
the budget for f, and t the time of a forward pass relative to the original network's:

| name                | score             | its optimum                                           |
|---------------------|-------------------|-------------------------------------------------------|
| `accuracy_x_saving` | a * (1 - f)       | between the extremes, without a budget                |
| `budget`            | a * min(1, F0/f)  | the most accurate network at about the budget         |
| `accuracy_x_speed`  | a * (1 - t)       | as the first, with the measured time in place of MACs |

With a budget of parameters or of time (see `budgets`), f is what is used of those. Where accuracy rises faster
than in proportion to f, as after a short fine-tune with a tight budget, `budget` has its optimum beyond it;
``fill_budget=True`` of the environment keeps to the budget (`at_budget`).

A time that is measured (see `latency`) differs a little each time, so `accuracy_x_speed` is the one reward that is
not the same for equal seeds; unless times are predicted (`latency_predictor`).

Forms that look as good and are traps, for which reason they are not offered: a/f and -error*log(f) send every
agent to 90 %; a - c*f depends on c; a sharp penalty beyond the budget makes independent learners, who fear each
other's exploration, prune far too much. A function of your own can still be any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.ranges import is_finite
from dsfp_env.evaluation.budgets import MACS, Budget, budget_from
from dsfp_env.evaluation.outcome import Outcome

RewardFunction = Callable[[Outcome, Outcome], float]  # (outcome, original) -> score


def accuracy_x_saving(outcome: Outcome, original: Outcome) -> float:
    """Accuracy times the share of MACs that is saved; 0 for the original network."""
    return outcome.accuracy * (1 - outcome.relative_macs)


def within_budget(outcome: Outcome, original: Outcome, budget: float | Budget) -> float:
    """Accuracy, scaled down in proportion when more than the budget is used; a number is one of relative MACs."""
    if not isinstance(budget, Budget):
        budget = Budget(MACS, budget)
    share = budget.allowed(original) / budget.used(outcome, original)
    return outcome.accuracy * (min(1.0, share) if isinstance(share, float) else np.minimum(1.0, share))


def accuracy_x_speed(outcome: Outcome, original: Outcome) -> float:
    """Accuracy times the share of the time of a forward pass that is saved.

    Raises:
        InputError: If no latency was measured.
    """
    if outcome.latency is None or original.latency is None:
        raise InputError(
            "The reward 'accuracy_x_speed' needs measured times: give the evaluator or the environment "
            "latency=dsfp_env.LatencyMeter()."
        )
    return outcome.accuracy * (1 - outcome.latency / original.latency)


@dataclass(frozen=True)
class RewardForm:
    """A reward that is known by name."""

    worth: Callable[..., float]  # (outcome, original) -> score, and budget if it needs one
    needs_budget: bool = False
    needs_time: bool = False  # of a forward pass


REWARDS: dict[str, RewardForm] = {
    "accuracy_x_saving": RewardForm(accuracy_x_saving),
    "budget": RewardForm(within_budget, needs_budget=True),
    "accuracy_x_speed": RewardForm(accuracy_x_speed, needs_time=True),
}


def _checked(function: RewardFunction, name: str, outcome: Outcome, original: Outcome) -> float:
    """What a function of the user's own says an outcome is worth.

    Raises:
        InputError: If it raises, or says no finite number.
    """
    try:
        worth: Any = function(outcome, original)
    except InputError:
        raise
    except Exception as error:  # whatever it raises
        raise_if_of_the_machine(error, f"computing the reward {name!r}", "what it needs")
        raise InputError(
            f"The reward {name!r} failed ({type(error).__name__}: {error}) for {outcome}: expected a function of "
            "(outcome, original) that gives a number."
        ) from error
    number = worth.item() if isinstance(getattr(worth, "shape", None), tuple) and worth.shape == () else worth
    if not isinstance(number, Real) or not is_finite(number):
        raise InputError(
            f"The reward function gave {shortened(worth)}, no finite number, for {outcome}: expected one, "
            "higher is better "
            f"({name})."
        )
    return float(number)


def needs_time(reward: str | RewardFunction) -> bool:
    """Whether a reward by name needs measured times; of a function of the user's own that is not known."""
    return isinstance(reward, str) and reward in REWARDS and REWARDS[reward].needs_time


def reward_function(reward: str | RewardFunction, budget: float | Budget | None = None) -> RewardFunction:
    """Make a reward function from its name.

    Args:
        reward: A name in `REWARDS`, ``"package.module:function"``, or a function.
        budget: For the form that needs one; a number is relative MACs allowed, in (0, 1).

    Raises:
        InputError: If the name is unknown, or the budget is missing or out of range.
    """
    budget = budget_from(budget)
    form: Any = choose("reward", reward, REWARDS, importable=True) if isinstance(reward, str) else reward
    if not isinstance(form, RewardForm):  # a function of the user's own
        name = reward if isinstance(reward, str) else getattr(form, "__name__", repr(form))
        if not callable(form):
            raise InputError(
                f"The reward {name!r} is of type {type(form).__name__}: expected a name, or a function of "
                "(outcome, original)."
            )
        return partial(_checked, form, name)
    if not form.needs_budget:
        return form.worth
    if budget is None:
        raise InputError(
            f"The reward {reward!r} needs a budget: give macs_budget, for example 0.3 of the MACs, or "
            "params_budget, or latency_budget."
        )
    return partial(form.worth, budget=budget)


def many_scores(
    reward: str | RewardFunction, budget: float | Budget | None, outcomes: Outcome, original: Outcome
) -> np.ndarray:
    """What many outcomes are worth, ``[N]``; a function of the user's own is asked one after another.

    Args:
        reward: As for `reward_function`, and so ``budget``.
        budget: Likewise.
        outcomes: One whose numbers are arrays ``[N]``; nothing is told of single layers.
        original: Of the unpruned network.

    Raises:
        InputError: As `reward_function`, and if measured times are needed.
    """
    worth: Any = reward_function(reward, budget)
    if isinstance(reward, str) and reward in REWARDS:
        scores: np.ndarray = worth(outcomes, original)
        return scores
    arrays = {name: value for name, value in vars(outcomes).items() if isinstance(value, np.ndarray)}
    rows = zip(*(array.tolist() for array in arrays.values()), strict=True)
    return np.array([worth(replace(outcomes, **dict(zip(arrays, row, strict=True))), original) for row in rows])
