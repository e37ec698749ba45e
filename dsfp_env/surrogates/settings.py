"""What can be asked of ``python -m dsfp_env.fit_surrogate``; read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FitSettings:
    """What is fitted, to what."""

    survey: tuple[str, ...]
    """Folders of surveys of one task."""
    out: str
    """The folder of the surrogate."""
    name: str | None = None
    """What the task is called; as in the survey unless given."""
    members: int = 4
    """Networks in the ensemble."""
    width: int = 64
    """Of both hidden layers of each."""
    steps: int = 6000
    """Of their training."""
    quick: bool = False
    """Leave out the comparison with other models, and learners that are left out: for a first look."""
