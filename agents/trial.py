"""Learners with their options, tried on the toy: what they cannot use is said before anything is loaded."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence

from agents.loop import train
from agents.registry import AGENTS, choose_agent, contestant
from dsfp_env.common.choices import parse_call
from dsfp_env.common.errors import InputError
from dsfp_env.common.optional import check_installed
from dsfp_env.evaluation.allocation import check_rule
from dsfp_env.toy import ToyEnv

MOST_EVALUATIONS = 10_000_000  # of a run; the plans of random search are all made at its start
STEPS = 12  # more than there are levels: then a bandit has tried all


def check_warm_start(rules: Sequence[str], contestants: Iterable[str], evaluations: int) -> None:
    """Refuse rules to begin with that there are not, and learners that cannot begin with a plan.

    Args:
        rules: As for `dsfp_env.allocate`.
        contestants: As for `check_learners`.
        evaluations: That a learner has.

    Raises:
        InputError: If something cannot be used.
    """
    for rule in rules:
        check_rule(rule)
    if len(set(rules)) < len(rules) or len(rules) >= evaluations:
        raise InputError(
            f"--warm-start is {' '.join(rules)}: expected each rule once, and fewer than the {evaluations} "
            "evaluations."
        )
    for one in contestants if rules else ():
        entry = choose_agent(contestant(one).agent)
        if entry.find_made is not None or hasattr(inspect.unwrap(entry.made or object), "learn"):
            raise InputError(
                f"--warm-start: {one} has a loop of its own, in which it learns from what it chose itself: "
                "expected learners of this package, or of your own with the verbs act and update."
            )


def check_learners(contestants: Iterable[str], evaluations: int) -> None:
    """Refuse learners that there are not, and values of options that they cannot use.

    Only learners of `agents.registry` with options are tried, for a few steps: those of users may know nothing of
    toys.

    Args:
        contestants: As for `registry.choose_agent`; a kind of credit and a batch may be added as in
            ``ucb1@difference@batch=4``.
        evaluations: The budget that they are made for.

    Raises:
        InputError: If a name, an option or its value cannot be used, or a library is not installed.
    """
    if not 1 <= evaluations <= MOST_EVALUATIONS:
        raise InputError(f"The evaluations are {evaluations}: expected from 1 to {MOST_EVALUATIONS}.")
    contestants = list(contestants)
    if not contestants:
        raise InputError("No learner is named: expected one or more.")
    for one in contestants:
        text, _, batch = contestant(one)
        entry = choose_agent(text)
        name, options = parse_call("agent", text)
        if entry.needs:
            check_installed(f"The agent {name!r}", entry.needs)
        if name not in AGENTS or (not options and batch == 1):
            continue
        env = ToyEnv(entry.actions)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # so few steps teach some learners nothing
                train(env, entry.make(env, 0, max(evaluations, 1)), STEPS, batch=batch, seed=0)
        except InputError:
            raise
        except (TypeError, ValueError, AssertionError, ArithmeticError, LookupError) as error:
            raise InputError(
                f"The agent {text!r} cannot use its options ({error}): expected values such as docs/agents.md and "
                "its class tell."
            ) from error
