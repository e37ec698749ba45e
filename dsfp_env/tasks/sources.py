"""What a function or an object of the user's own is, in words that change whenever its answers may.

A function is the source of its module, its own code, its defaults, and what it takes along from where it was made.
An object is its class and what it holds. What cannot be told so raises `TypeError`; a source that is not there, as
that of a notebook, raises as `inspect` does.
"""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import torch

from dsfp_env.common.hashing import hash_of

_DEEPEST = 12  # a structure that is deeper is not looked into
_LIBRARIES = ("torch", "builtins", "numpy")  # whose releases say what they do


def described(one: Any, depth: int = 0) -> str:
    """What something is.

    Raises:
        OSError: If a source cannot be found.
        TypeError: If it is something that cannot be told.
    """
    if depth > _DEEPEST:
        raise TypeError(f"a {type(one).__name__} is too deep to be told")
    inside = partial(described, depth=depth + 1)
    if one is None or isinstance(one, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
        return repr(one)
    if isinstance(one, torch.Tensor):
        return hash_of([one])
    if isinstance(one, (list, tuple, set, frozenset)):
        parts = [inside(part) for part in one]
        return f"{type(one).__name__}({', '.join(parts if isinstance(one, (list, tuple)) else sorted(parts))})"
    if isinstance(one, Mapping):
        return f"{{{', '.join(f'{inside(key)}: {inside(value)}' for key, value in one.items())}}}"
    if isinstance(one, partial):
        return f"partial({inside(one.func)}, {inside(one.args)}, {inside(one.keywords)})"
    if isinstance(one, types.MethodType):
        return f"{one.__func__.__qualname__} of {inside(one.__self__)}"
    if isinstance(one, (types.BuiltinFunctionType, type)):
        return _named(one)
    if isinstance(one, types.FunctionType):
        taken = [cell.cell_contents for cell in one.__closure__ or ()]
        return f"{_named(one)} {inside(one.__code__)} {inside([one.__defaults__, one.__kwdefaults__, taken])}"
    if isinstance(one, types.CodeType):  # one line of a module may make several functions
        return f"{one.co_code!r} {one.co_names} {inside(one.co_consts)}"
    if is_dataclass(one):
        return f"{_named(type(one))}({', '.join(inside(getattr(one, field.name)) for field in fields(one))})"
    return f"{_named(type(one))}({inside(_state(one))})"


def _named(one: Any) -> str:
    """The name of a function or a class, and the source that it comes with."""
    module = one.__module__ or "builtins"
    made = isinstance(one, types.FunctionType) and module == "builtins"  # by `exec`
    if module.partition(".")[0] in _LIBRARIES and not made:
        return f"{module}.{one.__qualname__}"
    inspect.getsource(one)  # a module's file need not hold what says that it is of the module
    return f"{module}.{one.__qualname__}: {inspect.getsource(sys.modules[module])}"


def _state(one: Any) -> Any:
    """What an object holds, as it would be pickled."""
    state = one.__reduce_ex__(4)[2]
    if isinstance(one, torch.nn.Module) and isinstance(state, dict):
        return {name: value for name, value in state.items() if value is not None}
    return state
