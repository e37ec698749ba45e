"""What a class or a function of the user's own takes: whom it is made for, and which options it has.

A learner of one layer is made from ``(agent, observation_space, action_space, rng)``, one of all layers from
``(env, seed)``. Which it is, its attribute ``team`` says, or else its parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

OF_ONE = ("agent", "observation_space", "action_space", "rng")
OF_ALL = ("env", "seed")
BUDGET = "evaluations"  # a parameter of this name gets the budget

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def is_for_team(make: Callable[..., Any]) -> bool:
    """Whether something makes a learner of all layers.

    Unless it says so, it does if it can be called with two arguments but not with four, of which the first is not
    called ``agent``. Where it could be called either way, the first is called ``env``.
    """
    said = getattr(make, "team", None)
    if said is not None:
        return bool(said)
    parameters = parameters_of(make)
    if parameters is None:
        return False
    takes = {len(names): _binds(make, len(names)) for names in (OF_ONE, OF_ALL)}
    if takes[len(OF_ONE)] != takes[len(OF_ALL)]:
        return takes[len(OF_ALL)] and next(iter(parameters), "") != OF_ONE[0]
    return next(iter(parameters), "") in ("env", "environment")


def options_of(make: Callable[..., Any], team: bool) -> tuple[str, ...] | None:
    """The names of what may be given besides: keyword-only parameters, and those after the agreed ones; no budget.

    Args:
        make: The class or function.
        team: Whether it is for all layers.

    Returns:
        None if it takes any.
    """
    parameters = parameters_of(make) or {}
    if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values()):
        return None
    positional = [name for name, one in parameters.items() if one.kind in _POSITIONAL]
    after = positional[len(OF_ALL if team else OF_ONE) :]
    only = [name for name, one in parameters.items() if one.kind is inspect.Parameter.KEYWORD_ONLY]
    return tuple(name for name in (*after, *only) if name != BUDGET)


def takes_budget(make: Callable[..., Any]) -> bool:
    """Whether it has a parameter for the budget of evaluations."""
    return BUDGET in (parameters_of(make) or {})


def parameters_of(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter] | None:
    """By name, in order; None for what does not tell, as some of C do."""
    try:
        return inspect.signature(make).parameters
    except ValueError:
        return None


def misfit(function: Callable[..., Any], *given: Any, **named: Any) -> str | None:
    """How a function misses what it is to be given, as in ``(a) cannot be called (too many ...)``; else None."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a built-in function does not tell
        return None
    try:
        signature.bind(*given, **named)
    except TypeError as error:
        return f"{signature} cannot be called ({error})"
    return None


def _binds(make: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many arguments, and with what it calls for by name besides."""
    signature = inspect.signature(make)
    budget = {BUDGET: 1} if BUDGET in signature.parameters else {}
    for more in ({}, budget):
        try:
            signature.bind(*range(count), **more)
        except TypeError:
            continue
        return True
    return False
