"""What a command says about where its work is done: a part of its settings, read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError

if TYPE_CHECKING:
    from dsfp_env.evaluation.executors import Executor


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
        from dsfp_env.evaluation.executors.chosen import EXECUTORS, executor_from  # imports torch
        from dsfp_env.evaluation.executors.ray_cluster import Ray
        from dsfp_env.evaluation.workers import check_workers

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
