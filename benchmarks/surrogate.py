"""How many joint actions a second a surrogate answers.

    python benchmarks/surrogate.py --surrogate NAME or FOLDER [--quick]

First `Surrogate.query` of N joint actions at once, the mean over seeds and with a seed; then the environment:
`SurrogateVectorEnv`, with all infos and with those of the team only, under a budget whose masks are drawn, and
plain loops over `parallel_env`, with episodes of one step too. Actions are levels, drawn before. Other episodes
have 4 steps; the steps that reset take time, but are not counted. Everything is as in `benchmarks/table.py`, which
prints the same columns.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from table import HORIZON, Way, compare, head, print_row

import dsfp_env
from dsfp_env.surrogates.evaluator import SurrogateEvaluator
from dsfp_env.surrogates.surrogate import Surrogate, load_surrogate
from dsfp_env.wrappers import SurrogateVectorEnv


@dataclass(frozen=True)
class Settings:
    """What is measured."""

    surrogate: str = "resnet20"
    """A name, or a folder."""
    rounds: int = 7
    """After one that is not counted."""
    queries: tuple[int, ...] = (1, 1000, 100_000)
    """Joint actions at once."""
    num_envs: tuple[int, ...] = (1, 64, 1024)
    """Environments in a vector."""
    seconds: float = 0.2
    """That each way has, at least, in a round."""
    quick: bool = False
    """Two rounds of little work."""


def main(settings: Settings) -> None:
    if settings.quick:
        settings = Settings(settings.surrogate, 2, (1, 1000), (1, 64), 0.01)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # one core
    torch.set_num_threads(1)
    surrogate = load_surrogate(
        Path(settings.surrogate) if os.path.isdir(settings.surrogate) else settings.surrogate
    )
    print(f"{surrogate}; {settings.rounds} rounds; NumPy {np.__version__}\n")
    print(f"joint actions a second, predicted\n\n{head('N')}")
    for number in settings.queries:
        print_row(f"{number:,}", queries(surrogate, number), settings)
    print(f"\njoint actions a second, in environments\n\n{head('num_envs')}")
    for number in settings.num_envs:
        print_row(f"{number:,}", environments(surrogate, number), settings)


def queries(surrogate: Surrogate, number: int) -> dict[str, Way]:
    """Ways to ask about so many joint actions."""
    ratios = np.random.default_rng(0).choice(surrogate.levels, (number, len(surrogate.agents)))

    def query(seed: int | None) -> int:
        surrogate.query(ratios, seed)
        return number

    return {"query": lambda: query(None), "query, with a seed": lambda: query(0)}


def environments(surrogate: Surrogate, number: int) -> dict[str, Way]:
    """Ways to step so many environments; the last is the peer."""
    kwargs: dict[str, Any] = {"evaluator": SurrogateEvaluator(surrogate), "actions": "levels", "horizon": HORIZON}
    envs = {
        "SurrogateVectorEnv": SurrogateVectorEnv(number, **kwargs),
        "of the team": SurrogateVectorEnv(number, agent_infos=False, **kwargs),
        "with a budget": SurrogateVectorEnv(number, macs_budget=0.4, **kwargs),
    }
    loop = [dsfp_env.parallel_env(**kwargs) for _ in range(number)]
    short = [dsfp_env.parallel_env(**(kwargs | {"horizon": 1})) for _ in range(number)]
    actions = np.random.default_rng(0).integers(
        len(surrogate.levels), size=(HORIZON, number, len(surrogate.agents))
    )
    told = [[dict(zip(surrogate.agents, one, strict=True)) for one in joint] for joint in actions.tolist()]
    compare(list(envs.values())[:2], actions)

    def stepped(env: SurrogateVectorEnv) -> Way:
        env.reset(seed=0)

        def work() -> int:
            for joint in actions:
                env.step(joint)
            env.step(actions[0])  # the next episodes begin
            return HORIZON * number

        return work

    def looped() -> int:
        kwargs["evaluator"]._known.clear()  # so that every joint action is predicted, as in the others
        for place, env in enumerate(loop):
            env.reset(seed=place)
        for joint in told:
            for env, one in zip(loop, joint, strict=True):
                env.step(one)
        return HORIZON * number

    def one_shot() -> int:
        kwargs["evaluator"]._known.clear()
        for place, (env, one) in enumerate(zip(short, told[0], strict=True)):
            env.reset(seed=place)
            env.step(one)
        return number

    return {
        **{name: stepped(env) for name, env in envs.items()},
        "parallel_env": looped,
        "parallel_env, horizon 1": one_shot,
    }


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
