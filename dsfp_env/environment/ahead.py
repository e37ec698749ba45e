"""What the next steps of several environments will ask for, evaluated at once, before they are taken."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dsfp_env.common.errors import InputError
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.evaluation.outcome import Outcome


def start_ahead(
    envs: Sequence[LayerPruningEnv], actions: Sequence[Mapping[str, Any]], workers: int | None = None
) -> Iterator[None]:
    """Begin to evaluate what steps will ask for; the workers go on while an environment takes its own.

    Args:
        envs: Environments of one evaluator.
        actions: A joint action for each, as for its ``step``; ``{}`` where an episode is over.
        workers: As in `Evaluator.evaluate_many`.

    Returns:
        For each environment, in their order, a wait until all that its step asks for is known.

    Raises:
        gymnasium.error.ResetNeeded: As `LayerPruningEnv.step` does.
        InputError: If the environments have several evaluators, or an action cannot be used.
    """
    if len(envs) != len(actions):
        raise InputError(f"{len(actions)} joint actions came for {len(envs)} environments: expected one for each.")
    check_one_evaluator(envs)
    plans = [env.plans(one) for env, one in zip(envs, actions, strict=True)]
    seeds = [env.evaluation_seed for env, asked in zip(envs, plans, strict=True) for _ in asked]
    asked = [plan for some in plans for plan in some]
    outcomes = envs[0].evaluator.start_many(asked, seeds, workers) if asked else iter(())
    return _waits(list(map(len, plans)), outcomes)


def check_one_evaluator(envs: Iterable[LayerPruningEnv]) -> None:
    """Refuse environments that do not share what they measure.

    Raises:
        InputError: If they have several evaluators.
    """
    if len({id(env.evaluator) for env in envs}) > 1:
        raise InputError(
            "The environments have several evaluators: expected one for all. Make the second and all others with "
            "parallel_env(evaluator=first.evaluator, ...)."
        )


def _waits(counts: Sequence[int], outcomes: Iterator[Outcome]) -> Iterator[None]:
    for count in counts:
        for _ in range(count):
            next(outcomes)
        yield
