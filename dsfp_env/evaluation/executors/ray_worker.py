"""What a process of a Ray cluster does: it takes a piece of work from the object store once, and does jobs.

What it computes with is compared first with what the sender does, so a node that joins late is checked, too.
What comes back are plain bytes, results and errors alike, as from worker processes (`worker_process`).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from dsfp_env.evaluation.executors.conditions import Conditions, conditions, difference, other_processor
from dsfp_env.evaluation.executors.node_memory import load_shared
from dsfp_env.evaluation.worker_process import Terms, message_of

KEPT = 2  # pieces of work that a process keeps at hand


class Parcel(NamedTuple):
    """A piece of work on its way, and what it is to be done under."""

    key: str
    expected: Conditions
    sender: str  # the name of the machine that has sent it
    terms: Terms
    packages: tuple[str, ...]
    kind: str  # "cpu" or "cuda"
    mixed: bool  # whether processors of another kind may do it


class Reply(NamedTuple):
    """What came of some jobs."""

    refused: str = ""  # a sentence: this process may not do such work
    unreadable: str = ""  # why the work cannot be read
    processor: str | None = None  # if it is of another kind than the sender's
    seconds: float = 0.0
    messages: tuple[bytes, ...] = ()  # for each job, as `answer_of` reads it


def conditions_here(packages: tuple[str, ...], kind: str) -> tuple[Conditions, str]:
    """What this process computes with, and the name of its machine."""
    return _conditions(packages, kind), node_name()


def node_name() -> str:
    """Of the machine and of the node that this process is on."""
    import ray

    return f"{socket.gethostname()} (Ray node {ray.get_runtime_context().get_node_id()[:8]})"


def do(parcel: Parcel, content: Sequence[Any], jobs: Sequence[bytes]) -> Reply:
    """Do jobs.

    Args:
        parcel: What is to be done.
        content: The reference to the bytes of the work, as `torch.save` has written them.
        jobs: The arguments of each, pickled.
    """
    found = _conditions(parcel.packages, parcel.kind)
    mixed = found.processor != parcel.expected.processor
    if found != parcel.expected:
        sentence = difference(parcel.expected, parcel.sender, found, node_name())
        if not sentence and mixed and not parcel.mixed:
            sentence = other_processor(parcel.expected, parcel.sender, found, node_name())
        if sentence:
            return Reply(refused=sentence)
    try:
        work = _work(parcel, content)
    except BaseException as error:  # whatever a module or a class of somebody's own raises
        return Reply(unreadable=f"on {node_name()}: {type(error).__name__}: {error}")
    torch.set_float32_matmul_precision(parcel.terms.matmul_precision)
    torch.set_default_dtype(parcel.terms.dtype)
    start = time.perf_counter()
    messages = tuple(message_of(work, arguments) for arguments in jobs)
    return Reply("", "", found.processor if mixed else None, time.perf_counter() - start, messages)


_at_hand: dict[str, tuple[Callable[..., Any], Callable[[], None]]] = {}


def _work(parcel: Parcel, content: Sequence[Any]) -> Callable[..., Any]:
    """The work, from memory if it was here before."""
    if parcel.key not in _at_hand:
        import ray

        while len(_at_hand) >= KEPT:
            _at_hand.pop(next(iter(_at_hand)))[1]()
        _at_hand[parcel.key] = load_shared(parcel.key, lambda: ray.get(content[0]))
    return _at_hand[parcel.key][0]


@lru_cache
def _conditions(packages: tuple[str, ...], kind: str) -> Conditions:
    return conditions(packages, kind)
