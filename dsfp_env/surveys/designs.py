"""Which joint actions a survey measures: a sequence that does not depend on how much of it is measured.

A block of a hundred after a block of a hundred, each with its shares of

- **uniform** plans, one ratio for all;
- **sweeps**: one coupled set of layers at a ratio of its own, all others at one;
- **levels**: each agent at one of the nine levels, at random;
- **random**: each agent at any ratio;
- **stratified**: random, then all moved up or down alike until the multiply-adds are what was drawn. Most random
  plans of many agents cost about the same; these are from the cheapest to the dearest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from dsfp_env.tasks.ratios import HIGHEST, LEVELS, LOWEST

SHARES = {"uniform": 4, "sweep": 14, "levels": 22, "random": 15, "stratified": 45}  # of a hundred
REPLICATED = 10  # every tenth plan is measured with all seeds
_HALVINGS = 30

RelativeMacs = Callable[[np.ndarray], float]  # of ratios [agents] in percent


class Asked(NamedTuple):
    """One joint action to measure."""

    ratios: tuple[float, ...]  # percent, in the order of the agents
    seed: int
    source: str  # how it came into the survey


def design(
    sets: Sequence[Sequence[int]], agents: int, relative_macs: RelativeMacs, plans: int, seeds: Sequence[int]
) -> Iterator[Asked]:
    """So many joint actions, and every tenth with all seeds.

    Args:
        sets: The agents of each coupled set, by their places.
        agents: How many there are.
        relative_macs: Of a plan.
        plans: How many.
        seeds: Of the fine-tuning.
    """
    for number, (source, ratios) in enumerate(islice(_plans(sets, agents, relative_macs), plans)):
        whose = seeds if number % REPLICATED == 0 else [seeds[number % len(seeds)]]
        for seed in whose:
            yield Asked(tuple(ratios.round(1).tolist()), seed, source)


def _plans(
    sets: Sequence[Sequence[int]], agents: int, relative_macs: RelativeMacs
) -> Iterator[tuple[str, np.ndarray]]:
    """Sources and ratios ``[agents]``, without end."""
    rng = np.random.default_rng(0)
    kinds = [name for name, share in SHARES.items() for _ in range(share)]
    while True:
        for kind in rng.permutation(kinds).tolist():
            yield kind, _drawn(kind, rng, sets, agents, relative_macs)


def _drawn(
    kind: str, rng: np.random.Generator, sets: Sequence[Sequence[int]], agents: int, relative_macs: RelativeMacs
) -> np.ndarray:
    """One plan, ``[agents]`` in percent."""
    if kind == "uniform":
        return np.full(agents, rng.uniform(LOWEST, HIGHEST))
    if kind == "sweep":
        plan = np.full(agents, rng.choice(LEVELS))
        plan[list(sets[int(rng.integers(len(sets)))])] = rng.choice(LEVELS)
        return plan
    if kind == "levels":
        return rng.choice(LEVELS, agents)
    plan = rng.uniform(LOWEST, HIGHEST, agents)
    return _moved(plan, rng, relative_macs) if kind == "stratified" else plan


def _moved(plan: np.ndarray, rng: np.random.Generator, relative_macs: RelativeMacs) -> np.ndarray:
    """A plan moved up or down until it costs what is drawn."""
    least, most = (relative_macs(np.full(len(plan), ratio)) for ratio in (HIGHEST, LOWEST))
    target = rng.uniform(least, most)
    low, high = LOWEST - HIGHEST, HIGHEST - LOWEST  # of what is added
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if relative_macs(np.clip(plan + middle, LOWEST, HIGHEST)) > target:
            low = middle
        else:
            high = middle
    return np.clip(plan + high, LOWEST, HIGHEST)
