"""The state of a training, in a file: written at once or not at all, and read by the training that left it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dsfp_env.common.errors import InputError
from dsfp_env.common.files import read_regular, write_whole
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.signed_bytes import content_of, signed

IDENTITY = "of"  # the entry that tells which training it is
_ARCHIVE_END = 22  # bytes of the last record of a zip archive


def write_state(file: Path, state: Mapping[str, Any]) -> None:
    """Write a state; a training goes on if that cannot be done, with a warning."""
    content = io.BytesIO()
    torch.save(dict(state), content)
    try:
        write_whole(file, lambda opened: opened.write(signed(content.getvalue())))
    except OSError as error:
        warnings.warn(
            f"The state of the training could not be written to {file} ({error}); it goes on, but "
            "could not be resumed from here.",
            stacklevel=4,
        )


def read_state(file: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Read the state of a training, on the CPU.

    Args:
        file: That `write_state` wrote.
        identity: What the training is; it must be that of the state.

    Raises:
        InputError: If the file is damaged, or of another training.
    """
    try:
        content = _archive(read_regular(file))
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        of = state[IDENTITY]
    except Exception as error:  # whatever a damaged file makes torch raise
        raise_if_of_the_machine(error, f"reading {file}", "the network")
        raise InputError(
            f"{file} is no whole checkpoint of a training ({error}): delete it to start anew."
        ) from error
    if of != identity:
        differ = ", ".join(name for name in identity if of.get(name) != identity[name])
        raise InputError(f"{file} is of another training ({differ} differ): delete it, or use another file.")
    return state


def _archive(whole: bytes) -> bytes:
    """What a checkpoint holds; those of before had no checksum, and end as archives do.

    Raises:
        ValueError: If it is damaged.
    """
    return whole if whole[-_ARCHIVE_END:].startswith(b"PK\x05\x06") else content_of(whole)
