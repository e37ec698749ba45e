"""Something that stands in place of a module's own forward pass, put there and taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

Forward = Callable[..., Any]


def replace_forward(module: nn.Module, forward: Forward) -> None:
    """From now on, this is called in place of the module's forward pass; also if something else was."""
    vars(module)["forward"] = forward


def is_replaced(module: nn.Module) -> bool:
    """Whether something stands in place of the module's own forward pass."""
    return "forward" in vars(module)


@contextmanager
def forwards_restored(modules: Iterable[nn.Module]) -> Iterator[None]:
    """After this context, these modules have forward passes of their own again."""
    modules = list(modules)
    try:
        yield
    finally:
        for module in modules:
            vars(module).pop("forward", None)
