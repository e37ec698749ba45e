"""Images from disk: sets that are downloaded on request, or a tree of files.

Every set is split into train, validation and test by a seed; validation is taken from the training images, and
never from test. Colour images are standardised with the means and deviations of ImageNet, whatever the set, as
published weights mostly expect.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, CIFAR100, ImageFolder
from torchvision.transforms import v2

from dsfp_env.common.errors import InputError, first_line
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.datasets.decoding import decode_image
from dsfp_env.datasets.labelled_images import LabelledImages, Splits

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, red green blue, pixels in [0, 1]
CIFAR_VALIDATION = 5000  # of the 50,000 training images


def cifar(name: str, root: Path, seed: int = 0, download: bool = False) -> Splits:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009): 45,000 / 5,000 / 10,000 colour images of 32x32 pixels.

    Args:
        name: ``"cifar10"`` or ``"cifar100"``.
        root: The directory of torchvision's files.
        seed: Which training images are the validation split.
        download: Whether to get the files (170 MB) if they are not there.

    Raises:
        InputError: If the files are missing, broken, or cannot be downloaded.
    """
    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        train, test = (kind(root, train=train, download=download) for train in (True, False))
    except Exception as error:  # torchvision raises whatever comes its way
        raise_if_of_the_machine(error, f"reading {kind.__name__}", "the data set")
        what = "could not be downloaded" if download else "is not there, or is broken"
        raise InputError(
            f"{kind.__name__} {what} in {root} ({first_line(error)}). Get it with: python -m dsfp_env.datasets "
            f"{name} "
            f"--data-root {root} (or download=True, or --download), or name the directory that has "
            f"{kind.base_folder} as data_root."
        ) from error
    parts = [
        LabelledImages(torch.from_numpy(part.data).permute(0, 3, 1, 2), torch.tensor(part.targets))
        for part in (train, test)
    ]
    validation, rest = _divided(len(train.data), CIFAR_VALIDATION, seed)
    return Splits(_taken(parts[0], rest), _taken(parts[0], validation), _taken(parts[1]))


def image_tree(path: Path, seed: int = 0, image_size: int | None = None, max_bytes: int = 8 << 30) -> Splits:
    """A tree of image files as ImageNet has it: ``train/CLASS/*`` and ``val/CLASS/*`` or ``test/CLASS/*``.

    The test split is ``test``, or ``val`` if there is no ``test``. The validation split is ``val`` if there are
    both, else a tenth of the training images.

    Args:
        path: The directory that has ``train``.
        seed: Which training images are the validation split, and which images are read if not all.
        image_size: Height and width: of other images, the shorter side is scaled to 8/7 of it, and the middle is
            cut out. Unless given, it is the size of the images if they are square and have one, else 224.
        max_bytes: What the images may take in memory, as float32. Of a larger tree, every split gives a random
            sample of equal proportion; a warning says so.

    Raises:
        InputError: If there is no such tree, an image cannot be read, or train and test have other classes.
    """
    path = Path(path)
    folders = {split: _image_folder(path / split) for split in ("train", "val", "test") if (path / split).is_dir()}
    if "train" not in folders or len(folders) == 1:
        raise InputError(
            f"{path} is no tree of images: expected {path / 'train'}/CLASS/*.jpg and {path / 'test'}/CLASS/*.jpg "
            f"(or val in place of test); there is {', '.join(folders) or 'none of them'}."
        )
    for split, folder in folders.items():
        if folder.classes != folders["train"].classes:
            odd = sorted(set(folder.classes) ^ set(folders["train"].classes))[0]
            raise InputError(f"{path / split} and {path / 'train'} have different classes, among them {odd!r}.")
    test = folders.pop("test", None) or folders.pop("val")
    files = {"test": test.samples, "train": folders["train"].samples}
    first = 0 if "val" in folders else max(1, len(files["train"]) // 10)
    validation, rest = _divided(len(files["train"]), first, seed)
    files["validation"] = folders["val"].samples if "val" in folders else [files["train"][i] for i in validation]
    files["train"] = [files["train"][i] for i in rest]
    size = image_size or _common_size(files["train"]) or 224
    files = _sample(files, size, max_bytes, seed)
    return Splits(*(_read(files[split], size) for split in Splits._fields))


def _image_folder(path: Path) -> ImageFolder:
    try:
        return ImageFolder(str(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no folder of images by class: {error}") from error


def _common_size(samples: Sequence[tuple[str, int]]) -> int | None:
    """Height and width of the images, if the first ones are square and all the same."""
    sizes = {tuple(decode_image(path).shape[1:]) for path, _ in samples[:32]}
    height, width = sizes.pop()
    return height if not sizes and height == width else None


def _sample(
    files: dict[str, list[tuple[str, int]]], size: int, max_bytes: int, seed: int
) -> dict[str, list[tuple[str, int]]]:
    total = sum(map(len, files.values()))
    share = max_bytes / (total * 3 * size**2 * 4)
    if share >= 1:
        return files
    order = np.random.default_rng(seed)
    sampled = {
        split: [samples[i] for i in order.permutation(len(samples))[: max(1, int(share * len(samples)))]]
        for split, samples in files.items()
    }
    counts = ", ".join(f"{len(sampled[split])} of {len(files[split])} {split}" for split in Splits._fields)
    warnings.warn(
        f"All {total} images of {size}x{size} pixels would take more than {max_bytes / 2**30:.0f} GiB: a random "
        f"sample is used ({counts}). Choose a smaller image_size to use more.",
        stacklevel=4,
    )
    return sampled


def _read(samples: Sequence[tuple[str, int]], size: int) -> LabelledImages:
    resize = v2.Compose([v2.Resize(round(size * 8 / 7), antialias=True), v2.CenterCrop(size)])
    decoded = (decode_image(path) for path, _ in samples)
    images = [image if image.shape[1:] == (size, size) else resize(image) for image in decoded]
    return _taken(LabelledImages(torch.stack(images), torch.tensor([label for _, label in samples])))


def _divided(count: int, first: int, seed: int) -> tuple[list[int], list[int]]:
    """Indices of a random part and of the rest, in random order, since sets are often sorted by class."""
    order = np.random.default_rng(seed).permutation(count).tolist()
    return order[:first], order[first:]


def _taken(images: LabelledImages, indices: Sequence[int] | None = None) -> LabelledImages:
    """Some of the images, from bytes ``[N, 3, H, W]`` to standardised floats."""
    pixels, labels = images if indices is None else (images.images[indices], images.labels[indices])
    standardise = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION, inplace=True)])
    return LabelledImages(standardise(pixels.contiguous()), labels.to(torch.int64))
