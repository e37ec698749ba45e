"""Work in this process, one job after another."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch

from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors import Crew


class Serial:
    """This process.

    Args:
        count: 1, if it is said.

    Raises:
        InputError: If it is another number.
    """

    def __init__(self, count: int | None = None) -> None:
        if count not in (None, 1):
            raise InputError(f"workers is {count} with the executor 'serial': expected 1, or 'processes'.")
        self.count: int | None = 1

    def check(self, device: torch.device) -> None:
        """See `Executor.check`."""

    def begin(self, work: Callable[..., Any], count: int | None = None) -> SerialCrew:
        """See `Executor.begin`. Nothing travels."""
        return SerialCrew(work)

    def suits(self, crew: Crew, count: int | None = None) -> bool:
        """See `Executor.suits`."""
        return isinstance(crew, SerialCrew)

    def stop(self) -> None:
        """Nothing was started."""


class SerialCrew:
    """Does each job at once: a future is done when it is given."""

    ahead = 1

    def __init__(self, work: Callable[..., Any]) -> None:
        self._work = work

    def submit(self, *arguments: Any) -> Future[Any]:
        """See `Crew.submit`."""
        future: Future[Any] = Future()
        try:
            future.set_result(self._work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def stop(self, at_once: bool = False) -> None:
        """Nothing is under way."""
