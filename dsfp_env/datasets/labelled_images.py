"""Labelled images as tensors, and their split into train, validation and test.

Rewards come from validation; test is for the one report at the end of a run.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine


class LabelledImages(NamedTuple):
    """One split, resident in memory, or with images that are made when they are asked for; see `on_demand`."""

    images: torch.Tensor  # [N, C, H, W], float32
    labels: torch.Tensor  # [N] int64; or targets of another form: masks [N, H, W] int64, numbers [N, ...] float32

    def to(self, device: torch.device) -> LabelledImages:
        """The same split on a device; images and labels need not be on the same one before.

        Raises:
            Exception: The error of torch for a lack of memory, if there is too little on that device.
        """
        try:
            return LabelledImages(self.images.to(device), self.labels.to(device))
        except (RuntimeError, MemoryError) as error:
            size = f"{len(self.labels)} images of {self.images[0].nbytes / 2**20:.2g} MiB each"
            raise_if_of_the_machine(error, f"bringing {size} to {device}, where all splits stay", "the splits")
            raise

    def some(self, count: int | None) -> LabelledImages:
        """So many images of the split, drawn at random but always the same; all, if no number is given.

        Raises:
            InputError: If there are not as many.
        """
        if count is None:
            return self
        if not 1 <= count <= len(self.labels):
            raise InputError(
                f"{count} images of a split of {len(self.labels)} are asked for: expected at most all."
            )
        chosen = torch.randperm(len(self.labels), generator=torch.Generator().manual_seed(0))[:count]
        return LabelledImages(self.images[chosen], self.labels[chosen])


class Splits(NamedTuple):
    """The three splits of a task."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def digits(seed: int = 0) -> Splits:
    """scikit-learn's 1 797 real handwritten digits (8x8), split 1000 / 400 / 397.

    Pixels are scaled to [0, 1] and then standardised with the training split's mean and deviation.

    Args:
        seed: Which permutation of the images is split.
    """
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(pixels))
    images = torch.from_numpy(pixels[order].reshape(-1, 1, 8, 8) / 16).to(torch.float32)
    labels = torch.from_numpy(classes[order].astype(np.int64))
    mean, deviation = images[:1000].mean(), images[:1000].std()
    images = (images - mean) / deviation
    bounds = (slice(0, 1000), slice(1000, 1400), slice(1400, 1797))
    return Splits(*(LabelledImages(images[part], labels[part]) for part in bounds))


def draw_batches(num_images: int, batch_size: int, num_batches: int, seed: int) -> torch.Tensor:
    """Batches of image indices ``[num_batches, batch_size]``: pass after pass over shuffled images."""
    rng = torch.Generator().manual_seed(seed)
    size = min(batch_size, num_images)
    per_pass = num_images // size
    passes = max(1, -(-num_batches // per_pass))
    order = [torch.randperm(num_images, generator=rng)[: per_pass * size] for _ in range(passes)]
    return torch.cat(order).view(-1, size)[:num_batches]
