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
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry

from dsfp_env.channels.elementwise import meet
from dsfp_env.channels.events import Event, Seen, seen
from dsfp_env.channels.labels import Labels, Made, components, distinct
from dsfp_env.channels.operations import LINEAR, MOVES, RESHAPES, Operation, tensors_in
from dsfp_env.channels.probing import Probe
from dsfp_env.channels.reductions import REDUCTIONS, is_neutral, reduce_labels, reduced_dims, reduces_all
from dsfp_env.common.machine_errors import raise_if_of_the_machine


class ReadsValues(Exception):
    """The forward pass reads the value of a labelled element into Python."""


class Propagation(TorchDispatchMode):
    """Keeps the labels, and writes down what happened to them.

    Args:
        uncut: What happened in the network that this one was cut from, if it was.
    """

    def __init__(self, uncut: list[Event] | None = None) -> None:
        super().__init__()
        self.labels = Labels()
        self.made = Made()
        self.owners = torch.empty(0, dtype=torch.int64)  # the first labels of all that were given together
        self.num_labels = 1  # with 0
        self.together = 0  # the label of what is made of all channels of something
        self.of_image = torch.empty(0, dtype=torch.int64)  # labels that are the image's; its values may be read
        self.events: list[Event] = []
        self.failed: Event | None = None  # the operation that raised, with the labels that it read
        self.counting = True  # multiply-adds
        self.multiply_adds = 0  # of convolutions and matrix products with a weight, outside of what is opaque
        self.hidden_macs = 0  # of those, inside of what is opaque, so far
        self._uncut = uncut or []
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

    def __enter__(self) -> Any:
        """Import what torch would import when the first operation is caught: what that import does is not."""
        import torch._dynamo  # noqa: F401

        return super().__enter__()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operation = Operation(func, args, kwargs or {})
        if self._opaque:
            result = operation.run()
            if operation.name in LINEAR and self.counting:
                self.hidden_macs += _multiply_adds(operation, result)
            return result
        labelled = [tensor for tensor in operation.inputs if self.labels.of(tensor) is not None]
        name = RESHAPES.get(operation.name, operation.name)
        event = Event(f"{name} in {self.where!r}" if self.where else name, self.where)
        try:
            result = operation.run()
        except Exception:
            self.failed = event
            event.labels = self.seen(labelled)
            raise
        outputs = tensors_in(result)
        if operation.name in LINEAR and self.counting:
            event.macs = _multiply_adds(operation, result)
            self.multiply_adds += event.macs
        if not labelled:
            self.made.note(operation.inputs, outputs)
            return result
        if not outputs and not torch.isin(self._distinct(labelled), self.of_image).all():
            raise ReadsValues(f"{event.operation} reads the value of an activation into Python")
        self._pass_on(operation, labelled, outputs, event)
        if name != "clone":  # the same channels; and of one channel, nothing need be laid anew
            self._write_down(event, outputs)
        return result

    def decide(self, event: Event, ask: Callable[[], bool]) -> bool:
        """A decision as in the uncut network, at the same place; else a new one."""
        before = self._uncut[len(self.events)].decisions if len(self.events) < len(self._uncut) else []
        place = len(event.decisions)
        event.decisions.append(before[place] if place < len(before) else ask())
        return event.decisions[-1]

    def _pass_on(
        self, operation: Operation, labelled: list[torch.Tensor], outputs: list[torch.Tensor], event: Event
    ) -> None:
        """Label what an operation wrote."""
        base, in_place, inputs = operation.base, operation.in_place, operation.inputs
        if not in_place and all(self.labels.of(output) is not None for output in outputs):
            event.read = next(iter(self.seen(labelled)), None)  # a view: it shares labels
        elif in_place and len(inputs) == 1:
            pass  # the same channels, other values
        elif base.startswith("new_"):
            self.made.note((), outputs)  # of a size given in numbers
        elif base.endswith("_like"):
            self._meet(labelled[:1], outputs, event)
        elif base == "copy":
            self._meet(inputs[1:2], outputs, event)  # nothing stays of what was there
        elif operation.is_elementwise:
            self._meet(inputs, outputs, event)
        elif base in REDUCTIONS and len(labelled) == 1 and not in_place:
            self._reduce(operation, labelled[0], outputs[0], event)
        elif base in MOVES and all(tensor.is_floating_point() for tensor in labelled):
            self._move(operation, outputs)
            event.read = next(iter(self.seen(labelled)), None)
        else:
            self._probe(operation, labelled, outputs, event)

    def _meet(self, operands: Iterable[torch.Tensor], outputs: list[torch.Tensor], event: Event) -> None:
        """Label what is made element by element."""
        for output in outputs:
            self.labels.put(output, meet(operands, output.shape, event, self.labels, self.made, self.decide))

    def _reduce(self, operation: Operation, tensor: torch.Tensor, output: torch.Tensor, event: Event) -> None:
        """Label what is made of all numbers along some dimensions."""
        labels = self.labels.of(tensor)
        assert labels is not None
        over = reduced_dims(operation, labels.dim())
        if is_neutral(operation) and self.decide(event, partial(reduces_all, labels, over)):
            self.labels.put(output, torch.tensor(float(self.together)))
            return
        result, met = reduce_labels(labels, over, output.dim())
        if (met[0] != met[1]).any():
            event.joins.append(met)
            event.mixes = True
        self.labels.put(output, result)

    def _move(self, operation: Operation, outputs: list[torch.Tensor]) -> None:
        """Do to labels what is done to numbers."""

        def labels_of(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if not leaf.is_floating_point():
                return leaf.cpu()
            labels = self.labels.of(leaf)
            return torch.zeros(leaf.shape) if labels is None else labels

        args, kwargs = operation.args, operation.kwargs
        if operation.name == "constant_pad_nd":
            args, kwargs = args[:2], {}
        args, kwargs = tree_map(labels_of, (args, kwargs))
        kwargs = {key: value for key, value in kwargs.items() if key not in ("device", "dtype", "pin_memory")}
        moved = tree_leaves(operation.func(*args, **kwargs))
        for output, labels in zip(outputs, moved, strict=True):
            self.labels.put(output, labels)

    def _probe(
        self, operation: Operation, labelled: list[torch.Tensor], outputs: list[torch.Tensor], event: Event
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
                    return leaf.clone() if isinstance(leaf, torch.Tensor) and operation.in_place else leaf
                return torch.ones_like(leaf).masked_fill_(speaks[read[id(leaf)]].to(leaf.device), torch.nan)

            answer = tree_leaves(
                operation.func(*tree_map(speak, operation.args), **tree_map(speak, operation.kwargs))
            )
            return [answer[index].isnan().cpu() for index in audible]

        try:
            if not audible or not all(tensor.is_floating_point() for tensor in labelled):
                raise TypeError("not of numbers")
            if operation.func.namespace != "aten" and len(labelled) > 1:
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
        return [seen(labels) for tensor in tensors if (labels := self.labels.of(tensor)) is not None]


def _multiply_adds(operation: Operation, result: Any) -> int:
    """Of a convolution or a matrix product."""
    count = flop_registry[operation.func.overloadpacket]
    return int(count(*operation.args, **operation.kwargs, out_val=result)) // 2
