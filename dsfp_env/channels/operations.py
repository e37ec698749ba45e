"""An operation of torch as it is dispatched, and what is known of some by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

ELEMENTWISE = {"_to_copy", "hardswish", "native_dropout", "_prelu_kernel"}  # and all that torch tags so
MOVES = {
    "cat", "stack", "constant_pad_nd", "roll", "flip", "repeat", "index_select", "index", "gather", "clone",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "im2col", "_unsafe_view",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
}  # fmt: skip
LINEAR = {"convolution", "addmm", "mm"}  # what convolutions and linear layers are made of
RESHAPES = {"_unsafe_view": "view", "_reshape_alias": "view"}  # which of them runs depends on the memory


@dataclass(frozen=True)
class Operation:
    """A call of one of torch's operations."""

    func: Any  # an `OpOverload`
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @cached_property
    def name(self) -> str:
        """Such as "relu_", without the library it is of."""
        return self.func._schema.name.split("::")[1]

    @cached_property
    def base(self) -> str:
        """The name of the operation that does the same, but not in place."""
        name = self.name
        return name[:-1] if name.endswith("_") and not name.startswith("__") else name

    @property
    def in_place(self) -> bool:
        """Whether it changes what it reads."""
        return self.func._schema.is_mutable

    @property
    def is_elementwise(self) -> bool:
        """Whether each number is made of those at its place."""
        return torch.Tag.pointwise in self.func.tags or self.base in ELEMENTWISE

    @cached_property
    def inputs(self) -> list[torch.Tensor]:
        """The tensors that it reads."""
        return tensors_in((self.args, self.kwargs))

    def run(self) -> Any:
        """Its result."""
        return self.func(*self.args, **self.kwargs)

    def argument(self, name: str) -> Any:
        """An argument by its name; None, if it has none or none was given."""
        names = [argument.name for argument in self.func._schema.arguments]
        return {**dict(zip(names, self.args, strict=False)), **self.kwargs}.get(name)


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
