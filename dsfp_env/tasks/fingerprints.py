"""What an evaluation depends on, as a hash: the key under which its outcome is kept on disk.

As with the trained networks (`pretraining`), the key is made of contents, never of names or dates, so an outcome
that is out of date is never found. What the kept filters were chosen by (the criterion, the ratios) is no part of
it: equal filters are an equal question, whoever asks.
"""

from __future__ import annotations

import hashlib
import inspect
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from dsfp_env.common.devices import device_name, threads_set
from dsfp_env.common.hashing import hash_of
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.tasks.sources import described
from dsfp_env.training.distillation import Fidelity
from dsfp_env.training.objectives import Objective

# The files that an evaluation runs through; a test follows one and compares.
SOURCES = (
    "training/accuracy.py",
    "training/adamw.py",
    "training/metrics.py",
    "training/objectives.py",
    "tasks/sources.py",
    "speed/batch_norm.c",
    "channels/graph.py",
    "speed/compiled_norms.py",
    "channels/coupling.py",
    "channels/cutting.py",
    "datasets/labelled_images.py",
    "datasets/on_demand.py",
    "common/devices.py",
    "common/repeatable.py",
    "common/forwards.py",
    "common/random_numbers.py",
    "training/distillation.py",
    "training/teacher.py",
    "evaluation/measurement.py",
    "speed/folding.py",
    "speed/hastened.py",
    "speed/layout.py",
    "channels/layers.py",
    "channels/lent.py",
    "speed/norm_kernel.py",
    "speed/precision.py",
    "speed/weight_gradients.py",
    "tasks/task.py",
    "channels/tracing.py",
    "channels/verification.py",
)


def _our_code() -> str:
    """Hash of the modules, as they are when this one is imported."""
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update(pkgutil.get_data("dsfp_env", name) or b"")
    return digest.hexdigest()


_OUR_CODE = _our_code()


def code_of(package: str) -> str:
    """Hash of all sources of an installed package, by their names and contents.

    Args:
        package: The name of one that is imported.
    """
    digest, folder = hashlib.sha256(), Path(str(sys.modules[package].__file__)).parent
    for file in sorted(path for kind in ("*.py", "*.c") for path in folder.rglob(kind)):
        digest.update(f"{file.relative_to(folder).as_posix()} ".encode() + file.read_bytes())
    return digest.hexdigest()


def fingerprint(
    network: nn.Module, train: LabelledImages, validation: LabelledImages, objective: Objective | None = None
) -> str | None:
    """Hash of a network, its data and what is learned; None if a source cannot be found, as for one of a notebook.

    Args:
        network: Its weights, buffers and structure, the source of the modules that define its classes (torch's
            own excepted), and what it answers to a few images.
        train: Images and labels.
        validation: Images and labels.
        objective: The loss, the distillation and the metric; that of classification unless given.
    """
    try:
        sources = _sources(network)
        learned = described(objective or Objective())
    except (OSError, TypeError, KeyError, SyntaxError):  # of `inspect`, as for a notebook
        return None
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    shown = [(name, t.shape, t.dtype, t.requires_grad) for name, t in tensors.items()]
    digest = hashlib.sha256(repr((repr(network), shown, sources, learned)).encode())
    with torch.inference_mode(), threads_set(1):
        answer = network(train.images[:8])  # sees functions that the classes use, and settings they do not show
    digest.update(hash_of((*tensors.values(), answer, *train, *validation)).encode())
    return digest.hexdigest()


def evaluation_key(
    task: str | None,
    kept: Sequence[bytes],
    fidelity: Fidelity,
    seed: int,
    device: torch.device,
    processor: str | None = None,
) -> str:
    """Hash of everything that the accuracy depends on, as 64 characters.

    Args:
        task: Its `fingerprint`.
        kept: Which filters stay, of every prunable layer; see `measurement.Question`.
        fidelity: The work of the evaluation, with its number of threads.
        seed: Of the fine-tuning.
        device: Where it is done.
        processor: What that is, as `device_name` says; that of this machine unless given.
    """
    numerics = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    machine = torch.__version__, device.type, processor or device_name(device), numerics
    return hashlib.sha256(repr((_OUR_CODE, task, kept, fidelity, seed, machine)).encode()).hexdigest()


def _sources(network: nn.Module) -> Mapping[str, str]:
    """Module name -> source, of all modules that define classes of the network."""
    classes = {cls for module in network.modules() for cls in type(module).__mro__}
    own = [cls for cls in classes if cls.__module__.partition(".")[0] not in ("torch", "builtins")]
    for cls in own:
        inspect.getsource(cls)  # a module's file need not hold a class that says it is of the module
    return {name: inspect.getsource(sys.modules[name]) for name in sorted({cls.__module__ for cls in own})}
