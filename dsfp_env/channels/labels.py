"""Labels on tensors: which channel each element belongs to, kept beside the memory that the tensor lies in.

Because labels shadow the storage and not the tensor object, views share labels without any rule, and what is
written in place through one view is seen through all of them. A label is a whole number > 0 (kept as float32, so
that any operation which moves numbers can move labels); 0 means that the element belongs to no channel.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch.multiprocessing.reductions import StorageWeakRef


@dataclass
class _Shadow:
    """Labels of one storage."""

    labels: torch.Tensor  # flat, one for every unit of the storage
    unit: int  # bytes: the smallest element that any tensor has seen in it

    def lying_as(self, tensor: torch.Tensor, part: int = 0) -> torch.Tensor:
        """The labels of a tensor's elements, in its shape; of one unit of each, if elements are larger."""
        per_element = tensor.element_size() // self.unit
        strides = [stride * per_element for stride in tensor.stride()]
        return self.labels.as_strided(tensor.size(), strides, tensor.storage_offset() * per_element + part)


class Labels:
    """The labels of all tensors that are alive."""

    def __init__(self) -> None:
        self._shadows: dict[StorageWeakRef, _Shadow] = {}
        self._next_cleaning = 256

    def of(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Labels of a tensor, in its shape; None if it never had any."""
        if tensor.layout != torch.strided:
            return None
        shadow = self._shadows.get(StorageWeakRef(tensor.untyped_storage()))
        return None if shadow is None else _fine_enough(shadow, tensor).lying_as(tensor)

    def put(self, tensor: torch.Tensor, labels: torch.Tensor) -> None:
        """Label a tensor, and with it every other view of its memory. ``labels`` is broadcast to its shape."""
        storage = tensor.untyped_storage()
        key = StorageWeakRef(storage)
        if key not in self._shadows:
            if not labels.any():
                return
            unit = tensor.element_size()
            self._shadows[key] = _Shadow(torch.zeros(storage.nbytes() // unit), unit)
            self._forget_the_dead()
        shadow = _fine_enough(self._shadows[key], tensor)
        for part in range(tensor.element_size() // shadow.unit):
            shadow.lying_as(tensor, part).copy_(labels)

    def _forget_the_dead(self) -> None:
        if len(self._shadows) >= self._next_cleaning:
            self._shadows = {key: shadow for key, shadow in self._shadows.items() if not key.expired()}
            self._next_cleaning = 2 * len(self._shadows) + 256


class Made:
    """Tensors that a forward pass makes of nothing but numbers, such as zeros of a size that it was told."""

    def __init__(self) -> None:
        self._storages: set[StorageWeakRef] = set()

    def __contains__(self, tensor: torch.Tensor) -> bool:
        return StorageWeakRef(tensor.untyped_storage()) in self._storages

    def note(self, inputs: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]) -> None:
        """After an operation on tensors without labels."""
        storages = {
            StorageWeakRef(tensor.untyped_storage()) for tensor in outputs if tensor.layout == torch.strided
        }
        if all(tensor in self for tensor in inputs):
            self._storages |= storages
        else:
            self._storages -= storages


def _fine_enough(shadow: _Shadow, tensor: torch.Tensor) -> _Shadow:
    """The shadow, in units no larger than the tensor's elements: complex numbers may be looked at as real ones."""
    if tensor.element_size() < shadow.unit:
        shadow.labels = shadow.labels.repeat_interleave(shadow.unit // tensor.element_size())
        shadow.unit = tensor.element_size()
    return shadow


def unexpanded(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without the repetition of ``expand``: of size 1 again where its stride is 0."""
    for dim, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[dim] > 1:
            tensor = tensor.narrow(dim, 0, 1)
    return tensor


def compact(*labels: torch.Tensor) -> list[torch.Tensor]:
    """Tensors of equal shape without repetition: one index is left of every dimension along which none changes."""
    result = list(labels)
    for dim in reversed(range(labels[0].dim())):
        if labels[0].shape[dim] > 1 and all(is_constant(one, dim) for one in result):
            result = [one.narrow(dim, 0, 1) for one in result]
    return result


def is_constant(labels: torch.Tensor, dim: int) -> bool:
    """Whether labels are the same all along a dimension."""
    size = labels.shape[dim]
    return torch.equal(labels.narrow(dim, 1, size - 1), labels.narrow(dim, 0, size - 1))


def distinct(labels: torch.Tensor) -> torch.Tensor:
    """The different labels of a tensor, ascending, int64, without 0."""
    found = compact(labels)[0].unique().long()
    return found[found > 0]


def pairs(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """The different pairs of labels that stand at the same place: ``[2, n]`` int64."""
    base = 1 << 24  # float32 counts no farther
    first, second = compact(first, second)
    both = (first.double() * base + second.double()).unique().long()
    return torch.stack([both // base, both % base])


def components(joins: torch.Tensor, count: int) -> torch.Tensor:
    """For each of ``count`` labels the lowest that it is joined with, directly or not: ``[count]`` int64.

    Args:
        joins: Pairs of labels ``[2, n]``.
        count: Labels there are, with 0.
    """
    rows, columns = joins.numpy()
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    component = connected_components(graph, directed=False)[1]
    return torch.from_numpy(np.unique(component, return_index=True)[1][component].astype(np.int64))
