"""Which filter writes which channel of which consumer: found out by running the network, not by reading it.

The probe needs no rule for any operation. Every convolution and linear layer is replaced by a stub that
answers zeros of the right shape; one *producer* at a time answers NaN on some of its channels instead. NaN
survives every elementwise operation, sum, product, concatenation, pooling, padding and reshape, so what arrives
at the inputs of the other layers tells where each channel went. The channel's number is written in binary over
the samples of one batch: sample k carries NaN on the channels whose bit k is one, and sample ``bits + k`` on
those whose bit k is zero. A position that hears exactly one sample of each such pair reads one channel; one
that hears both reads several channels at once, and then that producer's filters cannot be told apart there.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from dsfp_env.errors import InputError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTED = (*CONVOLUTIONS, nn.Linear)  # absorb their input channels, write output channels of their own
CHANNELWISE = (_BatchNorm, _InstanceNorm, nn.PReLU)  # one parameter (or statistic) per channel, order kept
INPUT, OUTPUT = "<input>", "<output>"  # the two ends of the network; no module path looks like this


@dataclass(frozen=True)
class Link:
    """What one call of a consumer hears of one producer."""

    consumer: str
    producer: str
    channels: torch.Tensor  # [positions of the consumer], int64: the producer's channel there, or -1


@dataclass
class Probe:
    """The channel structure of a network."""

    modules: dict[str, nn.Module]  # weighted and channelwise modules that ran, in order of execution
    output_shapes: dict[str, list[torch.Size]]  # per call, for one image
    widths: dict[str, int]  # consumer -> number of input positions; INPUT, OUTPUT -> channels, logits
    norms: dict[str, str] = field(default_factory=dict)  # convolution -> normalisation that takes its output
    links: list[Link] = field(default_factory=list)
    mixed: dict[str, str] = field(default_factory=dict)  # producer -> consumer where its channels are one


def probe_channels(network: nn.Module, example_input: torch.Tensor) -> Probe:
    """Find out where every channel goes.

    Args:
        network: Maps an image batch to logits. It is neither changed nor moved; the probe runs on a copy of its
            structure that shares its tensors, in evaluation mode.
        example_input: One or more images ``[N, C, ...]``; only the first is used.

    Raises:
        InputError: If the network fails on the example input or does not answer one tensor ``[N, ...]``.
    """
    skeleton = share_tensors(network)
    device = next((p.device for p in network.parameters()), example_input.device)
    image = example_input[:1].to(device)
    with torch.no_grad():
        probe = _record(skeleton, image)
        stage = _stub_out(probe)
        _listen(skeleton, image, probe, stage, INPUT, image.shape[1])
        for path, module in probe.modules.items():
            if isinstance(module, WEIGHTED):
                _listen(skeleton, image, probe, stage, path, module.weight.shape[0])
    return probe


def channel_dim(module: nn.Module) -> int:
    """The dimension of a module's input and output that counts channels."""
    return -1 if isinstance(module, nn.Linear) else 1


def is_depthwise(module: nn.Module) -> bool:
    """Whether each filter reads just the input channel of its own number."""
    return isinstance(module, CONVOLUTIONS) and 1 < module.groups == module.in_channels == module.out_channels


def share_tensors(network: nn.Module) -> nn.Module:
    """A copy of a network's structure that shares its tensors, in evaluation mode.

    Raises:
        InputError: If the network cannot be copied.
    """
    tensors = [*network.parameters(), *network.buffers()]
    try:
        return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors}).eval()
    except Exception as error:
        raise InputError(
            f"The network {type(network).__name__} cannot be copied ({error}): expected an nn.Module that "
            "copy.deepcopy accepts; for a scripted or compiled network, pass the original module."
        ) from error


def _record(skeleton: nn.Module, image: torch.Tensor) -> Probe:
    """Run once and write down which modules run, in which order, on which shapes."""
    probe = Probe({}, defaultdict(list), {INPUT: image.shape[1]})
    outputs: dict[int, tuple[str, torch.Tensor]] = {}  # id of a convolution's output -> who wrote it

    def note(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor, path: str) -> None:
        probe.modules.setdefault(path, module)
        probe.output_shapes[path].append(output.shape)
        probe.widths[path] = inputs[0].shape[channel_dim(module)]
        if isinstance(module, CONVOLUTIONS):
            outputs[id(output)] = (path, output)  # the tensor is held, so that its id stays its own
        elif isinstance(module, (_BatchNorm, _InstanceNorm)) and id(inputs[0]) in outputs:
            probe.norms[outputs[id(inputs[0])][0]] = path

    hooks = [
        module.register_forward_hook(partial(note, path=path))
        for path, module in skeleton.named_modules()
        if isinstance(module, (*WEIGHTED, *CHANNELWISE))
    ]
    try:
        logits = skeleton(image)
    except Exception as error:
        raise InputError(
            f"The network {type(skeleton).__name__} failed on the example input of shape {tuple(image.shape)}: "
            f"{error}. Expected an image batch that it maps to logits."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not (torch.is_tensor(logits) and logits.dim() >= 2 and logits.shape[0] == 1):
        came = tuple(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
        raise InputError(
            f"The network {type(skeleton).__name__} answered {came}: expected logits [1, classes] for one image."
        )
    probe.widths[OUTPUT] = logits.shape[1]
    return probe


@dataclass
class _Stage:
    """Who speaks, and what was heard, during one run of the stubs."""

    speaker: str = ""
    pattern: torch.Tensor = field(default_factory=lambda: torch.empty(0))  # [batch, channels], bool
    heard: list[tuple[str, torch.Tensor]] = field(default_factory=list)  # consumer, [batch, positions] bool


def _stub_out(probe: Probe) -> _Stage:
    """Replace every forward of the skeleton's layers by a stub; the skeleton is the probe's own."""
    stage = _Stage()
    for path, module in probe.modules.items():
        weighted = isinstance(module, WEIGHTED)
        stub: Callable[..., torch.Tensor] = partial(_absorb if weighted else _pass_on, stage, path, module)
        vars(module)["forward"] = partial(stub, _on_meta(module)) if weighted else stub
    return stage


def _on_meta(module: nn.Module) -> nn.Module:
    """The module without data: it computes shapes only."""
    tensors = {
        id(tensor): nn.Parameter(torch.empty_like(tensor, device="meta"), requires_grad=False)
        for tensor in module.parameters(recurse=False)
    }
    return copy.deepcopy(module, tensors)


def _absorb(stage: _Stage, path: str, module: nn.Module, on_meta: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    stage.heard.append((path, _nan_channels(inputs, channel_dim(module), len(stage.pattern))))
    shape = type(module).forward(on_meta, inputs.to("meta")).shape
    output = torch.zeros(shape, dtype=inputs.dtype, device=inputs.device)
    if path == stage.speaker:
        _speak(output, stage.pattern, channel_dim(module))
    return output


def _pass_on(stage: _Stage, path: str, module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    stage.heard.append((path, _nan_channels(inputs, channel_dim(module), len(stage.pattern))))
    return inputs.clone()  # a new tensor: an in-place operation may follow


def _speak(output: torch.Tensor, pattern: torch.Tensor, dim: int) -> None:
    """Write NaN where the pattern ``[batch, channels]`` is set, in place."""
    copies = output.shape[0] // pattern.shape[0]  # windows and patches may be folded into the batch
    shape = [1] * output.dim()
    shape[0], shape[dim] = output.shape[0], pattern.shape[1]
    output.masked_fill_(pattern.repeat_interleave(copies, 0).view(shape), math.nan)


def _nan_channels(tensor: torch.Tensor, dim: int, batch: int) -> torch.Tensor:
    """Where NaN arrived: ``[batch, positions]``, any over space and over what is folded into the batch."""
    nan = tensor.isnan().movedim(dim, 1).flatten(2).any(2) if tensor.dim() > 2 else tensor.isnan()
    return nan.reshape(batch, -1, nan.shape[1]).any(1)


def _listen(
    skeleton: nn.Module, image: torch.Tensor, probe: Probe, stage: _Stage, speaker: str, channels: int
) -> None:
    """Let one producer speak, and write down what each consumer heard."""
    bits = max(1, (channels - 1).bit_length())
    numbers = torch.arange(channels, device=image.device)
    ones = torch.stack([(numbers >> bit & 1).bool() for bit in range(bits)])  # [bits, channels]
    stage.speaker, stage.pattern, stage.heard = speaker, torch.cat([ones, ~ones]), []
    batch = torch.zeros_like(image).repeat(2 * bits, *[1] * (image.dim() - 1))
    if speaker == INPUT:
        _speak(batch, stage.pattern, 1)
    try:
        logits = skeleton(batch)
        stage.heard.append((OUTPUT, _nan_channels(logits, 1, 2 * bits)))
    except Exception as error:
        where = stage.heard[-1][0] if stage.heard else INPUT
        raise InputError(
            f"The network {type(skeleton).__name__} cannot be traced: it failed after {where!r} while "
            f"{speaker!r} was probed with NaN ({error}). Expected a forward pass without control flow that "
            "depends on the data or on the batch size."
        ) from error
    for consumer, heard in stage.heard:
        if not heard.any():
            continue
        code_ones, code_zeros = heard[:bits], heard[bits:]  # [bits, positions]
        reached = heard.any(0)
        if not (code_ones ^ code_zeros)[:, reached].all():
            probe.mixed.setdefault(speaker, consumer)
            continue
        weights = 2 ** torch.arange(bits, device=heard.device)[:, None]
        numbers_heard = torch.where(reached, (code_ones * weights).sum(0), -1)
        probe.links.append(Link(consumer, speaker, numbers_heard.cpu()))
