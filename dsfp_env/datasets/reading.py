"""A split of the user's own, as it comes: tensors, a data set, a loader, or anything that gives batches.

What fits becomes tensors on the device. Of what is free, splits may take a share: images that would take more, as
float32, stay where they are and are made when they are asked for (`on_demand`): those of a tensor in host memory,
those of a data set in host memory too if they are bytes and fit there as such, else on disk. Targets are always in
memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from dsfp_env.common.errors import InputError, first_line
from dsfp_env.common.hashing import bytes_of
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.memory import free_memory
from dsfp_env.common.saying import remark
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.datasets.on_demand import OnDemand, Transform, as_floats, digest_of, in_batches

_COPIES = 2  # of images, at the moment when they are put together


def read_split(
    data: Any,
    split: str,
    device: torch.device | None = None,
    *,
    transform: Transform | None = None,
    memory_share: float = 0.5,
    workers: int = 0,
) -> LabelledImages:
    """Bring a split of the user's own to a device, or make it ready to be brought there batch by batch.

    The images come in a random order, always the same: data sets are often sorted by class, and the first images
    of a split must be like all of it.

    Args:
        data: A pair of tensors ``(images [N, ...], labels [N])``; a map-style torch ``Dataset`` of pairs
            ``(image tensor, int label)``, or a ``DataLoader`` of one; or an iterable of such pairs or of batches
            of them, which is read into memory. In place of labels there may be masks ``[N, H, W]`` of integers, or
            numbers ``[N, ...]`` of floats.
        split: The name of the split, for messages.
        device: Where images and targets are brought; where they are, unless given.
        transform: Of a batch of images as they come; makes them what the network takes. It must not be random.
        memory_share: Of the memory that is free, on the device and for this process, the share that this split may
            take.
        workers: Processes that read a data set.

    Raises:
        InputError: If it is none of these, is empty, holds non-finite images, or the lengths differ.
    """
    if not 0 < memory_share < 1:
        raise InputError(f"memory_share is {memory_share}: expected a share of the free memory in (0, 1).")
    if isinstance(data, LabelledImages):  # in random order already
        return _ours(data, split, device)
    if isinstance(data, DataLoader) and _is_plain(data):
        data, workers = data.dataset, max(workers, data.num_workers)
    if isinstance(data, IterableDataset):
        data = DataLoader(data, batch_size=256)
    if isinstance(data, Dataset):
        return _of_a_dataset(data, split, device, transform, memory_share, workers)
    if not _is_pair(data):
        data = _of_an_iterable(data, split)
    images, targets = data
    _check(images, targets, split)
    return _settled(images, targets, split, device, transform, memory_share)


def _ours(data: LabelledImages, split: str, device: torch.device | None) -> LabelledImages:
    """A split of another task, or of a named data set."""
    images, targets = data
    _check(images, targets, split)
    if isinstance(images, torch.Tensor):
        images = images.to(torch.float32)
        if not torch.isfinite(images).all():
            raise _not_finite(split)
    return LabelledImages(images, _typed(targets, split).to(images.device)).to(device or images.device)


def _settled(
    images: torch.Tensor,
    targets: torch.Tensor,
    split: str,
    device: torch.device | None,
    transform: Transform | None,
    memory_share: float,
) -> LabelledImages:
    """A split of tensors."""
    place = images.device if device is None else device
    targets = _typed(targets, split).to(place)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    shape = (len(images), *_made(images[:2], transform, split).shape[1:])
    share = _share_needed(images, shape, place)
    if share > memory_share:
        _say_on_demand(
            split, shape, place, memory_share, f"in memory as {str(images.dtype).removeprefix('torch.')}"
        )
        stored = OnDemand(images.cpu(), order, shape, place, transform)
        if images.is_floating_point() and not all(part.isfinite().all() for part in images.split(256)):
            raise _not_finite(split)
        return LabelledImages(cast(torch.Tensor, stored), targets[order.to(place)])
    if transform is not None:
        images = torch.cat([as_floats(part, transform) for part in images.split(256)])
    images = images.to(torch.float32)
    if not torch.isfinite(images).all():
        raise _not_finite(split)
    order = order.to(images.device)
    return LabelledImages(images[order], targets[order.to(place)]).to(place)


def _share_needed(images: torch.Tensor, shape: tuple[int, ...], place: torch.device) -> float:
    """Of what is free, where it is shortest, what these images would take as float32."""
    needed = 4 * torch.Size(shape).numel()
    shares = [needed / max(1, free_memory(images.device))]  # where they are put in order
    if place != images.device:
        shares.append(needed / max(1, free_memory(place)))
    return max(shares)


def _of_a_dataset(
    dataset: Dataset,
    split: str,
    device: torch.device | None,
    transform: Transform | None,
    memory_share: float,
    workers: int,
) -> LabelledImages:
    try:
        count = len(dataset)  # type: ignore[arg-type]
        first = torch.as_tensor(dataset[0][0]) if count else torch.empty(0)
        share = _COPIES * count * first.nbytes / max(1, free_memory(torch.device("cpu")))
        if share <= memory_share:
            batches = list(in_batches(dataset, workers if share > memory_share / 100 else 0))
            images, targets = torch.cat([one for one, _ in batches]), torch.cat([one for _, one in batches])
            del batches
        else:
            return _on_disk(dataset, split, device or torch.device("cpu"), transform, memory_share, workers)
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        raise_if_of_the_machine(error, f"reading the {split} dataset", "the data set or its images")
        raise InputError(
            f"The {split} dataset could not be read into tensors ({error}): expected items (image tensor, int "
            "label), all images of one size; add a transform such as torchvision.transforms.v2.ToImage()."
        ) from error
    _check(images, targets, split)
    return _settled(images, targets, split, device, transform, memory_share)


def _on_disk(
    dataset: Any,
    split: str,
    place: torch.device,
    transform: Transform | None,
    memory_share: float,
    workers: int,
) -> LabelledImages:
    """A data set that stays where it is; it is gone through once."""
    twice = [torch.as_tensor(dataset[0][0]) for _ in range(2)]
    if bytes_of(twice[0]) != bytes_of(twice[1]):
        raise InputError(
            f"The {split} dataset gives its first image otherwise every time, and is too large to be read into "
            "memory: expected one without random transforms; give those as augment=."
        )
    shape = (len(dataset), *_made(twice[0][None], transform, split).shape[1:])
    _say_on_demand(split, shape, place, memory_share, "on disk, and is gone through once")
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
    stored, targets = OnDemand(dataset, order, shape, place, transform, workers), []

    def images() -> Iterable[torch.Tensor]:
        for batch, of_batch in in_batches(dataset, workers):
            if batch.is_floating_point() and not batch.isfinite().all():
                raise _not_finite(split)
            targets.append(of_batch)
            yield batch

    stored.digest_read = digest_of(images())
    known = torch.cat(targets)
    _check(known, known, split)
    return LabelledImages(cast(torch.Tensor, stored), _typed(known, split)[order].to(place))


def _of_an_iterable(data: Any, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Everything that an iterable gives, and a word about it."""
    refused = InputError(
        f"The {split} split is a {type(data).__name__}: expected a torch Dataset of (image tensor, label) pairs, "
        "a DataLoader, a pair of tensors (images [N, C, H, W], labels [N]), or an iterable of pairs or batches."
    )
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes)):
        raise refused
    images, targets = [], []
    try:
        for item in data:
            if not isinstance(item, (tuple, list)) or len(item) != 2 or not torch.is_tensor(item[0]):
                raise refused
            image, target = item[0], torch.as_tensor(item[1])
            single = image.dim() == 3 or target.dim() == 0
            images.append(image[None] if single else image)
            targets.append(target[None] if single else target)
    except (TypeError, ValueError, RuntimeError) as error:
        raise_if_of_the_machine(error, f"reading the {split} split", "the images")
        raise error if error is refused else InputError(f"{refused} It fails: {first_line(error)}.") from error
    if not images:
        raise InputError(f"The {split} split gives nothing: expected at least one image.")
    try:
        whole = torch.cat(images), torch.cat(targets)
    except (RuntimeError, TypeError) as error:
        raise_if_of_the_machine(error, f"reading the {split} split", "the images")
        raise InputError(
            f"The images and targets of the {split} split could not be put together ({error}): expected all of "
            "one size, and batches of images [n, C, H, W] or single ones [C, H, W]."
        ) from error
    remark(f"the {split} split was read into memory: {len(whole[0])} images, {whole[0].nbytes / 2**20:.0f} MiB")
    return whole


def _is_plain(loader: DataLoader) -> bool:
    """Whether a loader only puts the items of its data set together."""
    return loader.collate_fn is default_collate and not isinstance(loader.dataset, IterableDataset)


def _is_pair(data: Any) -> bool:
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(map(torch.is_tensor, data))


def _check(images: torch.Tensor, targets: torch.Tensor, split: str) -> None:
    for tensor in (images, targets):
        if isinstance(tensor, torch.Tensor) and not _is_ordinary(tensor):
            raise InputError(
                f"The {split} split has a tensor of {tensor.dtype}, {tensor.layout} on {tensor.device}: expected "
                "ordinary tensors of real numbers."
            )
    if images.dim() == 0 or len(images) == 0 or targets.shape[:1] != images.shape[:1] or targets.is_complex():
        raise InputError(
            f"The {split} split has images of shape {tuple(images.shape)} and {targets.dtype} labels of shape "
            f"{tuple(targets.shape)}: expected images [N, C, H, W] and integer labels [N] with N > 0 (or masks "
            "[N, H, W], or numbers [N, ...])."
        )


def _is_ordinary(tensor: torch.Tensor) -> bool:
    strided = tensor.layout == torch.strided
    return strided and not (tensor.is_meta or tensor.is_quantized or tensor.is_complex())


def _typed(targets: torch.Tensor, split: str) -> torch.Tensor:
    if not targets.is_floating_point():
        return targets.to(torch.int64)
    if not torch.isfinite(targets).all():
        raise InputError(f"The {split} split has NaN or infinite targets: remove or repair those images.")
    return targets.to(torch.float32)


def _made(images: torch.Tensor, transform: Transform | None, split: str) -> torch.Tensor:
    """What a transform makes of a few images."""
    if transform is None:
        return images
    try:
        made = transform(images)
    except Exception as error:  # whatever it raises
        raise_if_of_the_machine(error, f"transforming the {split} images")
        raise InputError(
            f"The transform failed ({type(error).__name__}: {error}) for {split} images {tuple(images.shape)} "
            f"{images.dtype}: expected a function of a batch of images, such as torchvision.transforms.v2.Compose."
        ) from error
    if not isinstance(made, torch.Tensor) or len(made) != len(images):
        raise InputError(
            f"The transform gave {type(made).__name__} for a batch: expected a tensor, image by image."
        )
    return made


def _say_on_demand(split: str, shape: tuple[int, ...], place: torch.device, share: float, where: str) -> None:
    size = 4 * torch.Size(shape).numel() / 2**30
    remark(
        f"the {split} split ({shape[0]} images, {size:.3g} GiB as float32) is more than {share:.0%} of the memory "
        f"that is free for {place.type}: it stays {where}"
    )


def _not_finite(split: str) -> InputError:
    return InputError(f"The {split} split has NaN or infinite pixels: remove or repair those images.")
