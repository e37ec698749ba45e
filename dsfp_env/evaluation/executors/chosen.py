"""The place where work is done, as an argument or a command line says it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from dsfp_env.common.choices import choose, parse_call, with_options
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.executors.ray_cluster import Ray
from dsfp_env.evaluation.executors.serial import Serial
from dsfp_env.evaluation.workers import check_workers

EXECUTORS: dict[str, Callable[..., Executor]] = {"serial": Serial, "processes": Processes, "ray": Ray}
_METHODS = ("count", "check", "begin", "suits", "stop")  # what `Executor` has


def executor_from(executor: str | Executor, count: int | None = None) -> Executor:
    """An executor by name, with options as in ``"ray(address=auto, cpus_per_worker=2)"``; one itself is returned.

    Args:
        executor: The name, one of `EXECUTORS`, or an executor.
        count: Workers, at most, of one that is named.

    Raises:
        InputError: If there is no such executor or option.
    """
    if not isinstance(executor, str):
        lacks = [name for name in _METHODS if not hasattr(executor, name)]
        if isinstance(executor, type) or lacks:
            without = f", without {', '.join(lacks)}" if len(lacks) < len(_METHODS) and lacks else ""
            raise InputError(
                f"The executor is of type {type(executor).__name__}{without}: expected one of "
                f"{', '.join(EXECUTORS)}, or an object with what dsfp_env.evaluation.executors.Executor has."
            )
        return executor
    name, options = parse_call("executor", executor)
    make = with_options("executor", name, choose("executor", name, EXECUTORS), options)
    made: Executor = make(count)
    return made


@dataclass(frozen=True, kw_only=True)
class ExecutorSettings:
    """What a command says about where its work is done; the settings of a command inherit it."""

    executor: str = "processes"
    """Where work is done: processes (of this machine), ray (a Ray cluster), or serial (in this process). Results
    do not depend on it."""
    workers: int | None = None
    """How many work at once: as many as there are cores, or as the cluster has room for, unless given. Results do
    not depend on it."""
    address: str | None = None
    """Of a Ray cluster: auto (the one this machine is part of) or host:port; unless given, one is started on this
    machine and ended with the command."""
    cpus_per_worker: float = 1.0
    """CPUs that a worker of a Ray cluster takes."""
    gpus_per_worker: float = 0.0
    """GPUs that a worker of a Ray cluster takes, such as 0.25."""
    mixed_processors: bool = False
    """Let nodes of a Ray cluster compute whose processor is of another kind than this machine's: last digits may
    then depend on which node did what. Outcomes are kept under the kind that measured them."""

    def place(self) -> Executor:
        """The executor that is meant.

        Raises:
            InputError: If something cannot be used, or means nothing with this executor.
        """
        choose("executor", self.executor, EXECUTORS)
        if self.workers is not None:
            check_workers(self.workers)
        options = {name: getattr(self, name) for name in OF_A_CLUSTER}
        if self.executor == "ray":
            return Ray(self.workers, **options)
        for field in fields(ExecutorSettings):
            if field.name in options and options[field.name] != field.default:
                raise InputError(
                    f"--{field.name.replace('_', '-')} is {options[field.name]!r}, which --executor "
                    f"{self.executor} has no use for: leave it out, or say --executor ray."
                )
        return executor_from(self.executor, self.workers)


OF_A_CLUSTER = ("address", "cpus_per_worker", "gpus_per_worker", "mixed_processors")
WHERE = tuple(field.name for field in fields(ExecutorSettings))  # settings that results do not depend on


def said(settings: Any) -> dict[str, Any]:
    """Those settings of a command, by name."""
    return {name: getattr(settings, name) for name in WHERE}
