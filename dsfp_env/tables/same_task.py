"""Whether files of measurements are of one task: parts of a table, parts of a survey, and what is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsfp_env.common.errors import InputError

_FOLLOWING = ("agents", "original")  # of what is told of a task: differ where something else does
_NOT_OF_THE_TASK = ("machines", "files", "checksum")


def of_the_task(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Of what a file says of itself, what must be equal in parts of one whole."""
    return {name: value for name, value in meta.items() if name not in _NOT_OF_THE_TASK}


def check_same(
    whole: str, one: Path, meta: Mapping[str, Any], other: Path | str, other_meta: Mapping[str, Any]
) -> None:
    """Refuse files that are not of one task.

    Args:
        whole: What they should be parts of: ``"table"`` or ``"survey"``.
        one: Where the first is.
        meta: What it says of itself.
        other: Where the other is, or what it is, in words.
        other_meta: What that says.

    Raises:
        InputError: If they are not; it names where they differ.
    """
    mine, theirs = of_the_task(meta), of_the_task(other_meta)
    if different := [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]:
        first = min(different, key=_FOLLOWING.__contains__)
        name, here, there = _where_they_differ(first, mine.get(first), theirs.get(first))
        advice = " Give --weights with the network.safetensors of the first." if name == "task_hash" else ""
        raise InputError(
            f"{one} and {other} are not of one {whole}: {name} is {_short(here)} and {_short(there)}, "
            f"expected the same.{advice}"
        )


def _where_they_differ(name: str, one: Any, other: Any) -> tuple[str, Any, Any]:
    """Of two values that differ, the innermost name at which they do, and what is there."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        inner = next(key for key in one if one[key] != other[key])
        return _where_they_differ(f"{name}.{inner}", one[inner], other[inner])
    return name, one, other


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
