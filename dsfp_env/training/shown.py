"""A training, shown to who waits for it."""

from __future__ import annotations

import math
import time
from typing import Any

from tqdm import tqdm

from dsfp_env.common.progress import is_terminal
from dsfp_env.common.saying import remark
from dsfp_env.training.epochs import Epoch

BETWEEN_LINES = 5.0  # seconds, where there is no terminal
BETWEEN_MARKS = 20.0  # seconds, within an epoch


class Shown:
    """A bar in a terminal; elsewhere a line, at most one in 5 seconds.

    An ``on_epoch``; its method ``batch`` is an ``on_batch``, which tells of epochs that are long. The time that is
    left is told from the second call on: before the first one, a training gets ready.

    Args:
        label: What is trained.
    """

    def __init__(self, label: str) -> None:
        self._label, self._start, self._said = label, 0.0, -math.inf
        self._first: float | None = None  # epochs that were over at the first call
        self._bar: Any = None

    def __call__(self, epoch: Epoch) -> None:
        """An epoch is over."""
        self._begin(epoch.number)
        accuracy = "" if epoch.accuracy is None else f", validation {100 * epoch.accuracy:.2f} %"
        found = f"loss {epoch.loss:.4f}{accuracy}"
        ended = epoch.number == epoch.of
        if is_terminal():
            bar = self._shown_bar(epoch.number - 1, epoch.of)
            bar.set_postfix_str(found, refresh=False)
            bar.update()
            if ended:
                bar.close()
        elif ended or time.monotonic() - self._said >= BETWEEN_LINES:
            self._say(f"epoch {epoch.number}/{epoch.of}, {found}", epoch.number, epoch.of)

    def batch(self, done: float, of: int) -> None:
        """So many epochs are over, of so many."""
        if done == int(done):
            return
        self._begin(done)
        if time.monotonic() - max(self._said, self._start) < BETWEEN_MARKS:
            return
        share = f"{done % 1:.0%} of epoch {int(done) + 1}"
        if is_terminal():
            self._said = time.monotonic()
            self._shown_bar(int(done), of).set_postfix_str(share)
        else:
            self._say(f"{share}/{of}", done, of)

    def _begin(self, done: float) -> None:
        if self._first is None:
            self._first, self._start = done, time.monotonic()

    def _shown_bar(self, done: int, of: int) -> Any:
        self._bar = self._bar or tqdm(total=of, initial=done, desc=self._label, unit="epoch")
        return self._bar

    def _say(self, what: str, done: float, of: int) -> None:
        assert self._first is not None
        self._said = time.monotonic()
        left = ""
        if done > self._first:
            left = f", {(self._said - self._start) / (done - self._first) * (of - done):.0f} s left"
        remark(f"{self._label}: {what}{left}")
