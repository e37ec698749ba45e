"""Is a slim network what its channel graph says? Followed operation by operation, like the original.

The slim network's channels are labelled with their classes. Every operation must then write what the original's
wrote, less the classes that are gone, and must let only channels of one class meet. The first operation that
does not tells which classes cannot be removed, and why.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.coupling import Classes, Keep, Node, PrunableLayer
from dsfp_env.channels.cutting import cut
from dsfp_env.channels.events import Event, Seen
from dsfp_env.channels.layers import kind_of
from dsfp_env.channels.lent import Example
from dsfp_env.channels.tracing import Trace, Vertices, run_labelled, tensors_of
from dsfp_env.common.machine_errors import raise_if_of_the_machine


class Graph(Protocol):
    """What is verified; `ChannelGraph` says what each of these means."""

    layers: dict[str, PrunableLayer]
    sets: list[tuple[str, ...]]
    nodes: dict[str, Node]
    num_classes: int

    def alive(self, keep: Keep) -> np.ndarray:
        """Which classes stay."""

    def keep(self, ratios: Mapping[str, float], scores: Mapping[str, torch.Tensor], min_filters: int = 1) -> Keep:
        """Which filters stay."""

    def slim(self, network: nn.Module, keep: Keep) -> nn.Module:
        """The smaller network."""

    def masked(self, network: nn.Module, keep: Keep) -> nn.Module:
        """The reference."""


_FEW = 16  # filters, of which 90 % are all but one
_MORE = 8  # trials of networks that take channels by position
_STIRRED = 10_000  # numbers; larger tensors are left as they are, unless their numbers are all the same
_IN_ORDER = {"cat", "stack", "constant_pad_nd", "repeat"}  # these look at whole tensors


class Fault(NamedTuple):
    """A removal that was not exact."""

    classes: dict[int, str]  # that were at fault, with the reason
    event: int | None = None  # the number of the operation that took other channels than before, if it is known


def stirred(network: nn.Module) -> nn.Module:
    """A copy in which small tensors, and those of equal numbers, hold others; the rest is shared.

    A branch that is initialised to zero shows nothing of what is wrong in it. Buffers of the user's own are left
    as they are: they may be anything, such as places to look at.
    """
    rng = torch.Generator().manual_seed(0)
    kept = {
        id(tensor)
        for module in network.modules()
        if kind_of(module) is None
        for tensor in module._buffers.values()
    }
    memo: dict[int, torch.Tensor] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        new = old = tensor.detach()
        small = old.numel() > 0 and (old.numel() <= _STIRRED or _is_even(old))
        if old.is_floating_point() and small and id(tensor) not in kept:
            noise = torch.rand(old.shape, generator=rng).to(old)  # positive, as variances are
            new = (old * (0.8 + 0.4 * noise) + 0.3 * noise).to(old.dtype)
        memo[id(tensor)] = nn.Parameter(new, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else new
    return copy.deepcopy(network, memo)


def _is_even(numbers: torch.Tensor) -> bool:
    """Whether all numbers are the same."""
    flat = numbers.reshape(-1)
    return bool((flat[:64] == flat[0]).all()) and bool((flat == flat[0]).all())


def faults_of(graph: Graph, network: nn.Module, example: Example, trace: Trace, classes: Classes) -> Fault | None:
    """The first fault that is found, by pruning in several ways; None if there is none.

    Args:
        graph: That would be right, if there were none.
        network: The network that was traced, `stirred`.
        example: One image, or one of each input.
        trace: Of the network.
        classes: Of its channels; what is pinned there is not found again.
    """
    if not graph.layers:
        return None
    by_position = _takes_by_position(trace, classes)
    trials = list(_trials(graph, classes, more=by_position, singly=not any(map(_reorders, trace.events))))
    for number, keep in enumerate(trials):
        alive = torch.from_numpy(graph.alive(keep))
        shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
        slim = cut(network, graph.nodes, alive, shared)
        fault, after = find_fault(trace, classes, alive, slim, example)
        if fault and fault.classes.keys() - classes.pinned.keys():
            return fault
        if fault or after.error:
            break
        if by_position or number + 1 == len(trials):
            with torch.no_grad():
                masked = tensors_of(example.run(graph.masked(network, keep).eval()))
            if not same_answers(after.answers, masked):
                break
    else:
        return None
    if by_set := _faults_by_set(graph, classes, network, example):
        return Fault(by_set)
    if _why_not(graph, classes, network, example, graph.layers, 0.1, 0.4, 0.9):
        return _give_up(graph, fault)
    return None  # other operations may run after removal, and do the same


def _trials(graph: Graph, classes: Classes, more: bool, singly: bool) -> Iterator[Keep]:
    """Kept filters that bring mistakes to light: not the first ones; then some at random, never the last.

    If asked, one of a few: of a single channel, other things may run, but it is always in order. If asked, more
    at random: where channels are taken by position, it matters how many stay of each piece.

    Scores are given to classes: the mean over coupled layers, which do not lie alike, would even them out.
    """
    in_order = torch.arange(graph.num_classes)
    ratios = _at_least_one(graph, classes, dict.fromkeys(graph.layers, 0.4))
    yield graph.keep(ratios, _of_filters(graph, in_order))
    rng = torch.Generator().manual_seed(0)
    some = torch.rand(graph.num_classes, generator=rng)
    some[torch.stack([graph.nodes[path].out_class[-1] for path in graph.layers])] = -1
    for number in range(1 + _MORE * more):
        shares = (0.1 + 0.8 * torch.rand(len(graph.layers), generator=rng)).tolist()
        ratios = dict(zip(graph.layers, shares, strict=True))
        if singly:
            ratios |= {path: 0.9 for path, layer in graph.layers.items() if layer.out_channels < _FEW}
        least = 1 if singly else 2 - number % 2
        yield graph.keep(_at_least_one(graph, classes, ratios), _of_filters(graph, some), min_filters=least)
        some = torch.rand(graph.num_classes, generator=rng)


def _takes_by_position(trace: Trace, classes: Classes) -> bool:
    """Whether an operation takes channels that can be removed by their position, or some of them together."""
    pinned = torch.zeros(len(classes.of_label), dtype=torch.bool)  # by class
    pinned[list(classes.pinned)] = True
    return any(
        not pinned[classes.of_label[seen.compact.flatten().long()]].all()
        for event in trace.events
        if event.mixes or _reorders(event)
        for seen in (*event.labels, *([event.read] if event.read is not None else []))
    )


def _reorders(event: Event) -> bool:
    """Whether what an operation wrote are other channels than it read, or in another order."""
    if event.read is None or event.operation.split(" ")[0] in _IN_ORDER:
        return False
    read = event.read.compact.flatten()
    return not all(torch.equal(seen.compact.flatten().unique_consecutive(), read) for seen in event.labels)


def _at_least_one(graph: Graph, classes: Classes, ratios: dict[str, float]) -> dict[str, float]:
    """Ratios of whole sets, raised so that every set loses something: a part of a layer may be pinned."""
    raised = dict(ratios)
    for paths in graph.sets:
        free = set(_classes_of(graph, paths)) - classes.pinned.keys()
        raised |= {path: max(ratios[path], 0.51 / len(free)) for path in paths if path in ratios}
    return raised


def _of_filters(graph: Graph, of_class: torch.Tensor) -> dict[str, torch.Tensor]:
    """Scores of each layer's filters, given those of classes."""
    return {path: of_class[graph.nodes[path].out_class] for path in graph.layers}


def _faults_by_set(graph: Graph, classes: Classes, network: nn.Module, example: Example) -> dict[int, str]:
    """Where following tells nothing: prune one coupled set more each time, and compare with masking.

    A set with which the comparison fails is at fault, and left out from then on; so others are not.
    """
    faults: dict[int, str] = {}
    fine: list[str] = []
    for paths in graph.sets:
        if why := _why_not(graph, classes, network, example, [*fine, *paths], 0.5, 0.9):
            faults |= dict.fromkeys(_classes_of(graph, paths), why)
        else:
            fine += paths
    return faults


def _why_not(
    graph: Graph, classes: Classes, network: nn.Module, example: Example, paths: Iterable[str], *ratios: float
) -> str | None:
    """Why some layers cannot lose one of these shares of their filters together; None if they can."""
    rng = torch.Generator().manual_seed(0)
    scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in graph.layers.items()}
    for ratio in ratios:
        keep = graph.keep(_at_least_one(graph, classes, dict.fromkeys(paths, ratio)), scores)
        try:
            with torch.no_grad():
                slim, masked = graph.slim(network, keep).eval(), graph.masked(network, keep).eval()
                exact = same_answers(tensors_of(example.run(slim)), tensors_of(example.run(masked)))
        except Exception as error:  # whatever a network raises whose parts are smaller than it expects
            raise_if_of_the_machine(error, "verifying a removal", "the example image")
            return f"the forward pass fails when it loses filters ({error})"
        if not exact:
            return "removing its filters is not the same as masking them: something depends on their number"
    return None


def _give_up(graph: Graph, fault: Fault | None) -> Fault:
    why = next(iter(fault.classes.values() if fault else ()), "they differ together")
    why = f"removing filters is not the same as masking them ({why})"
    return Fault(dict.fromkeys(_classes_of(graph, graph.layers), why))


def _classes_of(graph: Graph, paths: Iterable[str]) -> list[int]:
    """The classes of some layers' filters."""
    return torch.cat([graph.nodes[path].out_class for path in paths]).unique().tolist()


def find_fault(
    trace: Trace, classes: Classes, alive: torch.Tensor, slim: nn.Module, example: Example
) -> tuple[Fault | None, Trace]:
    """Compare the way of channels through a slim network with that through the original.

    Args:
        trace: Of the original network.
        classes: Of its channels.
        alive: Which classes the slim network kept, ``[classes]`` bool.
        slim: The slim network.
        example: One image, or one of each input.

    Returns:
        The fault, if there is one, and the slim network's trace.
    """
    vertices: Vertices = {}
    for key, labels in trace.vertices.items():
        own = classes.of_label[labels]
        vertices[key] = own[alive[own]] + 1
    after = run_labelled(slim, example, vertices, trace.modes, uncut=trace)
    number = torch.cat([torch.zeros(1, dtype=torch.int64), classes.of_label[1:] + 1])  # label -> class + 1, or 0
    stays = torch.cat([torch.zeros(1, dtype=torch.bool), alive])
    pinned = torch.zeros(len(alive) + 1, dtype=torch.bool)  # classes that stay in any case may meet
    pinned[[1 + one for one in classes.pinned]] = True
    for place, (before, now) in enumerate(zip(trace.events, after.events, strict=False)):
        if why := _difference(before, now, number, stays, pinned):
            wrote = [number[seen.compact.long()] for seen in before.labels]
            return Fault(_blame(before, why, wrote, number, pinned), place), after
    if after.error is None:
        return None, after
    place = len(after.events)
    expected = trace.events[place] if place < len(trace.events) else None
    failed = after.failed or expected or Event("the forward pass")
    read = [seen.compact.long() for seen in failed.labels] if after.failed else []
    why = f"fails after removal ({_one_line(after.error)})"
    if expected is None or expected.operation != failed.operation:
        return Fault(_blame(failed, why, read, number, pinned)), after
    read += [number[seen.compact.long()] for seen in expected.labels]  # also what is gone
    return Fault(_blame(expected, expected.doubt or why, read, number, pinned), place), after


def _difference(before: Event, now: Event, number: torch.Tensor, stays: torch.Tensor, pinned: torch.Tensor) -> str:
    """What an operation does otherwise after removal, in words; nothing if nothing.

    Args:
        before: What it did in the original network.
        now: What it does in the slim one, in numbers of classes (class + 1).
        number: Of the class of every label, 0 of none; ``[labels]`` int64.
        stays: Whether a class is in the slim network, by number.
        pinned: Whether it is in any, by number.
    """
    if before.operation != now.operation or len(before.labels) != len(now.labels):
        return "is not what runs after removal"
    wrote = (number[seen.compact.long()] for seen in before.labels)
    if not all(_same(one, seen, stays) for one, seen in zip(wrote, now.labels, strict=True)):
        return "takes channels by their position, and would take others after removal"
    if any((joined[0] != joined[1])[~pinned[joined].all(0)].any() for joined in now.joins):
        return "would combine other channels after removal"
    return ""


def same_answers(slim: list[torch.Tensor], masked: list[torch.Tensor]) -> bool:
    """Whether all that two networks answer is equal but for rounding."""
    return len(slim) == len(masked) and all(map(same_logits, slim, masked))


def same_logits(slim: torch.Tensor, masked: torch.Tensor) -> bool:
    """Whether two outputs are equal but for rounding; not known if the reference is not finite."""
    if slim.shape != masked.shape or slim.dtype != masked.dtype:
        return False
    if masked.is_complex():
        slim, masked = torch.view_as_real(slim.resolve_conj()), torch.view_as_real(masked.resolve_conj())
    if not masked.is_floating_point():
        return torch.equal(slim, masked)
    if not masked.isfinite().all():
        return True
    tolerance = max(1e-4, 20 * torch.finfo(masked.dtype).eps)
    return torch.allclose(slim, masked, rtol=0, atol=tolerance * float(masked.abs().max() + 1e-6))


def _same(before: torch.Tensor, now: Seen, stays: torch.Tensor) -> bool:
    """Whether a tensor holds what the original's held ``before`` (compact), less what does not stay."""
    if before.dim() != now.compact.dim():
        return False
    if 0 in now.shape:
        return not stays[before].any()
    shape, stay, gone = [], stays[before], ~stays[before] & (before > 0)
    for dim, (whole, size, full) in enumerate(zip(before.shape, now.compact.shape, now.shape, strict=True)):
        if whole == 1 and size > 1:
            return False  # nothing changed along this dimension, and now something does
        if whole > 1 and full != whole - int((_some(gone, dim) & ~_some(stay, dim)).sum()):
            return False  # what stays is not a whole block
        shape.append(1 if whole == 1 else full)
    found = now.compact.expand(shape).flatten().long()
    return torch.equal(before[stays[before]], found[found > 0])


def _some(numbers: torch.Tensor, dim: int) -> torch.Tensor:
    """Along a dimension, whether any is true."""
    return numbers.movedim(dim, 0).reshape(numbers.shape[dim], -1).any(1)


def _blame(
    event: Event, why: str, numbers: list[torch.Tensor], number: torch.Tensor, pinned: torch.Tensor
) -> dict[int, str]:
    """Classes of these numbers, with the reason; if all of these stay in any case, those that were read."""
    every = torch.cat([torch.empty(0, dtype=torch.int64), *(one.flatten() for one in numbers)]).unique()
    every = every[every > 0]
    if event.read is not None and pinned[every].all():
        every = number[event.read.compact.flatten().long()].unique()
        every = every[every > 0]
    return {one - 1: f"{event.operation} {why}" for one in every.tolist()}


def _one_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
