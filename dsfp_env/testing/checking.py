"""What the two checks of `dsfp_env.testing` share: where values differ, how they miss a space, who drew globally.

Every function that finds something says it in words that a message can be made of.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Space

TORCH = " (a constructor may seed torch with a number from there, torch.manual_seed: that leaves no trace)"
LONGEST_WORDS = 100  # characters of a value in a message


class CheckError(AssertionError):
    """What was checked breaks the rules; the message says which one, and how to mend it."""


def in_words(value: Any) -> str:
    """A value on one line of limited length."""
    words = " ".join(repr(value).split())
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 4] + " ..."


def type_of(value: Any) -> str:
    """The name of a value's type, as in ``numpy.bool``."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def named(error: Exception) -> str:
    """An exception on one line, as in ``KeyError ('conv_0')``."""
    return f"{type(error).__name__} ({' '.join(str(error).split())})"


def difference(first: Any, second: Any, name: str) -> str | None:
    """Where two values differ.

    Args:
        first: Numbers, arrays, tensors, and dictionaries, lists and tuples of them, to any depth.
        second: The other.
        name: Of the value, for the words.

    Returns:
        As in ``infos['conv_0']['macs'] was 1 and then 2``; None if the values are the same, types and all. Objects
        of which Python cannot tell whether they are equal count as the same.
    """
    parts, others = _parts(first, name), _parts(second, name)
    if type(first) is not type(second):
        return _was(name, first, second)
    if parts is None or others is None:
        return None if _equal(first, second) else _was(name, first, second)
    if parts.keys() != others.keys():
        keys = isinstance(first, Mapping)
        return _was(f"the keys of {name}", list(first), list(second)) if keys else _was(name, first, second)
    return next((found for key in parts if (found := difference(parts[key], others[key], key))), None)


def misfit(space: Space[Any], value: Any) -> str | None:
    """How a value misses a space, as in ``is 95.0: expected numbers in [10, 90]``; None if it lies in it."""
    if not isinstance(space, Box):
        if space.contains(value):
            return None
        return f"is {in_words(value)}, of type {type_of(value)}: expected an element of {space}"
    made = f"np.array([...], np.{space.dtype}) of shape {space.shape}"
    if not isinstance(value, np.ndarray):
        return f"is {in_words(value)}, of type {type_of(value)}: expected an array, {made}"
    if value.shape != space.shape:
        return f"is {in_words(value)}, of shape {value.shape}: expected an array, {made}"
    if value.dtype != space.dtype:
        return (
            f"is an array of {value.dtype}: expected {space.dtype}, so convert it with .astype(np.{space.dtype})"
        )
    if np.isnan(value).any():
        return f"is {in_words(value)}: expected numbers, so find out which division or logarithm made NaN"
    if not space.contains(value):
        return f"is {in_words(value)}: expected numbers within {space}, so clip or rescale it"
    return None


def global_states() -> dict[str, Any]:
    """What changes whenever one of the global random generators is used, or seeded anew (PyTorch's on the CPU)."""
    state: Any = np.random.get_state()  # noqa: NPY002 - releases of NumPy differ in its type
    _, key, *rest = state
    torch_state = torch.get_rng_state().numpy().tobytes()
    return {"random": random.getstate(), "numpy.random": (key.tobytes(), *rest), "torch": torch_state}


def check_left_alone(before: Mapping[str, Any], what: str, draw_from: str) -> None:
    """Refuse use of the random generators that all of a process shares.

    Args:
        before: The `global_states` before what was done.
        what: Was done, for the message.
        draw_from: Where randomness should come from instead.

    Raises:
        CheckError: If one of them has been used.
    """
    used = [name for name, state in global_states().items() if state != before[name]]
    if used:
        raise CheckError(
            f"{what} used the global random generator of {' and '.join(used)}: expected that it is left alone, "
            f"since others use it too, and no seed of ours reaches it; draw from {draw_from} instead"
            f"{TORCH if 'torch' in used else ''}."
        )


@contextmanager
def other_global_randomness() -> Iterator[None]:
    """Seed the global random generators unlike anybody would; afterwards they are as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(271828)
    np.random.seed(271828)  # noqa: NPY002 - nothing is drawn here
    torch.default_generator.manual_seed(271828)  # the CPU's only
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


def join(names: Iterable[Any]) -> str:
    """Names with commas between them, or "none"."""
    return ", ".join(map(str, names)) or "none"


def _parts(value: Any, name: str) -> dict[str, Any] | None:
    """What a value is made of, by the name of each part; None if it is one piece."""
    if hasattr(value, "_asdict"):
        return {f"{name}.{field}".lstrip("."): part for field, part in value._asdict().items()}
    if isinstance(value, Mapping):
        return {f"{name}[{key!r}]": part for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return {f"{name}[{index}]": part for index, part in enumerate(value)}
    return None


def _was(name: str, first: Any, second: Any) -> str:
    return f"{name} was {in_words(first)} and then {in_words(second)}"


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and first.shape == second.shape and first.tobytes() == second.tobytes()
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if type(first).__eq__ is object.__eq__:
        return True
    return bool(first == second or first != first)  # NaN is as NaN
