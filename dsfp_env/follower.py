"""Follows channels through a running network, operation by operation.

While the mode is on, every tensor operation that reads labelled elements (see `labels`) labels what it writes:

- *views* share their labels with what they look at;
- *elementwise* operations pass labels on, and **join** two channels that meet in one element: such channels go
  together or not at all;
- operations that only *move* numbers are done to the labels themselves;
- every other operation is **probed**: it runs on NaN where a label's number has a given bit, once for every bit
  and its opposite, and where NaN comes out says what was read. Nothing needs to be known of the operation. If
  one element reads several channels (a mean over channels, LayerNorm, attention), the channels are joined.

The first three are there for speed; the last alone gives the same labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from dsfp_env.labels import Labels, compact, components, distinct, is_constant, pairs

ELEMENTWISE = {"copy", "_to_copy", "hardswish", "native_dropout", "_prelu_kernel"}  # and all that torch tags so
MOVES = {
    "cat", "stack", "constant_pad_nd", "roll", "flip", "repeat", "index_select", "index", "gather", "clone",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "im2col", "_unsafe_view",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
}  # fmt: skip
MOST_WORK = 1 << 25  # elements: of an operation's outputs, times channels
LINEAR = {"convolution", "addmm", "mm"}  # what convolutions and linear layers are made of


class ReadsValues(Exception):
    """The forward pass reads the value of a labelled element into Python."""


@dataclass(frozen=True)
class Seen:
    """The labels of one tensor."""

    compact: torch.Tensor  # one index for every dimension along which nothing changes
    shape: torch.Size  # of the tensor


@dataclass
class Event:
    """What one operation did to labels."""

    operation: str  # with the module that it ran in, for people
    labels: list[Seen] = field(default_factory=list)  # of what it wrote; of what it read, if it failed
    joins: list[torch.Tensor] = field(default_factory=list)  # [2, n]: channels that it lets meet
    stays: list[tuple[torch.Tensor, str]] = field(default_factory=list)  # channels that must stay, and why
    mixes: bool = False  # one element reads several channels of one tensor


class Follower(TorchDispatchMode):
    """Keeps the labels, and writes down what happened to them."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = Labels()
        self.owners = torch.empty(0, dtype=torch.int64)  # the first labels of all that were given together
        self.num_labels = 1  # with 0
        self.of_image = torch.empty(0, dtype=torch.int64)  # labels that are the image's; its values may be read
        self.events: list[Event] = []
        self.failed: Event | None = None  # the operation that raised, with the labels that it read
        self.multiply_adds = 0  # of convolutions and matrix products with a weight, outside of what is opaque
        self._path: list[str] = []
        self._opaque = False

    @contextmanager
    def inside(self, path: str) -> Any:
        """Name the module that runs."""
        self._path.append(path)
        yield
        self._path.pop()  # stays after an exception, to tell where it happened

    @contextmanager
    def opaque(self) -> Any:
        """Do not look at operations: somebody else labels their result."""
        before, self._opaque = self._opaque, True
        try:
            yield
        finally:
            self._opaque = before

    @property
    def where(self) -> str:
        """The module that runs."""
        return self._path[-1] if self._path else ""

    @property
    def sleeps(self) -> bool:
        """Whether operations are not looked at now."""
        return self._opaque

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._opaque:
            return func(*args, **kwargs)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        labelled = [tensor for tensor in inputs if self.labels.of(tensor) is not None]
        name = func._schema.name.split("::")[1]
        event = Event(f"{name} in {self.where!r}" if self.where else name)
        try:
            result = func(*args, **kwargs)
        except Exception:
            self.failed = event
            event.labels = self.seen(labelled)
            raise
        if name in LINEAR:
            self.multiply_adds += flop_registry[func.overloadpacket](*args, **kwargs, out_val=result) // 2
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if labelled:
            if not outputs and not torch.isin(self._distinct(labelled), self.of_image).all():
                raise ReadsValues(f"{event.operation} reads the value of an activation into Python")
            self._pass_on(func, name, args, kwargs, inputs, labelled, outputs, event)
            self._write_down(event, outputs)
        return result

    def _pass_on(
        self,
        func: Any,
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: list[torch.Tensor],
        labelled: list[torch.Tensor],
        outputs: list[torch.Tensor],
        event: Event,
    ) -> None:
        """Label the outputs of one operation."""
        base = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        writes_in_place = func._schema.is_mutable
        if not writes_in_place and all(self.labels.of(output) is not None for output in outputs):
            return  # views
        if writes_in_place and len(inputs) == 1:
            return  # the same channels, other values
        if base.startswith("new_"):
            return  # a size given in numbers
        if base.endswith("_like"):
            operands = labelled[:1]
        elif torch.Tag.pointwise in func.tags or base in ELEMENTWISE:
            operands = inputs
        elif base in MOVES and all(tensor.is_floating_point() for tensor in labelled):
            self._move(func, name, args, kwargs, outputs)
            return
        else:
            self._probe(func, args, kwargs, labelled, outputs, event)
            return
        for output in outputs:
            self.labels.put(output, self._meet(operands, output.shape, event))

    def _meet(self, operands: list[torch.Tensor], shape: torch.Size, event: Event) -> torch.Tensor:
        """Labels of an elementwise result: of the first operand that has any there."""
        result: torch.Tensor | None = None
        fixed: list[torch.Size] = []  # shapes of operands without labels
        for operand in operands:
            labels = self.labels.of(operand)
            if labels is None or not labels.any():
                if operand.numel() > 1:
                    fixed.append(operand.shape)
                continue
            if result is None:
                result = labels
            elif result.shape != labels.shape or not torch.equal(result, labels):
                result = self._join(result, labels, event)
        if result is None:
            return torch.zeros(1).expand(shape)
        if any(_varies_where_whole(result, other) for other in fixed):
            event.stays.append((distinct(result), f"{event.operation} combines it with numbers of fixed width"))
            result = torch.zeros(1)  # from here on of fixed width itself
        return result.expand(shape)

    def _join(self, first: torch.Tensor, second: torch.Tensor, event: Event) -> torch.Tensor:
        spread = _varies_where_single(second, first.shape), _varies_where_single(first, second.shape)
        for labels, is_spread in zip((first, second), spread, strict=True):
            if is_spread:
                event.stays.append((distinct(labels), f"{event.operation} spreads it over other channels"))
        if any(spread):
            return second if spread[0] else first
        first, second = torch.broadcast_tensors(first, second)
        met = pairs(first, second)
        both = met[:, (met > 0).all(0)]
        if (both[0] != both[1]).any():
            event.joins.append(both)
        for side in (0, 1):
            alone = met[side][met[1 - side] == 0]
            alone = alone[(alone > 0) & ~torch.isin(alone, both[side])]
            if len(alone):
                event.stays.append((alone, f"{event.operation} combines it with padding of fixed width"))
        return torch.where(first > 0, first, second)

    def _move(
        self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[torch.Tensor]
    ) -> None:
        def labels_of(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if not leaf.is_floating_point():
                return leaf.cpu()
            labels = self.labels.of(leaf)
            return torch.zeros(leaf.shape) if labels is None else labels

        if name == "constant_pad_nd":
            args, kwargs = args[:2], {}
        args, kwargs = tree_map(labels_of, (args, kwargs))
        kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "dtype", "pin_memory")}
        moved = tree_leaves(func(*args, **kwargs))
        for output, labels in zip(outputs, moved, strict=True):
            self.labels.put(output, labels)

    def _probe(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        labelled: list[torch.Tensor],
        outputs: list[torch.Tensor],
        event: Event,
    ) -> None:
        """Find out by NaN which channels each element of the outputs reads."""
        read = {id(tensor): found.long() for tensor in labelled if (found := self.labels.of(tensor)) is not None}
        audible = [index for index, output in enumerate(outputs) if output.is_floating_point()]
        if not len(known := self._distinct(labelled)):
            return

        def hear(speaks: torch.Tensor) -> list[torch.Tensor]:
            """Where NaN comes out, if these labels are NaN; ``speaks`` is bool, one for each label there is."""

            def speak(leaf: Any) -> Any:
                if id(leaf) not in read:
                    return leaf.clone() if isinstance(leaf, torch.Tensor) and func._schema.is_mutable else leaf
                return torch.ones_like(leaf).masked_fill_(speaks[read[id(leaf)]].to(leaf.device), torch.nan)

            answer = tree_leaves(func(*tree_map(speak, args), **tree_map(speak, kwargs)))
            return [answer[index].isnan().cpu() for index in audible]

        try:
            if not audible or not all(tensor.is_floating_point() for tensor in labelled):
                raise TypeError("not of numbers")
            labels = _Hearing(hear, self.num_labels, self.owners, event).labels(known, lambda: self._joined(known))
        except (TypeError, RuntimeError, ValueError, IndexError):
            event.stays.append((known, f"{event.operation} cannot be followed channel by channel"))
            audible = list(range(len(outputs)))
            labels = [known[0].float()] * len(outputs)  # still theirs
        for index, found in zip(audible, labels, strict=True):
            self.labels.put(outputs[index], found)

    def _joined(self, known: torch.Tensor) -> torch.Tensor:
        """For each of some labels one that stands for all that it was joined with so far."""
        joins = [join for event in self.events for join in event.joins]
        return components(torch.cat([known[:1].expand(2, 1), *joins], 1), self.num_labels)[known]

    def _distinct(self, tensors: Iterable[torch.Tensor]) -> torch.Tensor:
        found = [distinct(labels) for tensor in tensors if (labels := self.labels.of(tensor)) is not None]
        return torch.cat(found).unique() if found else torch.empty(0, dtype=torch.int64)

    def _write_down(self, event: Event, outputs: Iterable[torch.Tensor]) -> None:
        event.labels = self.seen(outputs)
        if event.labels or event.stays or event.joins:
            self.events.append(event)

    def seen(self, tensors: Iterable[torch.Tensor]) -> list[Seen]:
        """The labels of those tensors that have any."""
        found = [labels for tensor in tensors if (labels := self.labels.of(tensor)) is not None]
        return [Seen(compact(labels)[0].clone(), labels.shape) for labels in found]


class _Hearing:
    """Which channels each element of an operation's outputs reads, told from where NaN comes out.

    Args:
        hear: Runs the operation with NaN at some labels, ``[labels]`` bool, and says where NaN comes out.
        num_labels: There are, with 0.
        owners: The first labels of all that were given together, ascending.
        event: Takes what is joined.
    """

    def __init__(
        self,
        hear: Callable[[torch.Tensor], list[torch.Tensor]],
        num_labels: int,
        owners: torch.Tensor,
        event: Event,
    ) -> None:
        self._hear = hear
        self._num_labels = num_labels
        self._owners = owners
        self._event = event

    def labels(self, known: torch.Tensor, joined: Callable[[], torch.Tensor]) -> list[torch.Tensor]:
        """Labels of the outputs; where an element reads several channels, these are joined and one stands for all.

        Args:
            known: The labels that the operation may read, ascending.
            joined: For each of them one that stands for all that it is joined with already.
        """
        if not any(bool(one.any()) for one in self._among(known)):
            raise TypeError("NaN does not come out")
        if (labels := self._decode(known, known)) is not None:
            return labels
        result: list[torch.Tensor] = []
        stands_for = joined()
        owners = torch.bucketize(stands_for, self._owners, right=True)
        for owner in owners.unique():
            group = owners == owner
            labels = self._decode(known[group], stands_for[group])
            if labels is None:
                labels = self._mixed(known[group], stands_for[group])
            for index, found in enumerate(labels if result else []):
                met = pairs(result[index], found)
                self._event.joins.append(met[:, (met > 0).all(0)])
                labels[index] = torch.where(result[index] > 0, result[index], found)
            result = labels
        return result

    def _decode(self, known: torch.Tensor, stands_for: torch.Tensor) -> list[torch.Tensor] | None:
        """Labels of the outputs if each element reads at most one of some labels, else None."""
        reached = self._among(known)
        members, numbers = stands_for.unique(return_inverse=True)
        codes = [torch.zeros(one.shape, dtype=torch.int64) for one in reached]
        for bit in range((len(members) - 1).bit_length()):
            has_bit = (numbers >> bit & 1).bool()
            heard = zip(codes, self._among(known[has_bit]), self._among(known[~has_bit]), reached, strict=True)
            for code, ones, zeros, any_of_them in heard:
                if (ones & zeros).any() or not torch.equal(ones | zeros, any_of_them):
                    return None
                code += ones.long() << bit
        return [torch.where(one, members[code], 0).float() for one, code in zip(reached, codes, strict=True)]

    def _mixed(self, known: torch.Tensor, stands_for: torch.Tensor) -> list[torch.Tensor]:
        """Labels of the outputs if elements read several of some labels.

        Exact, with one run per channel; but if the first is heard everywhere, or that would be too much work,
        all are joined.
        """
        self._event.mixes = True
        reached = self._among(known)
        labels = [torch.zeros(one.shape) for one in reached]
        members = stands_for.unique()
        for number, member in enumerate(members):
            heard = self._among(known[stands_for == member])
            everywhere = all(torch.equal(ones, one) for ones, one in zip(heard, reached, strict=True))
            work = len(members) * sum(one.numel() for one in reached)
            if number == 0 and (everywhere or work > MOST_WORK):
                self._event.joins.append(torch.stack([known, member.expand(len(known))]))
                return [one.float() * float(member) for one in reached]
            for found, ones in zip(labels, heard, strict=True):
                others = distinct(found[ones])
                self._event.joins.append(torch.stack([others, member.expand(len(others))]))
                found[ones & (found == 0)] = float(member)
        return labels

    def _among(self, labels: torch.Tensor) -> list[torch.Tensor]:
        """Where NaN comes out if these labels are NaN."""
        speaks = torch.zeros(self._num_labels, dtype=torch.bool)
        speaks[labels] = True
        return self._hear(speaks)


def _varies_where_single(labels: torch.Tensor, other: torch.Size) -> bool:
    """Whether labels change along a dimension in which another operand has the size 1 (or none)."""
    return any(_varies(labels, -dim) for dim in range(1, labels.dim() + 1) if dim > len(other) or other[-dim] == 1)


def _varies_where_whole(labels: torch.Tensor, other: torch.Size) -> bool:
    """Whether labels change along a dimension in which another operand has more than one element."""
    return any(_varies(labels, -dim) for dim in range(1, min(labels.dim(), len(other)) + 1) if other[-dim] > 1)


def _varies(labels: torch.Tensor, dim: int) -> bool:
    """Whether different channels follow one another along a dimension."""
    if is_constant(labels, dim):
        return False
    lowest = labels.masked_fill(labels == 0, torch.inf).amin(dim)
    return bool((labels.amax(dim) > lowest).any())
