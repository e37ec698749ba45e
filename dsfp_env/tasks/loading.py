"""Tasks by name: which data, which network, and how that is trained or where its weights come from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsfp_env.common.choices import choose
from dsfp_env.common.devices import choose_device
from dsfp_env.common.errors import InputError, first_line, shortened
from dsfp_env.common.files import check_regular, data_directory
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.random_numbers import check_seed, own_random_numbers
from dsfp_env.datasets.labelled_images import Splits, digits
from dsfp_env.networks import check_network, make_network
from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity
from dsfp_env.training.pretraining import load_published, load_weights, pretrained
from dsfp_env.training.recipes import PRETRAINING, Recipe, recipe_from, suited
from dsfp_env.training.shown import Shown

_LARGEST_IMAGE = 4096
NAMES = ("digits", "cifar10-NETWORK", "cifar100-NETWORK", "imagefolder:PATH")

Data = tuple[Splits, int]  # and the number of classes


@dataclass(frozen=True)
class _NamedTask:
    """What a name and its options say."""

    read: Callable[[Path | None, int], Data]  # of (data_root, seed)
    network: str
    weights: str | None  # to start from, or to stay with
    recipe: Recipe | None  # of training, if there is any
    flips: bool  # whether mirror images are like the images
    fidelity: Fidelity | None  # of an evaluation, if not the default of the network


class BegunTask:
    """A task whose original network is not trained yet: what `load_task` goes through, for who wants to look.

    Attributes:
        network: Untrained, or with the weights that training goes on from.
        splits: Of the data; not yet on the device.
        recipe: How it will be trained; None if weights were given, and no recipe.
    """

    def __init__(
        self, name: str, said: _NamedTask, data_root: Path | None, device: torch.device, seed: int
    ) -> None:
        self._name, self._said, self._device, self._seed = name, said, device, seed
        self.splits, self._num_classes = said.read(data_root, seed)
        with own_random_numbers(torch.device("cpu"), seed):
            self.network = make_network(said.network, self._num_classes).to(device, torch.float32)
        if said.weights and Path(said.weights).suffix:
            load_weights(self.network, said.weights)
        elif said.weights:
            load_published(self.network, said.network, said.weights)
        width = self.splits.train.images.shape[-1]
        self.recipe = None if said.recipe is None else suited(said.recipe, width, said.flips)

    def untrained(self) -> Task:
        """The task with the network as it is."""
        return self._with(self.network)

    def trained(self) -> Task:
        """The task, its network trained, or taken from the cache; how far that is is shown."""
        if self.recipe is None:
            return self._with(self.network)
        shown = Shown(f"training the original network of {self._name}")
        train = self.splits.train.to(self._device)
        return self._with(pretrained(self.network, train, self.recipe, self._seed, shown, shown.batch))

    def _with(self, network: nn.Module) -> Task:
        said = self._said
        return Task.from_network(
            network,
            *self.splits,
            name=self._name,
            device=str(self._device),
            fidelity=said.fidelity,
            architecture=(said.network, self._num_classes),
            flips=said.flips,
        )


def load_task(
    name: str | Task = "digits",
    data_root: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    *,
    network: str | None = None,
    weights: str | None = None,
    recipe: str | None = None,
    download: bool = False,
    image_size: int | None = None,
) -> Task:
    """A task by name; a `Task` is returned as it is.

    Args:
        name: ``"digits"``; ``"cifar10-NETWORK"`` or ``"cifar100-NETWORK"``, for example ``"cifar10-vgg16-bn"``;
            ``"imagefolder:PATH"``, a tree of images as ImageNet has it (`datasets.image_tree`); or
            ``"package.module:function"``, a function of your own with the parameters ``(data_root, device, seed)``
            that returns a `Task`. For networks see `networks.make_network`.
        data_root: Where downloaded data sets lie; a directory in the user's cache unless given.
        device: ``"auto"`` (a GPU if there is one), ``"cpu"``, ``"cuda"``, ...
        seed: Splits the data and trains the original network.
        network: Of an image tree (``"resnet18"`` unless given).
        weights: A file with a state dict of the trained network, or the name of torchvision's own weights, such as
            ``"DEFAULT"``. A network that was trained elsewhere may have seen the validation images: rewards are
            then too good, the test accuracy is not.
        recipe: How the original network is trained: ``"fast"``, ``"paper"``, or either with changes, as in
            ``"fast(epochs=10)"``; see `recipes.PRETRAINING`. With weights, training goes on from them, and there
            is none unless a recipe is given; without, it is ``"fast"``.
        download: Whether to download the data set if it is not there.
        image_size: Of an image tree; see `datasets.image_tree`.

    Raises:
        InputError: If something is unknown, missing, broken, or does not fit together.
    """
    check_seed(seed, "The seed of the task")
    if isinstance(name, Task):
        return name
    options = {
        "network": network,
        "weights": weights,
        "recipe": recipe,
        "download": download or None,
        "image_size": image_size,
    }
    given = tuple((option, value) for option, value in options.items() if value is not None)
    check_task(name, dict(given))
    return _load(name, _checked_root(data_root), str(choose_device(device)), seed, given)


def begin_task(
    name: str, data_root: str | Path | None = None, device: str = "auto", seed: int = 0, **options: Any
) -> BegunTask:
    """As `load_task`, up to the training of the original network.

    Raises:
        InputError: Also if the name is that of a function, which gives a task as a whole.
    """
    check_seed(seed, "The seed of the task")
    said = _parse(name, options)
    if not isinstance(said, _NamedTask):
        raise InputError(f"The task {name!r} is made by a function as a whole: expected one by name.")
    root = _checked_root(data_root)
    return BegunTask(name, said, Path(root) if root else None, choose_device(device), seed)


def _checked_root(data_root: Any) -> str | Path | None:
    if data_root is not None and (not isinstance(data_root, (str, Path)) or not str(data_root)):
        raise InputError(f"The data root is {shortened(data_root)}: expected a directory, or None.")
    return data_root


def check_task(name: str, options: Mapping[str, Any] | None = None) -> None:
    """Refuse what `load_task` cannot load, as far as that can be told without loading it.

    Raises:
        InputError: If the name or an option is unknown, or they do not fit together.
    """
    _parse(name, options or {})


@lru_cache(maxsize=8)
def _load(
    name: str, data_root: str | Path | None, device: str, seed: int, options: tuple[tuple[str, Any], ...]
) -> Task:
    parsed = _parse(name, dict(options))
    if isinstance(parsed, _NamedTask):
        root = Path(data_root) if data_root else None
        return BegunTask(name, parsed, root, torch.device(device), seed).trained()
    try:
        task = parsed(data_root, device, seed)
    except InputError:
        raise
    except Exception as error:  # whatever the function raises
        raise_if_of_the_machine(error, f"making the task {name!r}", "what it needs")
        raise InputError(
            f"The task {name!r} failed ({type(error).__name__}: {error}): expected a function of "
            "(data_root, device, seed) that gives a dsfp_env.Task."
        ) from error
    if not isinstance(task, Task):
        raise InputError(f"The task {name!r} gave a {type(task).__name__}: expected a dsfp_env.Task.")
    return task


def _parse(name: str, options: Mapping[str, Any]) -> _NamedTask | Callable[[str | Path | None, str, int], Any]:
    """What a name says, or the function that makes one of the user's own."""
    if not isinstance(name, str):
        raise InputError(f"The task is {shortened(name)}: expected a name such as {', '.join(NAMES)}.")
    kind, colon, path = name.partition(":")
    data, _, network = name.partition("-")
    recipe, fidelity = "fast", None
    read: Callable[[Path | None, int], Data]
    if kind == "imagefolder" and path:
        _check_options(name, options, "network", "image_size", "weights", "recipe")
        network = options.get("network", "resnet18")
        size = options.get("image_size")
        if size is not None and not (isinstance(size, int) and 1 <= size <= _LARGEST_IMAGE):
            raise InputError(f"The image size is {shortened(size)}: expected pixels, from 1 to {_LARGEST_IMAGE}.")
        if not os.path.isdir(os.path.join(path, "train")):  # never raises
            raise InputError(
                f"{shortened(path)} is no tree of images: expected {path}/train/CLASS/*.jpg and more."
            )
        read = partial(_read_tree, Path(path), options.get("image_size"))
    elif data in ("cifar10", "cifar100") and network and not colon:
        _check_options(name, options, "weights", "recipe", "download")
        read = partial(_read_cifar, data, options.get("download", False))
    elif name == "digits":
        _check_options(name, options, "weights", "recipe")
        network, recipe, read = "digits_net", "digits", _read_digits
        fidelity = Fidelity(batch_size=64, learning_rate=6e-3, precision="float32", threads=1)
    else:
        function = choose("task", name, dict.fromkeys(NAMES), importable=True)
        _check_options(name, options)
        if not callable(function):
            raise InputError(
                f"The task {name!r} is of type {type(function).__name__}: expected a function of "
                "(data_root, device, seed) that gives a dsfp_env.Task."
            )
        return function
    check_network(network)
    weights = _checked_weights(options.get("weights"))
    chosen = options.get("recipe", None if weights else recipe)
    made = None if chosen is None else recipe_from(chosen, PRETRAINING)
    return _NamedTask(read, network, weights, made, name != "digits", fidelity)


def _checked_weights(weights: Any) -> str | None:
    """Weights that there may be: a file that is there, or a name."""
    if weights is None:
        return None
    if not isinstance(weights, (str, Path)) or not str(weights).strip():
        raise InputError(f"The weights are {shortened(weights)}: expected a file, or a name such as 'DEFAULT'.")
    if Path(weights).suffix:
        try:
            check_regular(weights)
        except (OSError, ValueError) as error:
            raise InputError(
                f"The weights {shortened(str(weights))} could not be read ({first_line(error)}). Expected a state "
                "dict: *.safetensors, or a file of torch.save(network.state_dict(), file)."
            ) from error
    return str(weights)


def _check_options(name: str, options: Mapping[str, Any], *known: str) -> None:
    if unknown := options.keys() - set(known):
        takes = ", ".join(known) or "none"
        raise InputError(f"The task {name!r} takes no option {min(unknown)!r}: it takes {takes}.")


def _read_digits(data_root: Path | None, seed: int) -> Data:
    return digits(seed), 10


def _read_cifar(kind: str, download: bool, data_root: Path | None, seed: int) -> Data:
    from dsfp_env.datasets.on_disk import cifar  # imports torchvision, which takes seconds

    return cifar(kind, data_root or data_directory(), seed, download), int(kind.removeprefix("cifar"))


def _read_tree(path: Path, image_size: int | None, data_root: Path | None, seed: int) -> Data:
    from dsfp_env.datasets.on_disk import image_tree

    splits = image_tree(path, seed, image_size)
    return splits, sum(one.is_dir() for one in (path / "train").iterdir())
