"""Images that do not fit: they stay in host memory as they came, or on disk, and are made when they are asked for.

`OnDemand` stands in the place of the tensor of a split's images and answers as far as it is asked: its length and
shape, some of its images (as float32, on the device), all of them batch by batch. What is asked for in advance is
read ahead by workers, if the images come from a data set.
"""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from dsfp_env.common.hashing import bytes_of, hash_of

Transform = Callable[[torch.Tensor], torch.Tensor]  # of a batch of images [n, C, H, W]
_AT_ONCE = 256


class OnDemand:
    """Images ``[N, C, H, W]``, float32, made when they are asked for.

    Args:
        source: A tensor of images in host memory, of any type; or a map-style data set of pairs (image, target).
        order: Which of the source's images is which of these, ``[N]``.
        shape: Of all of them, as they are made.
        device: Where they are brought to.
        transform: Of a batch, on the device.
        workers: Processes that read a data set ahead.
    """

    def __init__(
        self,
        source: torch.Tensor | Dataset,
        order: torch.Tensor,
        shape: Sequence[int],
        device: torch.device,
        transform: Transform | None = None,
        workers: int = 0,
    ) -> None:
        self.source, self.order, self.shape = source, order, torch.Size(shape)
        self.device, self.transform, self.workers = device, transform, workers

    def __len__(self) -> int:
        return self.shape[0]

    def dim(self) -> int:
        """Dimensions of a batch."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """What all of them would take."""
        return 4 * self.shape.numel()

    def to(self, device: torch.device) -> OnDemand:
        """The same images, brought to another device."""
        return OnDemand(self.source, self.order, self.shape, device, self.transform, self.workers)

    def __getitem__(self, which: Any) -> torch.Tensor:
        """Some of the images: of a slice, or of a tensor of indices."""
        indices = torch.arange(len(self))[which.cpu() if isinstance(which, torch.Tensor) else which]
        return self._made(self._read(indices))

    def split(self, size: int) -> Iterator[torch.Tensor]:
        """All images in batches, as those of a tensor."""
        return self.batches(torch.arange(len(self)).split(size))

    def batches(self, indices: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Batches of images, read ahead.

        Args:
            indices: Of each batch, ``[n]``.
        """
        if isinstance(self.source, torch.Tensor):
            return (self[batch] for batch in indices)
        asked = [self.order[batch.cpu()].tolist() for batch in indices]
        return map(self._made, _loader(self.source, asked, self.workers, images_of))

    def __repr__(self) -> str:
        return f"OnDemand({self.digest})"

    @cached_property
    def digest(self) -> str:
        """Hash of the source and its order, and of what the transform makes of some of it."""
        in_memory = isinstance(self.source, torch.Tensor)
        content = hash_of([self.source]) if in_memory else self.digest_read
        return hash_of([content, self.order, self[: min(len(self), _AT_ONCE)]])

    digest_read = ""  # of a data set, noted when it is read to be checked

    def _read(self, indices: torch.Tensor) -> torch.Tensor:
        places = self.order[indices]
        if isinstance(self.source, torch.Tensor):
            return self.source[places]
        return torch.stack([torch.as_tensor(self.source[place][0]) for place in places.tolist()])

    def _made(self, images: torch.Tensor) -> torch.Tensor:
        return as_floats(images.to(self.device, non_blocking=True), self.transform)


def as_floats(images: torch.Tensor, transform: Transform | None) -> torch.Tensor:
    """A batch of images ``[n, C, H, W]`` as networks take them."""
    return (images if transform is None else transform(images)).to(torch.float32)


def batches_of(images: Any, indices: torch.Tensor) -> Iterator[torch.Tensor]:
    """Batches of images, those of a tensor or on demand.

    Args:
        images: ``[N, ...]``.
        indices: ``[batches, n]``.
    """
    if isinstance(images, OnDemand):
        return images.batches(indices)
    return (images[batch] for batch in indices)


def in_batches(dataset: Dataset, workers: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All of a data set, images and targets, batch by batch."""
    places = torch.arange(len(dataset)).split(_AT_ONCE)  # type: ignore[arg-type]
    return iter(_loader(dataset, [batch.tolist() for batch in places], workers, None))


def digest_of(batches: Iterable[torch.Tensor]) -> str:
    """Hash of images, read batch by batch."""
    digest = hashlib.sha256()
    for images in batches:
        digest.update(bytes_of(images))
    return digest.hexdigest()


def images_of(items: Sequence[tuple[Any, Any]]) -> torch.Tensor:
    """The images of some pairs, stacked."""
    return torch.stack([torch.as_tensor(image) for image, _ in items])


def _loader(dataset: Dataset, batches: list[list[int]], workers: int, collate: Any) -> DataLoader:
    alone = multiprocessing.parent_process() is not None  # one of several processes that share the cores
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=0 if alone else min(workers, len(batches)),
        collate_fn=collate,
        generator=torch.Generator().manual_seed(0),  # the global one is left alone
    )
