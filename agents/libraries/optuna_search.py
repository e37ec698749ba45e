"""Optuna's samplers as teams.

- `TPE`: the tree-structured Parzen estimator (Bergstra et al. 2011), of all ratios jointly, proposes what is
  likely among the good joint actions and unlikely among the others.
- `NSGA2`: the genetic algorithm NSGA-II (Deb et al. 2002) crosses and mutates the best joint actions.
- `OptunaSearch` takes any other of Optuna's samplers.

Each can also search for the Pareto front of accuracy and relative MACs (``pareto=True``), rather than for the
highest score; what is played in the end is the joint action with the highest score still. The front is in the
history: see `dsfp_env.pareto`.

Optuna is no dependency: ``pip install optuna``.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Discrete, Space
from pettingzoo import ParallelEnv

from agents.base import JointTransition
from agents.libraries.ask_tell import AskTellTeam
from dsfp_env.common.errors import InputError
from dsfp_env.common.optional import import_for
from dsfp_env.common.ranges import Count, Share, WholeNumber, ranges_checked


class OptunaSearch(AskTellTeam):
    """A team that plays what one of Optuna's samplers proposes.

    Args:
        env: Its action spaces say whether levels or ratios are proposed.
        sampler: Any of `optuna.samplers`.
        pareto: Whether to search for the front of accuracy and relative MACs, rather than for the highest score.

    Raises:
        InputError: If Optuna is not installed.
    """

    def __init__(self, env: ParallelEnv[str, Any, Any], sampler: Any, *, pareto: bool = False) -> None:
        spaces = {agent: env.action_space(agent) for agent in env.possible_agents}
        super().__init__(_Study(spaces, sampler, ["maximize", "minimize"] if pareto else ["maximize"]), env)
        self._pareto = pareto

    def _worth(self, transition: JointTransition) -> Any:
        if not self._pareto:
            return [transition.score]
        info = next(iter(transition.infos.values()))
        if "accuracy" not in info or "relative_macs" not in info:
            raise InputError(
                f"The infos of the environment have {', '.join(info)}: for pareto=True they should have accuracy "
                "and relative_macs."
            )
        return [info["accuracy"], info["relative_macs"]]


class TPE(OptunaSearch):
    """Optuna's multivariate tree-structured Parzen estimator, over all layers at once: slow to choose.

    Args:
        env: The environment.
        seed: Of the sampler.
        warm_up: Joint actions that are drawn uniformly at first.
        candidates: Joint actions of which the most promising is proposed.
        pareto: See `OptunaSearch`.
    """

    @ranges_checked
    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        seed: int | None = None,
        *,
        warm_up: WholeNumber = 10,
        candidates: Count = 24,
        pareto: bool = False,
    ) -> None:
        sampler = _sampler(
            "TPESampler",
            multivariate=True,
            seed=_seed(seed),
            n_startup_trials=warm_up,
            n_ei_candidates=candidates,
        )
        super().__init__(env, sampler, pareto=pareto)


class NSGA2(OptunaSearch):
    """Optuna's genetic algorithm NSGA-II: for many evaluations in large batches, and for fronts (``pareto``).

    Args:
        env: The environment.
        seed: Of the sampler.
        population: Joint actions in a generation.
        crossover: Probability that a joint action has two parents.
        mutation: Probability that an action is drawn anew; one over the number of agents if not given.
        pareto: See `OptunaSearch`.
    """

    @ranges_checked
    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        seed: int | None = None,
        *,
        population: Count = 20,
        crossover: Share = 0.9,
        mutation: Share | None = None,
        pareto: bool = False,
    ) -> None:
        sampler = _sampler(
            "NSGAIISampler",
            seed=_seed(seed),
            population_size=population,
            crossover_prob=crossover,
            mutation_prob=mutation,
        )
        super().__init__(env, sampler, pareto=pareto)


class _Study:
    """Optuna's ask and tell, for joint actions; a joint action that is not told is asked again.

    Several trials may be open, of which the sampler knows (TPE takes them for bad ones). They are told in order.
    """

    def __init__(self, spaces: Mapping[str, Space[Any]], sampler: Any, directions: list[str]) -> None:
        with _quiet_optuna() as optuna:
            self._distributions = {agent: _distribution(optuna, space) for agent, space in spaces.items()}
            self.study = optuna.create_study(sampler=sampler, directions=directions)
        self._open: list[Any] = []  # trials

    def ask(self) -> dict[str, Any]:
        return self.ask_many(1)[0]

    def ask_many(self, count: int) -> list[dict[str, Any]]:
        while len(self._open) < count:
            self._open.append(self.study.ask(self._distributions))
        return [dict(trial.params) for trial in self._open[:count]]

    def tell(self, joint_action: Mapping[str, Any], worth: Any) -> None:
        trial = self._open.pop(0) if self._open else None
        if trial is not None and joint_action == trial.params:
            self.study.tell(trial, worth)
            return
        with _quiet_optuna() as optuna:
            notes = {}  # the sampler's: of which generation it is
            if trial is not None:
                notes = self.study.tell(trial, state=optuna.trial.TrialState.FAIL).system_attrs
            played = optuna.trial.create_trial(
                params=dict(joint_action), distributions=self._distributions, values=worth, system_attrs=notes
            )
            self.study.add_trial(played)


def _sampler(name: str, **options: Any) -> Any:
    with _quiet_optuna() as optuna:
        try:
            return getattr(optuna.samplers, name)(**options)
        except ValueError as error:
            raise InputError(f"Optuna's {name} does not take the options {options}: {error}") from error


def _distribution(optuna: Any, space: Space[Any]) -> Any:
    if isinstance(space, Discrete):
        return optuna.distributions.IntDistribution(0, int(space.n) - 1)
    assert isinstance(space, Box)
    return optuna.distributions.FloatDistribution(float(space.low[0]), float(space.high[0]))


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """Optuna, without its messages and its warnings of experimental features; they are as before afterwards."""
    optuna = import_for("Search with Optuna", "optuna")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _seed(seed: int | None) -> int:
    """A seed as Optuna's samplers take it, below 2^32; drawn anew if None."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])
