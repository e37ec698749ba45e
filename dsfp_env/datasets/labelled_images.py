"""Labelled images as tensors, and their split into train, validation and test.

Rewards come from validation; test is for the one report at the end of a run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine


class LabelledImages(NamedTuple):
    """One split, resident in memory."""

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


class Splits(NamedTuple):
    """The three splits of a task."""

    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def as_labelled_images(data: Any, split: str) -> LabelledImages:
    """Bring a split of the user's own into memory.

    The images come in a random order, always the same: data sets are often sorted by class, and the first images
    of a split must be like all of it.

    Args:
        data: A pair of tensors ``(images [N, ...], labels [N])``, or a map-style torch ``Dataset`` of
            ``(image tensor, int label)`` pairs. In place of labels there may be masks ``[N, H, W]`` of integers,
            or numbers ``[N, ...]`` of floats. They are brought to the device of the images.
        split: The name of the split, for messages.

    Raises:
        InputError: If it is neither, is empty, holds non-finite images, or the lengths differ.
    """
    ours = isinstance(data, LabelledImages)
    if isinstance(data, Dataset):
        data = _read_dataset(data, split)
    if not (isinstance(data, (tuple, list)) and len(data) == 2 and all(map(torch.is_tensor, data))):
        raise InputError(
            f"The {split} split is a {type(data).__name__}: expected a torch Dataset of (image tensor, label) "
            "pairs or a pair of tensors (images [N, C, H, W], labels [N])."
        )
    images, labels = data
    if len(images) == 0 or labels.shape[:1] != images.shape[:1] or labels.is_complex():
        raise InputError(
            f"The {split} split has images of shape {tuple(images.shape)} and {labels.dtype} labels of shape "
            f"{tuple(labels.shape)}: expected images [N, C, H, W] and integer labels [N] with N > 0 (or masks "
            "[N, H, W], or numbers [N, ...])."
        )
    kind = torch.float32 if labels.is_floating_point() else torch.int64
    images, labels = images.to(torch.float32), labels.to(images.device, kind)
    if not torch.isfinite(images).all():
        raise InputError(f"The {split} split has NaN or infinite pixels: remove or repair those images.")
    if labels.is_floating_point() and not torch.isfinite(labels).all():
        raise InputError(f"The {split} split has NaN or infinite targets: remove or repair those images.")
    if ours:  # in random order already
        return LabelledImages(images, labels)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(images.device)
    return LabelledImages(images[order], labels[order])


def _read_dataset(dataset: Dataset, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        batches = list(DataLoader(dataset, batch_size=256))
        return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise_if_of_the_machine(error, f"reading the {split} dataset", "the data set or its images")
        raise InputError(
            f"The {split} dataset could not be read into tensors ({error}): expected items (image tensor, int "
            "label), all images of one size; add a transform such as torchvision.transforms.v2.ToImage()."
        ) from error


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
