"""What a command says about its task: a part of its settings, that can be read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError

if TYPE_CHECKING:
    from dsfp_env.tasks.task import Task


@dataclass(frozen=True, kw_only=True)
class LayerOptions:
    """What a command says about who decides for which layers; the settings of a command inherit it."""

    layers: str | None = None
    """Layers that are left alone, bounded or of one ratio, by agent, module path or pattern, for example
    'first=keep, conv_2=20-60, features.*=30'; first and last are words."""
    tie: str | None = None
    """Layers with one agent, for example 'conv_1+conv_2, blocks.*'."""
    agents_per: str = "layer"
    """layer, or set: one agent for layers that are coupled, as the sides of a residual sum are."""

    def check_layers(self) -> None:
        """Refuse what cannot be read, whatever the network.

        Raises:
            InputError: If something cannot.
        """
        from dsfp_env.tasks.layer_control import AGENTS_PER, parse_layers, parse_tie

        if self.layers is not None:
            parse_layers(self.layers)
        if self.tie is not None:
            parse_tie(self.tie)
        choose("agents_per", self.agents_per, dict.fromkeys(AGENTS_PER))

    def controlled(self, task: Task) -> Task:
        """A task with the agents that were asked for; raises as its `with_layers`."""
        return task.with_layers(**self.controls()) if self.controls() else task

    def controls(self) -> dict[str, Any]:
        """What was said of layers and their agents."""
        said = {"layers": self.layers, "tie": self.tie, "agents_per": self.agents_per}
        return {name: value for name, value in said.items() if value != getattr(type(self), name)}


@dataclass(frozen=True, kw_only=True)
class TaskOptions(LayerOptions):
    """What a command says about its task; the settings of a command inherit it."""

    task: str = "digits"
    """Network and data: digits; cifar10-NETWORK or cifar100-NETWORK, for example cifar10-vgg16-bn;
    imagefolder:PATH, a tree of images (train/CLASS/*, test/CLASS/*); or package.module:function that returns a
    dsfp_env.Task."""
    task_seed: int | None = None
    """Splits the data and trains the original network; unless given the seed of the run, or 0 if that has none."""
    data_root: str | None = None
    """Where downloaded data sets lie; a directory in the user's cache unless given (digits needs none)."""
    download: bool = False
    """Download the data set if it is not there."""
    network: str | None = None
    """Of an image folder: a network of dsfp_env.networks or of torchvision; resnet18 unless given."""
    image_size: int | None = None
    """Of an image folder: height and width to scale and cut images to."""
    weights: str | None = None
    """A file with the trained original network, or torchvision's own: DEFAULT. Else it is trained here."""
    recipe: str | None = None
    """How the original network is trained: fast, paper, or with changes: 'fast(epochs=10)'. With --weights,
    training goes on from them, and there is none unless this is given."""

    def given(self) -> dict[str, Any]:
        """Those options of `load_task` that were said."""
        names = ("network", "image_size", "weights", "recipe", "download")
        return {name: value for name in names if (value := getattr(self, name)) is not None and value is not False}

    def seed_of_task(self, seed: int = 0) -> int:
        """The seed of the task that was said, or else that of the run."""
        return seed if self.task_seed is None else self.task_seed

    def check(self) -> None:
        """Refuse what can be told to be wrong before anything is loaded.

        Raises:
            InputError: If something is.
        """
        from dsfp_env.tasks.loading import check_task  # imports torch

        check_task(self.task, self.given())
        self.check_layers()

    def load(self, device: str = "auto", seed: int = 0) -> Task:
        """The task. For the arguments and what is raised see `load_task`."""
        from dsfp_env.tasks.loading import load_task

        task = load_task(self.task, self.data_root, device, self.seed_of_task(seed), **self.given())
        return self.controlled(task)


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """What a command says about how many images a task is judged by; the settings of a command inherit it."""

    validation_images: int | None = None
    """So many of the validation images, drawn at random; all unless given."""
    test_images: int | None = None
    """So many of the test images, drawn at random; all unless given."""

    def check_splits(self) -> None:
        """Refuse numbers that cannot be used.

        Raises:
            InputError: If one is below 1.
        """
        for name in ("validation_images", "test_images"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise InputError(f"--{name.replace('_', '-')} is {count}: expected 1 or more.")

    def fewer(self, task: Task) -> Task:
        """A task that is judged by so many images, always the same; itself, if nothing was said.

        Raises:
            InputError: If it has not as many.
        """
        if (self.validation_images, self.test_images) == (None, None):
            return task
        validation, test = task.validation.some(self.validation_images), task.test.some(self.test_images)
        return replace(task, validation=validation, test=test)
