"""A family of tasks: scikit-learn's handwritten digits, and networks of other depths, widths and kernels.

Each is a task by name, as in ``load_task("dsfp_env.tasks.digits_family:six_narrow")``, with the recipe and the
evaluation of ``"digits"``; the seed splits the data and trains the network. Small enough to measure every joint
action: `dsfp_env.suite` has their tables.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from dsfp_env.common.devices import choose_device
from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.datasets.labelled_images import digits
from dsfp_env.networks.digits_family import DigitsRelative
from dsfp_env.networks.plain import POOL, Widths
from dsfp_env.tasks.task import Task
from dsfp_env.training.distillation import Fidelity
from dsfp_env.training.pretraining import pretrained
from dsfp_env.training.recipes import PRETRAINING
from dsfp_env.training.shown import Shown

FIDELITY = Fidelity(batch_size=64, learning_rate=6e-3, precision="float32", threads=1)  # as that of "digits"


def _relative(
    name: str,
    widths: Widths,
    data_root: str | Path | None,
    device: str,
    seed: int,
    *,
    kernel_size: int = 3,
    norm: bool = True,
) -> Task:
    """One of the family, trained."""
    splits, on = digits(seed), choose_device(device)
    with own_random_numbers(torch.device("cpu"), seed):
        network = DigitsRelative(widths, kernel_size, norm).to(on)
    on_epoch = Shown(f"training the original network of {name}")
    trained = pretrained(network, splits.train.to(on), PRETRAINING["digits"], seed, on_epoch)
    return Task.from_network(trained, *splits, name=name, device=str(on), fidelity=FIDELITY, flips=False)


three_narrow = partial(_relative, "digits-three-narrow", (8, POOL, 16, 32))
three_wide = partial(_relative, "digits-three-wide", (24, POOL, 32, 48))
four_narrow = partial(_relative, "digits-four-narrow", (8, 16, POOL, 16, 32))
four_flat = partial(_relative, "digits-four-flat", (16, 16, POOL, 16, 16))
four_plain = partial(_relative, "digits-four-plain", (12, 24, POOL, 24, 48), norm=False)
four_kernel5 = partial(_relative, "digits-four-kernel5", (8, 16, POOL, 16, 32), kernel_size=5)
four_wide = partial(_relative, "digits-four-wide", (24, 48, POOL, 48, 96))
five = partial(_relative, "digits-five", (12, 12, POOL, 24, 24, 48))
five_falling = partial(_relative, "digits-five-falling", (24, 24, POOL, 16, 12, 12))
five_kernel5 = partial(_relative, "digits-five-kernel5", (8, 8, POOL, 16, 16, 32), kernel_size=5)
six_narrow = partial(_relative, "digits-six-narrow", (8, 8, POOL, 16, 16, POOL, 32, 32))
