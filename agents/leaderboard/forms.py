"""Rewards as a command line says them: with their budget in brackets."""

from __future__ import annotations

from typing import NamedTuple

from dsfp_env.common.choices import choose, parse_call
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.budgets import Budget, budget_from
from dsfp_env.evaluation.rewards import needs_time


class Form(NamedTuple):
    """A reward and its budget."""

    text: str  # as it was asked for
    reward: str
    macs_budget: float | Budget | None  # or a budget of parameters


def parse_form(text: str) -> Form:
    """A reward with its budget, from text such as ``budget(macs_budget=0.1)``.

    Raises:
        InputError: If the text is no such reward, or a table cannot tell what the reward asks for.
    """
    reward, options = parse_call("reward", text)
    for option in options:
        choose(f"option of the reward {reward!r}:", option, {"macs_budget": None, "params_budget": None})
    for option, value in options.items():
        if value is not None and not isinstance(value, (int, float)):
            name = "MACs" if option == "macs_budget" else "parameters"
            raise InputError(
                f"The {name} budget of the reward {text!r} is {value!r}: expected a number, such as 0.1."
            )
    budget: float | Budget | None = options.get("macs_budget")
    if options.get("params_budget") is not None:
        budget = budget_from(**options)
    if needs_time(reward):
        raise InputError(f"The reward {reward!r} needs measured times, and a table has none: expected another.")
    return Form(text, reward, budget)
