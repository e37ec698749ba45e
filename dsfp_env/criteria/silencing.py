"""A network run again and again with one filter after another silent; what does not change is computed once.

`torch.vmap` runs the network for several filters at a time. What comes before the silent filter does not depend on
it and has no dimension of filters: layers are answered from memory, and operations between them run once. The
images of all filters are one large batch from there on, and only there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from dsfp_env.channels.layers import kind_of
from dsfp_env.common.forwards import replace_forward
from dsfp_env.common.machine_errors import raise_if_of_the_machine

Map = Callable[..., torch.Tensor]


class Replay:
    """Remembers what every layer answered on some images, and answers so again for the layers before a point.

    A module that runs more than once is never answered from memory, only run. The network is changed: the replay
    stands between its modules.

    Args:
        network: In evaluation mode.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._images = self.logits = torch.empty(0)
        self._answers: dict[
            str, list[torch.Tensor]
        ] = {}  # module path -> of each of its runs, in order of first runs
        self._order: dict[str, int] = {}  # module path -> place in that order
        self._point: str | None = None  # the module where a filter is silent
        self._filter = torch.empty(0)
        for path, module in network.named_modules():
            if kind_of(module) is not None:
                replace_forward(module, partial(self._forward, path, module.forward))

    @torch.no_grad()
    def remember(self, images: torch.Tensor) -> torch.Tensor:
        """Run on images ``[images, C, ...]``; returns the logits ``[images, classes]``."""
        self._images, self._answers, self._point = images, {}, None
        self.logits = self._network(images)
        self._order = {path: place for place, path in enumerate(self._answers)}
        return self.logits

    def num_bytes(self, point: str | None = None) -> tuple[int, int]:
        """What the answers take, all together and the largest; of all modules, or of those from a point on."""
        paths = list(self._answers)[self._order[point] if point else 0 :]
        sizes = [tensor.nbytes for path in paths for tensor in self._answers[path]]
        return sum(sizes), max(sizes)

    @torch.no_grad()
    def without(self, point: str, filters: torch.Tensor) -> torch.Tensor:
        """Logits ``[filters, images, classes]``: the output of module ``point`` is zero in one of its channels.

        What `torch.vmap` cannot run, such as some operations in place, runs for one filter after another.

        Args:
            point: Module path.
            filters: Indices of channels of that module's output, ``[filters]``.
        """
        logits = partial(self._without_one, point)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="There is a performance drop")
                return torch.vmap(logits)(filters)
        except (RuntimeError, ValueError, UserWarning) as error:
            raise_if_of_the_machine(error, f"silencing filters of {point!r}", "max_batch or max_memory")
            return torch.stack([logits(filter_) for filter_ in filters])

    def _without_one(self, point: str, filter_: torch.Tensor) -> torch.Tensor:
        self._point, self._filter = point, filter_
        return self._network(self._images)

    def _forward(self, path: str, forward: Map, *inputs: Any, **kwargs: Any) -> torch.Tensor:
        """Instead of a module's own forward."""
        if self._point is None:
            output = forward(*inputs, **kwargs)
            self._answers.setdefault(path, []).append(output.clone())  # an operation in place may follow
            return output
        before = self._order[path] <= self._order[self._point]
        if before and len(self._answers[path]) == 1:
            output = self._answers[path][0].clone()
        elif len(inputs) == 1 and not kwargs:
            output = _AtOnce.apply(forward, *inputs)
        else:
            output = forward(*inputs, **kwargs)
        return _Silenced.apply(output, self._filter) if path == self._point else output


class _Undifferentiated(torch.autograd.Function):
    """A function that says itself what `torch.vmap` makes of it."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept for a gradient."""


class _AtOnce(_Undifferentiated):
    """A module that looks at every image by itself: images of all filters are one batch to it."""

    @staticmethod
    def forward(module: Map, images: torch.Tensor) -> torch.Tensor:
        return module(images)

    @staticmethod
    def vmap(info: Any, in_dims: Any, module: Map, images: torch.Tensor) -> tuple[torch.Tensor, int]:
        batch = images.movedim(in_dims[1], 0).flatten(0, 1)
        return module(batch).unflatten(0, (info.batch_size, -1)), 0


class _Silenced(_Undifferentiated):
    """An output ``[images, channels, ...]`` with zeros in one channel."""

    @staticmethod
    def forward(output: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
        return output.index_fill(1, channel, 0)

    @staticmethod
    def vmap(info: Any, in_dims: Any, output: torch.Tensor, channels: torch.Tensor) -> tuple[torch.Tensor, int]:
        if in_dims[0] is None:
            copies = torch.cat([output] * info.batch_size).unflatten(0, (info.batch_size, -1))
        else:
            copies = output.movedim(in_dims[0], 0).clone()
        copies[torch.arange(len(copies), device=copies.device), :, channels] = 0
        return copies, 0
