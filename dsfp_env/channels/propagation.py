"""Follows channels through a running network, operation by operation.

While the mode is on, every tensor operation that reads labelled elements (see `labels`) labels what it writes:

- *views* share their labels with what they look at;
- *elementwise* operations pass labels on, and **join** two channels that meet in one element: such channels go
  together or not at all;
- operations that only *move* numbers are done to the labels themselves;
- every other operation is **probed**: it runs again on NaN in some channels, and where NaN comes out says what was
  read (see `probing`). Nothing needs to be known of the operation. If one element reads several channels (a mean
  over channels, LayerNorm, attention), they are joined.

Moves could be probed as well; they are told apart for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from dsfp_env.channels.labels import Labels, Made, compact, components, distinct, is_constant, pairs, unexpanded
from dsfp_env.channels.probing import Probe
from dsfp_env.channels.reductions import REDUCTIONS, is_neutral, reduce_labels, reduced_dims, reduces_all
from dsfp_env.common.machine_errors import raise_if_of_the_machine

ELEMENTWISE = {"copy", "_to_copy", "hardswish", "native_dropout", "_prelu_kernel"}  # and all that torch tags so
MOVES = {
    "cat", "stack", "constant_pad_nd", "roll", "flip", "repeat", "index_select", "index", "gather", "clone",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "im2col", "_unsafe_view",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
}  # fmt: skip
RESHAPES = {"_unsafe_view": "view", "_reshape_alias": "view"}  # which of them runs depends on the memory
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
    module: str = ""  # path of that
    labels: list[Seen] = field(default_factory=list)  # of what it wrote; of what it read, if it failed
    read: Seen | None = None  # of what it read, if it looks at channels by their position, or number
    joins: list[torch.Tensor] = field(default_factory=list)  # [2, n]: channels that it lets meet
    stays: list[tuple[torch.Tensor, str]] = field(default_factory=list)  # channels that must stay, and why
    decisions: list[bool] = field(default_factory=list)  # that a cut network cannot make: widths tell them
    doubt: str = ""  # what it does, if its other numbers turn out not to follow the channels
    macs: int = 0  # multiply-adds of a convolution or matrix product that is no layer's, in evaluation mode
    mixes: bool = False  # one element reads several channels of one tensor


class Propagation(TorchDispatchMode):
    """Keeps the labels, and writes down what happened to them."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = Labels()
        self.made = Made()
        self.together = 0  # the label of what is made of all channels of something
        self.uncut: list[Event] = []  # what happened in the network that this one was cut from, if it was
        self.owners = torch.empty(0, dtype=torch.int64)  # the first labels of all that were given together
        self.num_labels = 1  # with 0
        self.of_image = torch.empty(0, dtype=torch.int64)  # labels that are the image's; its values may be read
        self.events: list[Event] = []
        self.failed: Event | None = None  # the operation that raised, with the labels that it read
        self.counting = True  # multiply-adds
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
        operation = RESHAPES.get(name, name)
        event = Event(f"{operation} in {self.where!r}" if self.where else operation, self.where)
        try:
            result = func(*args, **kwargs)
        except Exception:
            self.failed = event
            event.labels = self.seen(labelled)
            raise
        if name in LINEAR and self.counting:
            event.macs = flop_registry[func.overloadpacket](*args, **kwargs, out_val=result) // 2
            self.multiply_adds += event.macs
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if not labelled:
            self.made.note(inputs, outputs)
        else:
            if not outputs and not torch.isin(self._distinct(labelled), self.of_image).all():
                raise ReadsValues(f"{event.operation} reads the value of an activation into Python")
            self._pass_on(func, name, args, kwargs, inputs, labelled, outputs, event)
            if name != "clone":  # the same channels; of one channel, nothing need be laid anew
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
            event.read = next(iter(self.seen(labelled)), None)
            return  # views
        if writes_in_place and len(inputs) == 1:
            return  # the same channels, other values
        if base.startswith("new_"):
            self.made.note((), outputs)
            return  # a size given in numbers
        if base.endswith("_like"):
            operands = labelled[:1]
        elif base == "copy":
            operands = inputs[1:2]  # nothing stays of what was there
        elif base in REDUCTIONS and len(labelled) == 1 and not writes_in_place:
            labels = self.labels.of(labelled[0])
            assert labels is not None
            self._reduce(func, base, args, kwargs, labels, outputs[0], event)
            return
        elif torch.Tag.pointwise in func.tags or base in ELEMENTWISE:
            operands = inputs
        elif base in MOVES and all(tensor.is_floating_point() for tensor in labelled):
            self._move(func, name, args, kwargs, outputs)
            event.read = next(iter(self.seen(labelled)), None)
            return
        else:
            self._probe(func, args, kwargs, labelled, outputs, event)
            return
        for output in outputs:
            self.labels.put(output, self._meet(operands, output.shape, event))

    def _meet(self, operands: list[torch.Tensor], shape: torch.Size, event: Event) -> torch.Tensor:
        """Labels of an elementwise result: of the first operand that has any there."""
        result: torch.Tensor | None = None
        fixed: list[torch.Tensor] = []  # operands without labels
        for operand in map(unexpanded, operands):
            labels = self.labels.of(operand)
            if labels is None or not labels.any():
                if operand.numel() > 1:
                    fixed.append(operand)
                continue
            if result is None:
                result = labels
            elif result.shape != labels.shape or not torch.equal(result, labels):
                result = self._join(result, labels, event)
        if result is None:
            return torch.zeros(1).expand(shape)
        if any(self._is_fixed(other, result, event) for other in fixed):
            event.stays.append((distinct(result), f"{event.operation} combines it with numbers of fixed width"))
            result = torch.zeros(1)  # from here on of fixed width itself
        return result.expand(shape)

    def _decide(self, event: Event, ask: Callable[[], bool]) -> bool:
        """A decision as in the uncut network, at the same place; else a new one."""
        before = self.uncut[len(self.events)].decisions if len(self.events) < len(self.uncut) else []
        place = len(event.decisions)
        event.decisions.append(before[place] if place < len(before) else ask())
        return event.decisions[-1]

    def _is_fixed(self, numbers: torch.Tensor, labels: torch.Tensor, event: Event) -> bool:
        """Whether numbers without labels are of a width that does not follow the channels they meet."""
        along = [
            dim
            for dim in range(-min(labels.dim(), numbers.dim()), 0)
            if numbers.shape[dim] > 1 and _varies(labels, dim)
        ]
        if along and numbers in self.made and all(is_constant(numbers, dim) for dim in along):
            event.doubt = "combines it with numbers of fixed width"
            event.read = Seen(compact(labels)[0].clone(), labels.shape)
            return False  # perhaps as many as there are channels
        return bool(along)

    def _reduce(
        self,
        func: Any,
        base: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        labels: torch.Tensor,
        output: torch.Tensor,
        event: Event,
    ) -> None:
        """Label what an operation makes of all numbers along some dimensions."""
        over = reduced_dims(func, args, kwargs, labels.dim())
        neutral = is_neutral(func, base, args, kwargs)
        if neutral and self._decide(event, partial(reduces_all, labels, over)):
            self.labels.put(output, torch.tensor(float(self.together)))
            return
        result, met = reduce_labels(labels, over, output.dim())
        if (met[0] != met[1]).any():
            event.joins.append(met)
            event.mixes = True
        self.labels.put(output, result)

    def _join(self, first: torch.Tensor, second: torch.Tensor, event: Event) -> torch.Tensor:
        spread = [
            self._decide(event, partial(_varies_where_single, *sides))
            for sides in ((second, first.shape), (first, second.shape))
        ]
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
            if func.namespace != "aten" and len(labelled) > 1:
                raise TypeError("one of them may be a place in the other, and where NaN is, nobody knows")
            probe = Probe(hear, self.num_labels, self.owners)
            labels = probe.labels(known, lambda: self._joined(known))
            event.joins, event.mixes = probe.joins, probe.mixes
        except (TypeError, RuntimeError, ValueError, IndexError) as error:
            raise_if_of_the_machine(error, f"following {event.operation}", "the example image")
            event.stays.append((known, f"{event.operation} cannot be followed channel by channel"))
            event.joins.append(torch.stack([known[:1].expand_as(known), known]))
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


def _varies_where_single(labels: torch.Tensor, other: torch.Size) -> bool:
    """Whether labels change along a dimension in which another operand has the size 1 (or none)."""
    return any(_varies(labels, -dim) for dim in range(1, labels.dim() + 1) if dim > len(other) or other[-dim] == 1)


def _varies(labels: torch.Tensor, dim: int) -> bool:
    """Whether different channels follow one another along a dimension."""
    if is_constant(labels, dim):
        return False
    lowest = labels.masked_fill(labels == 0, torch.inf).amin(dim)
    return bool((labels.amax(dim) > lowest).any())
