"""How much a learner explores: a probability that falls over its budget."""

from __future__ import annotations


def fallen(step: int, first: float, last: float, steps: int) -> float:
    """The probability at a step, from 0: it falls linearly from the first to the last over so many steps."""
    return first + min(1.0, step / steps) * (last - first)
