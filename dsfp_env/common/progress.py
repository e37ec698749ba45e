"""How far a run is: a bar in a terminal, a line every tenth elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from multiprocessing import parent_process
from typing import TypeVar

from tqdm import tqdm

from dsfp_env.common.saying import remark

Item = TypeVar("Item")


def is_terminal() -> bool:
    """Whether there is one, and nobody else draws there: bars of several processes would be over each other."""
    return parent_process() is None and sys.stderr.isatty()


class Progress:
    """Counts up to a total, and shows the best reward so far and the time left."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._done = label, total, 0
        self._start = time.monotonic()
        self._best: float | None = None
        self._bar = tqdm(total=total, desc=label, unit="evaluation", leave=True) if is_terminal() else None

    def advance(self, score: float | None = None) -> None:
        """One more is done; its score, if it has one."""
        self._done += 1
        if score is not None and (self._best is None or score > self._best):
            self._best = score
        if self._bar is not None:
            if self._best is not None:
                self._bar.set_postfix_str(f"best reward {self._best:.4f}", refresh=False)
            self._bar.update()
        elif self._done == self._total or self._done * 10 // self._total > (self._done - 1) * 10 // self._total:
            remark(self._line())

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()

    def _line(self) -> str:
        left = (time.monotonic() - self._start) / self._done * (self._total - self._done)
        best = "" if self._best is None else f", best reward {self._best:.4f}"
        return f"{self._label}: {self._done}/{self._total}{best}, {left:.0f} s left"


def shown(label: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """Pass items on, showing how many have come."""
    progress = Progress(label, total)
    try:
        for item in items:
            yield item
            progress.advance()
    finally:
        progress.close()
