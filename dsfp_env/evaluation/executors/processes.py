"""Work in worker processes of this machine; see `workers`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dsfp_env.evaluation.executors import Crew
from dsfp_env.evaluation.executors.serial import SerialCrew
from dsfp_env.evaluation.workers import Workers, available_cores


class Processes:
    """Several processes, which are started when they are needed. One would only be in the way: that is this one.

    Args:
        count: How many, at most; as many as there are cores unless given.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = count

    def check(self, device: torch.device) -> None:
        """See `Executor.check`."""

    def begin(self, work: Callable[..., Any], count: int | None = None) -> Workers | SerialCrew:
        """See `Executor.begin`."""
        count = self._number(count)
        return SerialCrew(work) if count == 1 else Workers(work, count)

    def suits(self, crew: Crew, count: int | None = None) -> bool:
        """See `Executor.suits`."""
        count = self._number(count)
        return crew.suit(count) if isinstance(crew, Workers) else count == 1

    def stop(self) -> None:
        """Crews have all that was started."""

    def _number(self, count: int | None) -> int:
        return count or self.count or available_cores()
