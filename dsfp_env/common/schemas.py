"""JSON of strangers, read against a schema: what a field must be is said once, as a type, and refused in words.

A file with a right checksum may still say anything. So nothing that was read is used before it fits a schema:
types are exact, numbers are in their ranges, unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from dsfp_env.common.errors import InputError

Schema = TypeVar("Schema")

MOST = 2**53  # the largest whole number that JSON of any program holds exactly

Natural = Annotated[int, Meta(ge=0, le=MOST)]
Positive = Annotated[int, Meta(ge=1, le=MOST)]
Share = Annotated[float, Meta(ge=0, le=1)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Name = Annotated[str, Meta(min_length=1, max_length=1000)]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Ratios = Annotated[dict[Name, Percent], Meta(min_length=1)]  # by agent
Counts = Annotated[dict[Name, Positive], Meta(min_length=1)]  # by agent
Value = None | bool | int | float | str  # of a setting
Values = dict[Name, Value | list[Value]]  # settings by name


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A JSON object with these fields and no others."""


def read_json(text: str | bytes, schema: Any, what: str) -> Any:
    """JSON as an object of a schema.

    Args:
        text: JSON.
        schema: A `Strict`, or another type.
        what: It is, for the message.

    Raises:
        InputError: If it is no JSON, or does not fit; the message names the field.
    """
    try:
        return msgspec.json.decode(text, type=schema)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InputError(f"{what} cannot be used: {error or 'it is nested too deep'}.") from error


def check_value(value: Any, schema: type[Schema], what: str) -> Schema:
    """Something that was read from JSON, as an object of a schema; raises as `read_json`."""
    try:
        return msgspec.convert(value, type=schema)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InputError(f"{what} cannot be used: {error or 'it is nested too deep'}.") from error
