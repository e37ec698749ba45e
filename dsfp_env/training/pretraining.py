"""The trained original network of a task: trained once, then kept on disk.

A file in the cache is named by the hash of everything that the weights depend on: the initial weights, the
training images and labels, the recipe, the seed, the code, the release of torch, the device and its threads. So
a stale file is never read, and a network from the cache is bit for bit the one that training would give. A
training that is stopped goes on after its last whole epoch when the same network is asked for again.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import io
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from dsfp_env.common.devices import device_of, processor_name
from dsfp_env.common.errors import InputError, first_line
from dsfp_env.common.files import cache_directory, read_regular
from dsfp_env.common.hashing import hash_of
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.tensor_files import read_tensors, write_tensors
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.training import augmentation, epochs, optimizers
from dsfp_env.training.epochs import Epoch
from dsfp_env.training.recipes import Recipe


def pretrained(
    network: nn.Module,
    train: LabelledImages,
    recipe: Recipe,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
    on_batch: Callable[[float, int], None] | None = None,
) -> nn.Module:
    """The network trained by a recipe, in evaluation mode; from the cache if it was trained before.

    Args:
        network: With the weights to start from; it is left as it is.
        train: The training split; it is brought to the network's device.
        recipe: How to train.
        seed: Chooses the batches, and drives augmentation, and dropout if the network has any.
        on_epoch: Called after every epoch of training.
        on_batch: Called after every batch; see `epochs.train`.
    """
    train = train.to(device_of(network, train.images.device))
    file = cache_directory() / f"{type(network).__name__}-{_key(network, train, recipe, seed)}.safetensors"
    trained = copy.deepcopy(network)
    if _read(file, trained):
        return trained.eval()
    state = file.with_suffix(".training")
    checkpoint = state if recipe.epochs * len(train.labels) > 1_000_000 else None  # a training worth resuming
    epochs.train(trained, train, recipe, seed, on_epoch=on_epoch, on_batch=on_batch, checkpoint=checkpoint)
    if _write(file, trained) and checkpoint:
        state.unlink(missing_ok=True)
    return trained


def load_weights(network: nn.Module, file: str | Path) -> None:
    """Put weights of the user's own into a network.

    Args:
        network: Changed in place.
        file: A state dict: safetensors, or what ``torch.save`` wrote; also one under the key ``state_dict`` or
            ``model``, and with the prefix ``module.`` of data-parallel training.

    Raises:
        InputError: If the file cannot be read, or holds other weights than the network has.
    """
    try:
        content = read_regular(file)
        state = (
            safetensors.torch.load(content)
            if str(file).endswith(".safetensors")
            else torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        )
    except Exception as error:  # whatever a damaged file makes the loaders raise
        raise_if_of_the_machine(error, f"reading {file}", "the network")
        raise InputError(
            f"The weights {str(file)!r} could not be read ({first_line(error)}). Expected a state dict: "
            "*.safetensors, or a "
            "file of torch.save(network.state_dict(), file)."
        ) from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, dict) else state
    _load_state(network, state, str(file))


def load_published(network: nn.Module, name: str, weights: str) -> None:
    """Put weights that torchvision publishes into a network; they are downloaded, with a progress bar.

    Args:
        network: Changed in place.
        name: Of the network, as in `networks.make_network`.
        weights: Of the weights, such as ``"DEFAULT"``.

    Raises:
        InputError: If there are no such weights, they cannot be downloaded, or do not fit.
    """
    import torchvision  # takes seconds

    name = name.removeprefix("torchvision.")
    try:
        state = torchvision.models.get_model(name, weights=weights).state_dict()
    except Exception as error:  # whatever torchvision and the connection raise
        raise_if_of_the_machine(error, f"loading {name}", "the network")
        raise InputError(
            f"There are no weights {weights!r} for {name} ({error}). Expected a file with a suffix such as .pt, "
            "or weights that torchvision publishes for the network, such as 'DEFAULT'."
        ) from error
    _load_state(network, state, weights)


def _key(network: nn.Module, train: LabelledImages, recipe: Recipe, seed: int) -> str:
    device = train.images.device
    machine = torch.__version__, device.type, processor_name(device), torch.get_num_threads()
    facts = (repr(network), recipe, seed, *machine)
    digest = hashlib.sha256(repr(facts).encode())
    for module in (
        type(network).__module__,
        __name__,
        epochs.__name__,
        optimizers.__name__,
        augmentation.__name__,
    ):
        digest.update(inspect.getsource(sys.modules[module]).encode())
    digest.update(hash_of((*network.state_dict().values(), *train)).encode())
    return digest.hexdigest()[:32]


def _read(file: Path, network: nn.Module) -> bool:
    """Load weights into the network, if the file is there and whole."""
    try:
        network.load_state_dict(read_tensors(file))
    except (OSError, RuntimeError, ValueError):  # absent, damaged or foreign: train again
        return False
    return True


def _write(file: Path, network: nn.Module) -> bool:
    """Store weights; without a place to write, say so and go on."""
    try:
        write_tensors(file, network.state_dict())
    except OSError as error:
        warnings.warn(
            f"The trained network could not be kept in {file.parent} ({error}); it will be trained again next "
            "time. Set DSFP_ENV_CACHE to a directory that can be written.",
            stacklevel=2,
        )
        return False
    return True


def _check_numbers(expected: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Refuse what torch would bring into a network in silence: complex numbers, integers for floats, NaN.

    Raises:
        ValueError: For the first of them.
    """
    for name, tensor in state.items():
        if not (isinstance(tensor, torch.Tensor) and isinstance(wanted := expected.get(name), torch.Tensor)):
            continue  # torch says so
        if tensor.is_floating_point() != wanted.is_floating_point() or tensor.is_complex() != wanted.is_complex():
            raise ValueError(f"{name!r} is of {tensor.dtype}, and {wanted.dtype} was expected")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"{name!r} has NaN or infinite numbers")


def _load_state(network: nn.Module, state: Any, came_from: str) -> None:
    try:
        named = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        _check_numbers(network.state_dict(), named)
        network.load_state_dict(named)
    except (RuntimeError, AttributeError, ValueError, TypeError) as error:
        raise_if_of_the_machine(error, f"loading {came_from}", "the network")
        reasons = " ".join(str(error).split())
        raise InputError(
            f"The weights {came_from!r} do not fit {type(network).__name__}: {reasons[:400]}. Expected a state "
            "dict of this very network."
        ) from error
