"""The best joint action that a long search finds: where there are too many to look at all.

Iterated local search (Lourenço et al. 2003) from uniform and random starts, all at once: every change of one agent
to another level is tried, the best is taken, until none is better; then some agents are changed at random, and it
goes on. Where agents are coupled, a change of one alone may be too small to be seen: so all of a coupled set are
changed together, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Scores = Callable[[np.ndarray], np.ndarray]  # of joint actions in levels [N, agents], [N]

_RANDOM_STARTS = 23
_ROUNDS = 20  # after the first, each with a change at random
_CHANGED = 3  # agents, or sets of them


def long_search(scores: Scores, levels: int, groups: Sequence[Sequence[int]], agents: int) -> np.ndarray:
    """The best joint action found, in levels ``[agents]``.

    Args:
        scores: Of joint actions.
        levels: How many there are for each agent.
        groups: Agents that are changed together: each alone, and those of each coupled set.
        agents: How many there are.
    """
    rng = np.random.default_rng(0)
    uniform = np.repeat(np.arange(levels)[:, None], agents, axis=1)
    starts = np.concatenate([uniform, rng.integers(levels, size=(_RANDOM_STARTS, agents))])
    best = _climbed(starts, scores, levels, groups)
    worth = scores(best)
    for _ in range(_ROUNDS):
        tried = best.copy()
        for row in tried:
            for group in rng.choice(len(groups), _CHANGED):
                row[list(groups[group])] = rng.integers(levels)
        tried = _climbed(tried, scores, levels, groups)
        better = scores(tried) > worth
        best[better] = tried[better]
        worth = scores(best)
    result: np.ndarray = best[int(worth.argmax())]
    return result


def _climbed(starts: np.ndarray, scores: Scores, levels: int, groups: Sequence[Sequence[int]]) -> np.ndarray:
    """Joint actions ``[N, agents]``, each changed for the better until no change of one group is."""
    now, worth = starts.copy(), scores(starts)
    changes = [(list(group), level) for group in groups for level in range(levels)]
    climbing = np.arange(len(now))
    while len(climbing):
        neighbours = np.repeat(now[climbing][:, None], len(changes), axis=1)  # [climbing, changes, agents]
        for place, (group, level) in enumerate(changes):
            neighbours[:, place, group] = level
        found = scores(neighbours.reshape(-1, now.shape[1])).reshape(len(climbing), -1)
        which = found.argmax(1)
        better = found.max(1) > worth[climbing]
        climbing, which = climbing[better], which[better]
        now[climbing] = neighbours[better, which]
        worth[climbing] = found[better, which]
    return now
