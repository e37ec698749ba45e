"""How networks are trained: named settings, those of the papers and fast ones.

DSFP (arXiv 2509.05446, section IV-A) names SGD with momentum 0.9 and weight decay 5e-4, cosine annealing with warm
restarts (T0 = 50 epochs, T_mult = 2), gradient accumulation over four mini-batches, mixed precision, and mixup for
the original network; AdamW at 1e-4 with restarts (10, 2) for 300 epochs of distillation. It leaves open: the
learning rate of the original network (0.001 is "for standard fine-tuning") and its epochs, the batch size, the
mixup parameter, and the usual shifts and mirror images of CIFAR. What is chosen here for these is marked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from dsfp_env.common.choices import choose, parse_call
from dsfp_env.common.errors import InputError, shortened
from dsfp_env.common.ranges import Batch, Count, NotNegative, Positive, ShareBelowOne, WholeNumber, check_fields
from dsfp_env.speed.precision import PRECISIONS

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("one_cycle", "warm_restarts", "steps")
_LARGEST_SHIFT = 4  # pixels: what is usual for CIFAR, an eighth of its width


@dataclass(frozen=True)
class Recipe:
    """How a network is trained on images in memory.

    Raises:
        InputError: If a value is out of its range.
    """

    epochs: Count = 30
    batch_size: Batch = 64
    optimizer: str = "adamw"  # or "sgd": momentum 0.9
    nesterov: bool = False  # of "sgd"
    learning_rate: Positive = 1e-2  # the highest
    weight_decay: NotNegative = 5e-4
    schedule: str = "one_cycle"  # "warm_restarts": cosines to 0; "steps": a tenth at 1/2 and at 3/4 of the epochs
    first_cycle: Count = 50  # T0 of the warm restarts, epochs
    cycle_growth: Count = 2  # T_mult of the warm restarts
    label_smoothing: ShareBelowOne = 0.1
    mixup: NotNegative = 0.0  # parameter of the Beta distribution; 0: none
    accumulate: Count = 1  # batches to an update
    precision: str = "float32"  # one of `precision.PRECISIONS`; "auto" is what is fastest on the device
    channels_last: bool = False
    shift: WholeNumber | None = 0  # pixels, in every direction; None: an eighth of the width, but 4 at most
    flip: bool | None = False  # mirror images; None: where they are like the images

    def __post_init__(self) -> None:
        choose("optimizer", self.optimizer, dict.fromkeys(OPTIMIZERS))
        choose("schedule", self.schedule, dict.fromkeys(SCHEDULES))
        choose("precision", self.precision, dict.fromkeys(PRECISIONS))
        check_fields(self)


def suited(recipe: Recipe, width: int, flips: bool) -> Recipe:
    """A recipe whose shifts and mirror images suit the images, where it does not say them.

    Args:
        recipe: What it says itself stays.
        width: Of the images, in pixels; 0, if they must not be moved.
        flips: Whether their mirror images are like them: those of animals are, those of digits are not.
    """
    shift = min(_LARGEST_SHIFT, width // 8) if recipe.shift is None else recipe.shift
    return replace(recipe, shift=shift, flip=flips if recipe.flip is None else recipe.flip)


def recipe_from(text: str, named: Mapping[str, Recipe]) -> Recipe:
    """A recipe by name, with changes if there are any, as in ``"fast(epochs=10)"``.

    Raises:
        InputError: If the name or a field is unknown, or a value is out of its range.
    """
    name, changes = parse_call("recipe", text)
    recipe: Recipe = choose("recipe", name, named)
    kinds = {field.name: type(getattr(recipe, field.name)) for field in fields(recipe)}
    kinds |= {"shift": int, "flip": bool}  # where they are None
    for field, value in changes.items():
        expected = choose("field of a recipe", field, kinds)
        if not isinstance(value, (int, float) if expected is float else expected):
            raise InputError(f"Recipe.{field} is {shortened(value)}: expected a {expected.__name__}.")
    return replace(recipe, **changes)


# Batch size, shifts and mirror images are chosen, the paper does not give them; see `suited`.
VARIED = Recipe(batch_size=128, precision="auto", channels_last=True, shift=None, flip=None)

PRETRAINING: dict[str, Recipe] = {
    "digits": Recipe(),
    "fast": replace(VARIED, epochs=20, optimizer="sgd", nesterov=True, learning_rate=0.05),
    "paper": replace(
        VARIED,
        epochs=350,  # chosen: three whole cycles, 50 + 100 + 200
        optimizer="sgd",
        learning_rate=0.05,  # chosen
        schedule="warm_restarts",
        label_smoothing=0.0,
        mixup=0.2,  # chosen
        accumulate=4,
    ),
}

FINE_TUNING: dict[str, Recipe] = {
    "plain": Recipe(
        learning_rate=3e-3, weight_decay=0.01
    ),  # for images that no shift or mirror leaves what they are
    "short": replace(VARIED, epochs=10, learning_rate=1e-3, weight_decay=0.01),
    "paper": replace(
        VARIED,
        epochs=300,
        learning_rate=1e-4,
        weight_decay=0.01,  # chosen: AdamW's default
        schedule="warm_restarts",
        first_cycle=10,
    ),
}
