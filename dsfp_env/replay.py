"""A network run again and again with some filters silent, the layers before them computed once."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from dsfp_env.layers import CHANNELWISE, WEIGHTED
from dsfp_env.tracing import share_parameters


class Replay:
    """Remembers what every layer answered on some images, and answers so again for the layers before a point.

    The network itself is not touched: the replay works on a copy of its structure that shares its tensors. A
    module that runs more than once is never replayed, only run.
    """

    def __init__(self, network: nn.Module, images: torch.Tensor) -> None:
        self._skeleton = share_parameters(network)
        self._images = images
        self._position = 0  # modules that first ran before this position are replayed
        self._filters = torch.empty(0)
        self._answers: dict[str, list[torch.Tensor]] = {}  # in order of execution
        modules = {
            path: module
            for path, module in self._skeleton.named_modules()
            if isinstance(module, (*WEIGHTED, *CHANNELWISE))
        }
        hooks = [module.register_forward_hook(partial(self._note, path)) for path, module in modules.items()]
        with torch.no_grad():
            self.logits = self._skeleton(images)  # [images, classes]
        for hook in hooks:
            hook.remove()
        for position, path in enumerate(self._answers):
            vars(modules[path])["forward"] = partial(self._forward, position, path, modules[path])

    @property
    def num_bytes(self) -> int:
        """What the remembered answers take."""
        return sum(tensor.nbytes for calls in self._answers.values() for tensor in calls)

    @torch.no_grad()
    def without(self, point: str, filters: torch.Tensor) -> torch.Tensor:
        """Logits ``[filters, images, classes]``: the output of module ``point`` is zero in one of its channels.

        Args:
            point: Module path.
            filters: Indices of channels of that module's output, ``[filters]``.
        """
        self._position, self._filters = list(self._answers).index(point), filters
        logits = self._skeleton(self._repeat(self._images))
        return logits.view(len(filters), len(self._images), -1)

    def _note(self, path: str, module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        self._answers.setdefault(path, []).append(output.clone())  # an operation in place may follow

    def _forward(self, position: int, path: str, module: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        answers = self._answers[path]
        if position < self._position and len(answers) == 1:
            return self._repeat(answers[0])
        output = type(module).forward(module, inputs)
        if position == self._position:
            per_filter = output.view(len(self._filters), len(self._images), *output.shape[1:])
            for copy, channel in zip(per_filter, self._filters.tolist(), strict=True):
                copy[:, channel] = 0
        return output

    def _repeat(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat(len(self._filters), *[1] * (tensor.dim() - 1))  # [filters * images, ...]
