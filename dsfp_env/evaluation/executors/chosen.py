"""The place where work is done, as an argument or a command line says it."""

from __future__ import annotations

from collections.abc import Callable

from dsfp_env.common.choices import choose, parse_call, with_options
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation.executors import Executor
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.executors.ray_cluster import Ray
from dsfp_env.evaluation.executors.serial import Serial

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
