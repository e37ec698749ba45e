"""Which filter writes which channel of which layer: found out by running the network, not by reading it.

Every output channel of every convolution and linear layer gets a label of its own, and so does every input
position of every layer. The network runs once on the example input while a `Propagation` passes labels on; what
arrives at a layer's input is joined with the positions that read it. Layers themselves are opaque: what is inside
of them is known (see `layers`).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from dsfp_env.channels.events import Event
from dsfp_env.channels.labels import distinct
from dsfp_env.channels.layers import Convolution, Kind, Weighted, kind_of
from dsfp_env.channels.lent import Example
from dsfp_env.channels.operations import tensors_in
from dsfp_env.channels.propagation import Propagation, ReadsValues
from dsfp_env.common.errors import InputError
from dsfp_env.common.forwards import replace_forward
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.random_numbers import own_random_numbers

INPUT = "<input>"  # of the network; no module path looks like this
TOGETHER = "<together>"  # what is made of all channels of something, and does not tell them apart
Vertices = dict[tuple[str, str], torch.Tensor]  # (module path, "in" | "out" | name of a tensor) -> labels, int64


@dataclass
class Trace:
    """What was seen while a network ran on one image."""

    modules: dict[str, nn.Module] = field(default_factory=dict)  # layers that ran, in order of execution
    vertices: Vertices = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)  # path -> uses of each weight, per image
    unlike: set[str] = field(default_factory=set)  # layers of the user's own that are not like those of their kind
    norms: dict[str, str] = field(default_factory=dict)  # convolution -> normalisation that takes its output
    vectors: dict[tuple[str, str], int] = field(default_factory=dict)  # other tensors, one number per channel: dim
    events: list[Event] = field(default_factory=list)
    outputs: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # labels that reach the logits
    other_macs: int = 0  # of convolutions and linear maps that are no layer's
    answers: list[torch.Tensor] = field(default_factory=list)  # the tensors that it answered in evaluation mode
    modes: tuple[bool, ...] = (False,)  # it ran in evaluation mode, and (True) in training mode
    failed: Event | None = None
    error: Exception | None = None


def trace_network(network: nn.Module, example: Example) -> Trace:
    """Find out where every channel goes.

    Layers that only run in training, such as auxiliary classifiers, are followed there.

    Args:
        network: It is neither changed nor moved: what runs is a copy of its structure that shares its tensors.
        example: One image, or one of each input.

    Raises:
        InputError: If the network fails on the example input, answers no tensor or one that is not ``[N, ...]``,
            or reads the value of an activation into Python.
    """
    trace = run_labelled(network, example, {}, (False,))
    if trace.error is None and any(
        (kind := kind_of(module)) is not None and kind.runs_itself(module) and path not in trace.modules
        for path, module in network.named_modules()
    ):
        also_trained = run_labelled(network, example, {}, (False, True))
        trace = trace if also_trained.error else also_trained
    name = type(network).__name__
    if isinstance(trace.error, ReadsValues):
        raise InputError(
            f"{name} cannot be traced: {trace.error}. Which filters can be removed then depends on the data; "
            "expected a forward pass without control flow on activations."
        ) from trace.error
    if trace.error is not None:
        where = f", in {trace.failed.operation}" if trace.failed else ""
        raise InputError(
            f"The network {name} failed on the example input of {example.shapes}{where}: {trace.error}. "
            "Expected an image batch that it maps to logits."
        ) from trace.error
    return trace


def run_labelled(
    network: nn.Module,
    example: Example,
    vertices: Vertices,
    modes: tuple[bool, ...],
    uncut: Trace | None = None,
) -> Trace:
    """Run a network on one image, labelled, and write down what happens.

    Args:
        network: The network; it is not changed.
        example: One image, or one of each input, on its device.
        vertices: Labels that are given; what is not named gets labels of its own.
        modes: Of the runs: False for evaluation, True for training.
        uncut: Of the network that this one was cut from, if it was.

    Returns:
        What was seen until the end, or until an exception, which is in ``error``.

    Raises:
        InputError: If the network cannot be copied.
    """
    trace = Trace(vertices=dict(vertices), modes=modes)
    propagation = Propagation(uncut.events if uncut else None)
    skeleton = share_parameters(network)
    run = _Run(propagation, trace)
    _label_vectors(skeleton, run, uncut)
    propagation.together = int(run.labels(TOGETHER, "out", 1))
    for path, module in skeleton.named_modules():
        replace_forward(module, partial(run.forward, path, module, module.forward))
    device = example.tensors[0].device if example.tensors else torch.device("cpu")
    try:
        with torch.no_grad(), own_random_numbers(device), _slow_attention():
            for training in modes:
                skeleton.train(training)
                propagation.counting = not training
                inputs = example.copied()
                _label_inputs(inputs, run)
                with propagation:
                    run.finish(inputs.run(skeleton), training)
    except Exception as error:  # whatever a network raises that does not take this example, or was cut wrongly
        raise_if_of_the_machine(error, f"tracing {type(network).__name__}", "the example image")
        trace.error = error
    trace.events, trace.failed = propagation.events, propagation.failed
    trace.other_macs = propagation.multiply_adds
    return trace


def tensors_of(output: Any) -> list[torch.Tensor]:
    """The tensors in what a network answers: one, or several in tuples, lists, dictionaries, dataclasses."""
    if dataclasses.is_dataclass(output) and not isinstance(output, type):
        output = [getattr(output, field.name) for field in dataclasses.fields(output)]
        return [tensor for part in output for tensor in tensors_of(part)]
    return tensors_in(output)


def share_parameters(network: nn.Module) -> nn.Module:
    """A copy of a network, in evaluation mode, that shares the memory of its parameters, not of its buffers.

    Raises:
        InputError: If the network cannot be copied.
    """
    shared = {
        id(p): nn.Parameter(p.clone() if p.is_inference() else p.detach(), p.requires_grad)
        for p in network.parameters()
    }
    try:
        return copy.deepcopy(network, shared).eval()
    except Exception as error:  # whatever a module's own copying raises
        raise_if_of_the_machine(error, f"copying {type(network).__name__}", "the network")
        raise InputError(
            f"The network {type(network).__name__} cannot be copied ({error}): expected an nn.Module that "
            "copy.deepcopy accepts; for a scripted or compiled network, pass the original module."
        ) from error


class _Run:
    """Stands between the modules of a skeleton and the propagation."""

    def __init__(self, propagation: Propagation, trace: Trace) -> None:
        self.propagation = propagation
        self.trace = trace
        given = [int(labels.max()) for labels in trace.vertices.values() if len(labels)]
        propagation.num_labels = 1 + max(given, default=0)
        self._writers: dict[int, tuple[str, torch.Tensor, int]] = {}  # id of an output -> path, itself, version

    def labels(self, path: str, side: str, count: int) -> torch.Tensor:
        """Labels of the channels on one side of a layer ``[count]``; given now if it has none."""
        vertices, propagation = self.trace.vertices, self.propagation
        if (path, side) not in vertices:
            start = propagation.num_labels
            vertices[path, side] = torch.arange(start, start + count)
            propagation.owners = torch.cat([propagation.owners, torch.tensor([start])])
            propagation.num_labels += count
        return vertices[path, side]

    def forward(
        self, path: str, module: nn.Module, forward: Callable[..., Any], *inputs: Any, **kwargs: Any
    ) -> Any:
        """Instead of a module's own forward."""
        if self.propagation.sleeps:
            return forward(*inputs, **kwargs)
        with self.propagation.inside(path):
            kind = kind_of(module)
            if kind is None:
                return forward(*inputs, **kwargs)
            if _is_torchs_own(module) or self._is_plain(module, kind, forward, *inputs, **kwargs):
                with self.propagation.opaque():
                    return self._layer(path, module, kind, forward, *inputs, **kwargs)
            self.trace.unlike.add(path)  # its forward pass is followed like that of any other module
            return forward(*inputs, **kwargs)

    def _is_plain(
        self, module: nn.Module, kind: Kind, forward: Callable[..., Any], *inputs: Any, **kwargs: Any
    ) -> bool:
        """Whether a layer whose forward pass is the user's own maps its channels as layers of its kind do."""
        image = inputs[0] if inputs else next(iter(kwargs.values()), None)
        if not isinstance(image, torch.Tensor) or image.dim() <= abs(kind.channel_dim(module)):
            return False
        counting, self.propagation.counting = self.propagation.counting, False
        with self.propagation.opaque():
            output = forward(*inputs, **kwargs)
        self.propagation.counting = counting
        dim = kind.channel_dim(module)
        if not isinstance(output, torch.Tensor) or output.dim() != image.dim():
            return False
        reads, writes = image.shape[dim], output.shape[dim]
        if isinstance(kind, Weighted):
            return (reads, writes) == (kind.in_width(module), kind.out_width(module))
        return reads == writes

    def finish(self, output: Any, training: bool) -> None:
        """After a run."""
        tensors = tensors_of(output)
        found = [distinct(labels) for t in tensors if (labels := self.propagation.labels.of(t)) is not None]
        self.trace.outputs = torch.cat([self.trace.outputs.long(), *found])
        if training:
            return
        if torch.is_tensor(output) and (output.dim() < 2 or output.shape[0] != 1):
            raise TypeError(f"it answered {tuple(output.shape)}, not logits [1, classes] for one image")
        if not tensors:
            raise TypeError(f"it answered {type(output).__name__}, and no tensor in it")
        self.trace.answers = tensors

    def _layer(
        self, path: str, module: nn.Module, kind: Kind, forward: Callable[..., Any], *inputs: Any, **kwargs: Any
    ) -> torch.Tensor:
        image = inputs[0] if inputs else next(iter(kwargs.values()))
        arrived = self.propagation.labels.of(image)
        event = Event(f"the forward pass in {path!r}", path, self.propagation.seen([image]))
        self.propagation.failed = event
        statistics = kind.is_normalisation and module.training  # one image has none, and buffers are not ours
        before = self.propagation.hidden_macs
        output = image.clone() if statistics else forward(*inputs, **kwargs)
        own = kind.uses(module, image, output) * kind.weight(module).numel() if isinstance(kind, Weighted) else 0
        if self.propagation.counting:  # what a forward pass of the user's own computes besides
            self.propagation.multiply_adds += self.propagation.hidden_macs - before - own
        self.propagation.failed = None
        dim = kind.channel_dim(module)
        reads = self.labels(path, "in", image.shape[dim])
        if arrived is not None:
            arriving = _arriving(arrived.movedim(dim, 0).flatten(1), reads)
            event.joins.append(arriving)
            event.mixes = arriving.shape[1] > len(reads)  # it looks at channels along another dimension
            self.propagation.events.append(event)
        writes = self.labels(path, "out", kind.out_width(module)) if isinstance(kind, Weighted) else reads
        self.propagation.labels.put(output, _along(writes, dim, output))
        self._note(path, module, kind, image, output)
        return output

    def _note(self, path: str, module: nn.Module, kind: Kind, image: torch.Tensor, output: torch.Tensor) -> None:
        trace = self.trace
        trace.modules.setdefault(path, module)
        if isinstance(kind, Weighted) and not module.training:
            trace.positions[path] = trace.positions.get(path, 0) + kind.uses(module, image, output)
        if isinstance(kind, Convolution):
            self._writers[id(output)] = (path, output, output._version)  # held, so that its id stays its own
        elif kind.is_normalisation and id(image) in self._writers:
            writer, _, version = self._writers[id(image)]
            if version == image._version:
                trace.norms[writer] = path


def _label_inputs(inputs: Example, run: _Run) -> None:
    """Label the channels of all inputs that have some; these stay, and their values may be read."""
    images = [one for one in inputs.tensors if one.dim() >= 2 and one.is_floating_point()]
    of_image = [run.propagation.of_image[:0]]
    for number, image in enumerate(images):
        of_image.append(run.labels(INPUT, f"out {number}" if number else "out", image.shape[1]))
        run.propagation.labels.put(image, _along(of_image[-1], 1, image))
    run.propagation.of_image = torch.cat(of_image)


def _label_vectors(skeleton: nn.Module, run: _Run, uncut: Trace | None) -> None:
    """Label parameters and buffers, of no known layer, that hold one number for each of some channels.

    If the network was cut, these are those of the uncut one: of one number, it cannot be told.
    """
    known: tuple[str, ...] = ()
    for path, module in skeleton.named_modules():
        if kind_of(module) is not None:
            known += (f"{path}.",)
        if f"{path}.".startswith(known) or _mixes(module):
            continue
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or not tensor.is_floating_point() or run.propagation.labels.of(tensor) is not None:
                continue
            if uncut is not None:
                long = [uncut.vectors[path, name]] if (path, name) in uncut.vectors else []
            else:
                long = [dim for dim, size in enumerate(tensor.shape) if size > 1]
            if len(long) == 1:
                run.trace.vectors[path, name] = long[0]
                labels = run.labels(path, name, tensor.numel())
                run.propagation.labels.put(tensor, labels.view(tensor.shape).float())


def _is_torchs_own(module: nn.Module) -> bool:
    """Whether what runs in a layer is torch's code, and not that of a class which inherits from it."""
    functions = (getattr(type(module), name, None) for name in ("forward", "_conv_forward"))
    return all(getattr(function, "__module__", "torch.").startswith("torch.") for function in functions)


def _mixes(module: nn.Module) -> bool:
    """Whether it is one of torch's own, such as LayerNorm and attention: its numbers are of channels it mixes."""
    holds_users_own = isinstance(module, (nn.ParameterList, nn.ParameterDict))
    return type(module).__module__.startswith("torch.nn.") and not holds_users_own


def _along(labels: torch.Tensor, dim: int, like: torch.Tensor) -> torch.Tensor:
    """Labels ``[channels]`` laid along one dimension, float32, to be broadcast to a tensor's shape."""
    shape = [1] * like.dim()
    shape[dim] = len(labels)
    return labels.float().view(shape)


def _arriving(labels: torch.Tensor, reads: torch.Tensor) -> torch.Tensor:
    """Pairs (position, label) ``[2, n]`` of what arrives ``[positions, elements]`` at the positions of a layer."""
    highest = labels.amax(1)
    lowest = labels.masked_fill(labels == 0, torch.inf).amin(1)
    if not (highest > lowest).any():
        both = torch.stack([reads, highest.long()])
    else:
        found = [distinct(one) for one in labels]
        both = torch.cat([torch.stack([v.expand(len(f)), f]) for v, f in zip(reads, found, strict=True)], 1)
    return both[:, both[1] > 0]


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Without the fused attention of evaluation mode, whose inside cannot be followed or counted."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
