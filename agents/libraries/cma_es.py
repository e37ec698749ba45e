"""CMA-ES as a team: a normal distribution of joint actions that learns where to search, and how wide.

The covariance matrix adaptation evolution strategy (Hansen and Ostermeier 2001) draws a generation of joint
actions, keeps the better half, and moves and shapes its distribution towards them. It looks at the order of scores
only. When it has converged before the evaluations are spent, it starts again from a random joint action with
twice as many in a generation (IPOP, Auger and Hansen 2005).

With a batch of k, a generation is so many whole batches that it is no smaller than without.

The library cma is no dependency: ``pip install cma``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from pettingzoo import ParallelEnv

from agents.libraries.ask_tell import AskTellTeam
from dsfp_env.common.errors import InputError
from dsfp_env.common.optional import import_for
from dsfp_env.common.ranges import Positive, Several, ranges_checked


class CMAES(AskTellTeam):
    """The evolution strategy CMA-ES (package cma) on the ratios of all layers: for large batches.

    Args:
        env: Its actions are ratios, Box(10, 90, (1,)).
        seed: Of everything that is drawn.
        sigma: Standard deviation at first, as a fraction of the range of ratios.
        population: Joint actions in the first generation; 4 + 3 ln(agents) if not given.

    Raises:
        InputError: If actions are levels, or the library is not installed.
    """

    actions = "box"

    @ranges_checked
    def __init__(
        self,
        env: ParallelEnv[str, Any, Any],
        seed: int | None = None,
        *,
        sigma: Positive = 0.2,
        population: Several | None = None,
    ) -> None:
        spaces = {agent: env.action_space(agent) for agent in env.possible_agents}
        for agent, space in spaces.items():
            if not isinstance(space, Box) or space.shape != (1,):
                raise InputError(
                    f"CMA-ES got the action space {space} for {agent}: expected a Box of one number. Make the "
                    "environment with actions='box'."
                )
        bounds = np.array([(space.low[0], space.high[0]) for space in spaces.values()], np.float64)
        rng = np.random.default_rng(seed)
        super().__init__(_Generations(list(spaces), bounds, rng, sigma, population), env)


class _Generations:
    """CMA-ES, one joint action at a time; one that is not told is asked again.

    Args:
        agents: Their names.
        bounds: ``[agents, 2]``; inside they are [0, 1].
        rng: Draws everything.
        sigma: As in `CMAES`.
        population: As in `CMAES`.
    """

    def __init__(
        self,
        agents: list[str],
        bounds: np.ndarray,
        rng: np.random.Generator,
        sigma: float,
        population: int | None,
    ) -> None:
        if len(agents) < 2 or not 0 < sigma <= 1 or (population is not None and population < 3):
            raise InputError(
                f"CMA-ES got {len(agents)} agent(s), sigma {sigma} and population {population}: expected two "
                "agents or more, a fraction of the range of ratios in (0, 1], and three or more."
            )
        self._agents, self._low, self._range = agents, bounds[:, 0], bounds[:, 1] - bounds[:, 0]
        self._rng, self._sigma = rng, sigma
        self._strategy = self._start(np.full(len(agents), 0.5), population)
        self._waiting: list[np.ndarray] = []  # of this generation, to be asked for
        self._told: list[tuple[np.ndarray, float]] = []  # of this generation, with their losses

    def ask(self) -> dict[str, float]:
        return self.ask_many(1)[0]

    def ask_many(self, count: int) -> list[dict[str, float]]:
        if not self._waiting:
            self._waiting = list(self._strategy.ask())
        if missing := max(0, count - len(self._waiting)):
            self._waiting += list(self._strategy.ask(missing))
        ratios = [self._low + self._range * one for one in self._waiting[:count]]
        return [dict(zip(self._agents, one.tolist(), strict=True)) for one in ratios]

    def tell(self, joint_action: Mapping[str, float], score: float) -> None:
        if not self._waiting or joint_action != self.ask():
            return  # what it did not ask for teaches it nothing
        self._told.append((self._waiting.pop(0), -score))
        if self._waiting:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._strategy.tell(*map(list, zip(*self._told, strict=True)))
        self._told = []
        if self._strategy.stop():
            self._strategy = self._start(self._rng.random(len(self._agents)), 2 * self._strategy.popsize)

    def _start(self, mean: np.ndarray, population: int | None) -> Any:
        cma = import_for("CMA-ES", "cma")
        options = {
            "bounds": [0, 1],
            "randn": partial(_normal, self._rng),
            "seed": np.nan,  # leave NumPy's global generator alone
            "verbose": -9,
            "verb_log": 0,
            "signals_filename": "",
            **({} if population is None else {"popsize": population}),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cma.CMAEvolutionStrategy(mean, self._sigma, options)


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)
