"""JSON read from a folder, whole files and files of lines: each is of a schema, or refused with a sentence.

The sentence names the file, the line and the field. What is given back is what Python's `json` reads.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsfp_env.common.errors import InputError
from dsfp_env.common.files import read_regular, whole_lines
from dsfp_env.common.schemas import read_json


def read_file(path: Path, schema: Any, otherwise: str) -> Any:
    """What a JSON file holds.

    Args:
        path: The file.
        schema: A `schemas.Strict`, or another type.
        otherwise: What to do if it cannot be used, for the message.

    Raises:
        InputError: If it cannot be read, is no JSON, or is not of the schema.
    """
    try:
        content = read_regular(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): {otherwise}.") from error
    return plain(content, schema, str(path), otherwise)


def lines_of(path: Path, otherwise: str) -> list[str]:
    """The lines of a file to which lines are appended; none if there is no file. See `files.whole_lines`.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        return whole_lines(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): {otherwise}.") from error


def read_line(line: str, number: int, path: Path, schema: Any, otherwise: str) -> Any:
    """What a line of JSON holds.

    Args:
        line: The line.
        number: Its place, from 1.
        path: The file that it is of.
        schema: As for `read_file`.
        otherwise: As for `read_file`.

    Raises:
        InputError: If it is no JSON, or not of the schema.
    """
    return plain(line, schema, f"Line {number} of {path}", otherwise)


def plain(text: str | bytes, schema: Any, what: str, otherwise: str) -> Any:
    """JSON as Python's `json` reads it, if it is of a schema.

    Args:
        text: JSON.
        schema: As for `read_file`.
        what: It is, for the message.
        otherwise: As for `read_file`.

    Raises:
        InputError: If it is no JSON, or not of the schema.
    """
    try:
        read_json(text, schema, what)
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = str(error.__cause__ or error) or "it is nested too deep"
        raise InputError(
            f"{what} cannot be read ({why}): it is another file, or was changed since it was written; {otherwise}."
        ) from error
