"""A pruned network in one file, without pickle.

The file is safetensors: the weights, and under the metadata key ``dsfp_env`` a JSON text with which filters were
kept. So it can be loaded into the original architecture, cut the same way.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from dsfp_env.channels import Keep
from dsfp_env.errors import InputError
from dsfp_env.tasks import Task, load_task

FORMAT = 1


def save_pruned(
    path: str | Path, network: nn.Module, keep: Keep, task: Task, about: Mapping[str, Any] | None = None
) -> None:
    """Write a pruned network.

    Args:
        path: The file, conventionally ``*.safetensors``.
        network: The slim network.
        keep: The filters it kept, by module path.
        task: The task whose original network it was cut from.
        about: More to store beside it; anything that JSON can say.
    """
    header = {
        "format": FORMAT,
        "task": task.name,
        "keep": {layer: kept.tolist() for layer, kept in keep.items()},
        "about": dict(about or {}),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(tensors, path, {"dsfp_env": json.dumps(header)})


def load_pruned(path: str | Path, task: Task | None = None) -> nn.Module:
    """Read a pruned network, ready to use: on the CPU, in evaluation mode.

    Args:
        path: The file.
        task: The task it was cut from; loaded by its name if not given.

    Raises:
        InputError: If the file is absent, damaged or not one of these, or does not fit the task.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})["dsfp_env"])
            keep = {layer: torch.tensor(kept, dtype=torch.int64) for layer, kept in header["keep"].items()}
        tensors = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not a pruned network that can be read ({type(error).__name__}: {error}): expected a whole "
            "file written by dsfp_env.save_pruned."
        ) from error
    task = task or load_task(header["task"], device="cpu")
    try:
        network = task.graph.slim(copy.deepcopy(task.network).cpu(), keep)
        network.load_state_dict(tensors)
    except (RuntimeError, IndexError, InputError) as error:
        raise InputError(
            f"{path} was cut from task {header['task']!r} and does not fit task {task.name!r}: {error}"
        ) from error
    return network.eval()
