"""Many evaluations at once, in processes of their own.

An evaluation depends on its seed alone, so the outcomes are those of one evaluation after another; each process
uses as many threads as this one does, so they are equal to the last bit.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from dsfp_env.evaluator import Evaluator
from dsfp_env.rewards import Outcome


class EvaluationPool:
    """Processes that evaluate joint actions; a context manager.

    Args:
        evaluator: Sent to every process, with its task, once.
        workers: How many processes. With 1, evaluations are made here, when their outcome is asked for.
    """

    def __init__(self, evaluator: Evaluator, workers: int) -> None:
        self._evaluator = evaluator
        self._executor: ProcessPoolExecutor | None = None
        if workers > 1:
            _ = evaluator.original, evaluator.task.teacher_logits  # computed here, not in every process
            self._executor = ProcessPoolExecutor(
                workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(evaluator, torch.get_num_threads()),
            )

    def evaluate_many(self, plans: Iterable[Mapping[str, float]], seed: int) -> Iterator[Outcome]:
        """Outcomes of joint actions, in their order.

        Args:
            plans: Ratios in percent by agent, as for `Evaluator.evaluate`.
            seed: The same for all.
        """
        if self._executor is None:
            return (self._evaluator.evaluate(plan, seed) for plan in plans)
        futures = [self._executor.submit(_evaluate, dict(plan), seed) for plan in plans]
        return (future.result() for future in futures)

    def __enter__(self) -> EvaluationPool:
        return self

    def __exit__(self, *error: Any) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)


_own_evaluator: Evaluator  # of a worker process


def _start(evaluator: Evaluator, threads: int) -> None:
    global _own_evaluator
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asked
    torch.set_num_threads(threads)
    _own_evaluator = evaluator


def _evaluate(plan: dict[str, float], seed: int) -> Outcome:
    return _own_evaluator.evaluate(plan, seed)
