"""What a file of measurements says of the task that was measured, and of the machine that did it."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from dsfp_env.common.devices import device_name
from dsfp_env.common.hashing import hash_of
from dsfp_env.common.release import VERSION
from dsfp_env.common.versions import versions_of
from dsfp_env.evaluation.evaluator import Evaluator
from dsfp_env.tables.files import COSTS, SPLITS
from dsfp_env.tasks.task import Task


def described(task: Task, evaluator: Evaluator, seed: int) -> dict[str, Any]:
    """A task: its name, splits and agents, and what its original network is worth.

    Args:
        task: The task.
        evaluator: Of this task.
        seed: That the task was made with.
    """
    original, features = evaluator.original, evaluator.layer_features
    sizes = [len(split.labels) for split in (task.validation, task.test)]
    right = np.rint(np.array(evaluator.measure_splits()) * sizes).astype(int).tolist()
    return {
        "task": task.name,
        "task_seed": seed,
        "task_hash": hash_of(task.network.state_dict().values()),
        "split_hash": hash_of(tensor for split in (task.train, task.validation, task.test) for tensor in split),
        "splits": dict(zip(SPLITS, sizes, strict=True)),
        "agents": {
            agent: {
                "path": path,
                "filters": original.filters_kept[agent],
                "coupled_with": list(task.coupled_agents[agent]),
                "features": features[agent].tolist(),
            }
            for agent, path in task.agents.items()
        },
        "original": {
            "correct": dict(zip(SPLITS, right, strict=True)),
            **{name: getattr(original, name) for name in COSTS},
        },
        **_control(task),
    }


def _control(task: Task) -> dict[str, Any]:
    """What is said of agents that are not one for each prunable layer, if some are not."""
    deciders, fixed = task.control.agents, task.control.fixed
    tied = {agent: list(decides.paths) for agent, decides in deciders.items() if len(decides.paths) > 1}
    return {"control": {"fixed": fixed, "tied": tied}} if fixed or tied else {}


def machine(task: Task, processor: str | None = None) -> dict[str, Any]:
    """Who measures.

    Args:
        task: That is measured.
        processor: The name of its processor; that of this machine unless given.
    """
    return {"processor": f"{platform.machine()}, {processor or device_name(task.device)}", **versions()}


def versions() -> dict[str, str]:
    """What the numbers may depend on."""
    others = versions_of("torch", "numpy")
    return {"python": others["python"], "dsfp_env": VERSION, **others}
