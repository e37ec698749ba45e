"""Work on a Ray cluster: that of an address, or one of this machine alone that ends with the command.

Ray is imported when work begins, and not before. Nodes are compared with this process first, see `conditions`; the
work is written into the object store once, and read from there once by every node, see `ray_worker`.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar

import numpy as np
import torch

from dsfp_env.common.errors import InputError
from dsfp_env.common.optional import check_installed, import_for
from dsfp_env.evaluation.executors import Crew
from dsfp_env.evaluation.executors.conditions import Conditions, conditions, difference, other_processor
from dsfp_env.evaluation.executors.ray_crew import RayCrew
from dsfp_env.evaluation.executors.ray_worker import Parcel, conditions_here, do, node_name
from dsfp_env.evaluation.worker_process import terms
from dsfp_env.evaluation.workers import available_cores

OF_OUR_OWN = {  # settings of a cluster that is started here, unless the user has set them
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # else 15: other work of this machine would go first
}
LONGEST_CHECK = 120.0  # seconds; a node that has not answered by then is checked by its workers


class Ray:
    """A Ray cluster.

    Args:
        count: Workers at one piece of work, at most; as many as the cluster has room for unless given.
        address: ``"auto"`` (the cluster that this machine is part of) or ``"host:port"``. Unless given, it is that
            of the environment variable RAY_ADDRESS; without that, a cluster is started on this machine, and ended
            with `stop` or with this process. Where this process uses Ray already, that cluster is taken.
        cpus_per_worker: CPUs that a worker takes.
        gpus_per_worker: GPUs that a worker takes; parts of one are possible.
        mixed_processors: Whether nodes may compute whose processor is of another kind than this machine's.

    Raises:
        InputError: If a number is none that can be used.
    """

    def __init__(
        self,
        count: int | None = None,
        address: str | None = None,
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
        mixed_processors: bool = False,
    ) -> None:
        if cpus_per_worker < 0 or gpus_per_worker < 0 or not cpus_per_worker + gpus_per_worker > 0:
            raise InputError(
                f"A worker takes {cpus_per_worker} CPUs and {gpus_per_worker} GPUs: expected 0 or more of each, "
                "and some of one."
            )
        if gpus_per_worker > 1 and gpus_per_worker != int(gpus_per_worker):
            raise InputError(f"A worker takes {gpus_per_worker} GPUs: expected a part of one, or a whole number.")
        if address is not None and (not isinstance(address, str) or not address.strip() or "://" in address):
            raise InputError(
                f"The address is {address!r}: expected auto or host:port, of a cluster this one is in."
            )
        self.count, self.address, self.mixed_processors = count, address, mixed_processors
        self.cpus_per_worker, self.gpus_per_worker = float(cpus_per_worker), float(gpus_per_worker)
        self._is_connected = False

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_is_connected": False}

    def check(self, device: torch.device) -> None:
        """See `Executor.check`."""
        check_installed("The executor 'ray'", "ray")
        if (device.type == "cuda") != (self.gpus_per_worker > 0):
            raise InputError(
                f"The task is on {device}, and a worker of the cluster takes {self.gpus_per_worker:g} GPUs: "
                "expected some with a task on a GPU, and none with one on the CPU (--gpus-per-worker, --device)."
            )

    def begin(self, work: Callable[..., Any], count: int | None = None) -> RayCrew:
        """See `Executor.begin`."""
        was_connected = self._is_connected
        try:
            return self._begun(work, count or self.count)
        except BaseException:
            if not was_connected:
                self.stop()
            raise

    def suits(self, crew: Crew, count: int | None = None) -> bool:
        """See `Executor.suits`."""
        return isinstance(crew, RayCrew) and not crew.over and crew.count == (count or self.count)

    def stop(self) -> None:
        """See `Executor.stop`. A cluster that was there before stays."""
        if self._is_connected:
            self._is_connected = False
            _Connection.leave()

    def _begun(self, work: Callable[..., Any], count: int | None) -> RayCrew:
        ray = import_for("The executor 'ray'", "ray")
        self._connect(ray, count)
        packages, kind = _packages_of(work), "cuda" if self.gpus_per_worker else "cpu"
        expected = self._compared(ray, packages, kind)
        content = ray.put(_saved(work, ray.cloudpickle))
        parcel = Parcel(uuid.uuid4().hex, expected, node_name(), terms(), packages, kind, self.mixed_processors)
        options = {"num_cpus": self.cpus_per_worker, "num_gpus": self.gpus_per_worker}
        task = ray.remote(do).options(**options, max_retries=0, name=f"dsfp_env: {parcel.key[:8]}")
        return RayCrew(
            lambda jobs: task.remote(parcel, [content], jobs),
            lambda reference: ray.cancel(reference, force=True),
            lambda: self._room(ray),
            count,
        )

    def _connect(self, ray: Any, count: int | None) -> None:
        if self._is_connected and ray.is_initialized():
            return
        options: dict[str, Any] = {"address": self.address or os.environ.get("RAY_ADDRESS") or "local"}
        if options["address"] == "local":
            for name, value in OF_OUR_OWN.items():
                os.environ.setdefault(name, value)
            workers = max(count or 0, self.count or 0) or available_cores()
            cpus = max(math.ceil(workers * self.cpus_per_worker), available_cores())
            options |= {"num_cpus": cpus, "include_dashboard": False}
        try:
            _check_reached(options["address"])
            _Connection.enter(ray, options)
        except Exception as error:  # whatever Ray raises, if there is no cluster
            raise InputError(
                f"The Ray cluster at {options['address']} cannot be used ({_first_line(error)}): start one with "
                "`ray start --head`, or leave the address out for one of this machine alone. One that has a token "
                "(docs/cluster.md) wants it here, too."
            ) from error
        self._is_connected = True

    def _compared(self, ray: Any, packages: tuple[str, ...], kind: str) -> Conditions:
        """What is expected of all nodes, when those that there are have been compared.

        Raises:
            InputError: If one is of another state than this process.
        """
        expected, here = conditions(packages, kind), node_name()
        found = self._conditions_of_nodes(ray, packages, kind)
        if not expected.processor and found:  # this machine has no such device: nodes are compared with each other
            expected, here = expected._replace(processor=found[0][0].processor), found[0][1]
        for theirs, there in found:
            sentence = difference(expected, here, theirs, there)
            if not sentence and not self.mixed_processors:
                sentence = other_processor(expected, here, theirs, there)
            if sentence:
                raise InputError(sentence)
        if kinds := {theirs.processor for theirs, _ in found} - {expected.processor}:
            warnings.warn(
                f"The cluster computes with {', '.join(sorted(kinds))} beside {expected.processor}: last digits "
                "may depend on which node does what. Outcomes are kept under the kind that measured them.",
                stacklevel=2,
            )
        return expected

    def _conditions_of_nodes(self, ray: Any, packages: tuple[str, ...], kind: str) -> list[tuple[Conditions, str]]:
        """What every node that has room for a worker computes with, and its name."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = [node["NodeID"] for node in ray.nodes() if self._slots(node)]
        if not nodes:
            self._warn_of_no_room(ray)
        needs = {"num_cpus": 0, "num_gpus": min(self.gpus_per_worker, 0.01), "max_retries": 1}
        task = ray.remote(conditions_here)
        asked = [
            task.options(**needs, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                packages, kind
            )
            for node in nodes
        ]
        ready, late = ray.wait(asked, num_returns=len(asked), timeout=LONGEST_CHECK) if asked else ([], [])
        for one in late:
            ray.cancel(one)
        found = []
        for one in ready:
            try:
                found.append(ray.get(one))
            except (ray.exceptions.RayTaskError, ray.exceptions.RuntimeEnvSetupError) as error:
                node = nodes[asked.index(one)][:8]
                raise InputError(
                    f"A node of the Ray cluster ({node}) cannot do such work ({_last_line(error)}): expected the "
                    f"same packages as here, {', '.join(packages)} among them, on all nodes."
                ) from error
            except ray.exceptions.RayError:
                continue  # it has just ended: workers on it would, too
        return found

    def _warn_of_no_room(self, ray: Any) -> None:
        needs = f"{self.cpus_per_worker:g} CPUs and {self.gpus_per_worker:g} GPUs"
        if _Connection.is_ours and _Connection.is_local:
            raise InputError(
                f"A worker takes {needs}, and this machine has less: give --address, or smaller parts."
            )
        warnings.warn(
            f"No node of the Ray cluster has the {needs} that a worker takes: waiting for one that does.",
            stacklevel=2,
        )

    def _room(self, ray: Any) -> int:
        return sum(self._slots(node) for node in ray.nodes())

    def _slots(self, node: dict[str, Any]) -> int:
        """How many workers a node has room for."""
        if not node["Alive"]:
            return 0
        needs = (("CPU", self.cpus_per_worker), ("GPU", self.gpus_per_worker))
        return min(int(node["Resources"].get(name, 0.0) / part + 1e-9) for name, part in needs if part)


class _Connection:
    """This process's connection to a cluster, of which there is one at a time, whoever uses it.

    A thread of its own makes and ends it: what Ray starts ends with the thread that started it, and only in the
    main thread would Ray take signals that are the command's.
    """

    users: ClassVar[int] = 0
    is_ours: ClassVar[bool] = False
    is_local: ClassVar[bool] = False
    _lock: ClassVar[threading.Lock] = threading.Lock()
    _end: ClassVar[threading.Event] = threading.Event()
    _thread: ClassVar[threading.Thread | None] = None

    @classmethod
    def enter(cls, ray: Any, options: dict[str, Any]) -> None:
        """Connect, unless somebody has."""
        with cls._lock:
            if ray.is_initialized():
                cls.users += cls.is_ours
                return
            connected = Future[None]()
            cls._end = threading.Event()
            cls._thread = threading.Thread(
                target=cls._hold,
                args=(ray, options, connected, cls._end),
                daemon=True,
                name="dsfp_env: Ray cluster",
            )
            cls._thread.start()
            connected.result()
            if threading.current_thread() is threading.main_thread():  # Ray's own would abort the process
                signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)
            cls.users, cls.is_ours, cls.is_local = 1, True, options["address"] == "local"

    @classmethod
    def leave(cls) -> None:
        """End the connection, if it is ours and nobody else uses it; a cluster of our own ends with it."""
        with cls._lock:
            if not cls.is_ours:
                return
            cls.users -= 1
            if cls.users == 0 and cls._thread is not None:
                cls._end.set()
                cls._thread.join()
                cls.is_ours, cls._thread = False, None

    @staticmethod
    def _hold(ray: Any, options: dict[str, Any], connected: Future[None], end: threading.Event) -> None:
        try:
            ray.init(**options, log_to_driver=False, logging_level="ERROR")
            _hush()
        except BaseException as error:
            connected.set_exception(error)
            return
        connected.set_result(None)
        end.wait()
        ray.shutdown()


def _hush() -> None:
    """Ray would print a paragraph for every worker that ends, whatever it was told of logs."""
    inner = sys.modules.get("ray._private.worker")
    if hasattr(inner, "print_to_stdstream"):
        setattr(inner, "print_to_stdstream", lambda *words, **how: None)  # noqa: B010 - a type checker knows no such


def _packages_of(work: Callable[..., Any]) -> tuple[str, ...]:
    """The packages whose sources the work is of: ours, and that of the function."""
    inner = work
    while hasattr(inner, "func"):  # a `functools.partial`
        inner = inner.func
    own = str(getattr(inner, "__module__", None) or type(inner).__module__).partition(".")[0]
    is_package = hasattr(sys.modules.get(own), "__path__")
    return ("dsfp_env", own) if is_package and own not in ("dsfp_env", "torch") else ("dsfp_env",)


def _saved(work: Callable[..., Any], pickler: Any) -> np.ndarray:
    """The bytes that `torch.save` writes; what the user's script defines travels with them."""
    in_memory = hasattr(os, "memfd_create")
    with open(os.memfd_create("dsfp_env-sent"), "w+b") if in_memory else tempfile.TemporaryFile() as file:
        torch.save(work, file, pickle_module=pickler)
        file.flush()
        return np.asarray(np.memmap(file, np.uint8, "r"))


def _check_reached(address: str) -> None:
    """Refuse a host and port where nobody listens, at once; Ray itself tries for minutes.

    Raises:
        OSError: If so.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip().rstrip(".")
