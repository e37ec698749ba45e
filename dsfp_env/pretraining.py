"""The trained original network of a task: trained once, then kept on disk.

A file in the cache is named by the hash of everything that the weights depend on: the initial weights, the
training images and labels, the recipe, the seed, the code, the release of torch, the device and its threads. So
a stale file is never read, and a network from the cache is bit for bit the one that training would give.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import safetensors
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env.data import LabelledImages
from dsfp_env.distillation import draw_batches


@dataclass(frozen=True)
class Recipe:
    """AdamW with a one-cycle learning rate, on the cross entropy."""

    epochs: int = 30
    batch_size: int = 64
    max_learning_rate: float = 1e-2
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1


def pretrained(network: nn.Module, train: LabelledImages, recipe: Recipe, seed: int) -> nn.Module:
    """The network trained by a recipe, in evaluation mode; from the cache if it was trained before.

    Args:
        network: With the weights to start from; it is left as it is.
        train: The training split, on the network's device.
        recipe: How to train.
        seed: Chooses the batches, and drives dropout if the network has any.
    """
    file = cache_directory() / f"{type(network).__name__}-{_key(network, train, recipe, seed)}.safetensors"
    trained = copy.deepcopy(network)
    if _read(file, trained):
        return trained.eval()
    pretrain(trained, train, recipe, seed)
    _write(file, trained)
    return trained


def pretrain(network: nn.Module, train: LabelledImages, recipe: Recipe, seed: int) -> None:
    """Train a network in place; it ends in evaluation mode. Arguments as for `pretrained`."""
    per_epoch = max(1, len(train.labels) // recipe.batch_size)
    steps = recipe.epochs * per_epoch
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=recipe.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.max_learning_rate, total_steps=steps)
    cuda = [train.images.device] if train.images.is_cuda else []
    network.train()
    with torch.random.fork_rng(cuda):
        torch.manual_seed(seed)
        for indices in draw_batches(len(train.labels), recipe.batch_size, steps, seed).to(train.labels.device):
            logits = network(train.images[indices])
            loss = F.cross_entropy(logits, train.labels[indices], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()


def cache_directory() -> Path:
    """Where trained networks are kept: ``$DSFP_ENV_CACHE``, or the user's cache directory."""
    return Path(os.environ.get("DSFP_ENV_CACHE") or platformdirs.user_cache_path("dsfp_env"))


def _key(network: nn.Module, train: LabelledImages, recipe: Recipe, seed: int) -> str:
    device = train.images.device
    on_gpu = device.type == "cuda"
    machine = torch.cuda.get_device_name(device) if on_gpu else torch.backends.cpu.get_cpu_capability()
    facts = (repr(network), recipe, seed, torch.__version__, device.type, machine, torch.get_num_threads())
    digest = hashlib.sha256(repr(facts).encode())
    for module in (type(network).__module__, __name__, draw_batches.__module__):
        digest.update(inspect.getsource(sys.modules[module]).encode())
    for tensor in (*network.state_dict().values(), *train):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def _read(file: Path, network: nn.Module) -> bool:
    """Load weights into the network, if the file is there and whole."""
    try:
        network.load_state_dict(safetensors.torch.load_file(file))
    except (OSError, RuntimeError, safetensors.SafetensorError):  # absent, cut short or foreign: train again
        return False
    return True


def _write(file: Path, network: nn.Module) -> None:
    """Store weights at once or not at all; without a place to write, say so and go on."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            part.write(safetensors.torch.save({k: v.contiguous() for k, v in network.state_dict().items()}))
        os.replace(part.name, file)
    except OSError as error:
        warnings.warn(
            f"The trained network could not be kept in {file.parent} ({error}); it will be trained again next "
            "time. Set DSFP_ENV_CACHE to a directory that can be written.",
            stacklevel=2,
        )
