"""Settings in a YAML file: ``task: digits``, a line each; what is wrong is said with its line.

A file names fields of a settings dataclass, with values of their types. Whatever it does not name has its default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec
import yaml

from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import read_regular, write_whole

CONFIG = "config.yaml"  # in a folder
NOT_KEPT = ("config", "out")  # where settings come from and where results go are no settings of a file

Settings = TypeVar("Settings")

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null"}


def read_config(place: str | Path, settings: type[Settings]) -> Settings:
    """Settings from a file.

    Args:
        place: The file, or a folder with a ``config.yaml``.
        settings: A dataclass in which every field has a default.

    Raises:
        InputError: If it cannot be read, names a field that there is not, or gives a value of another type; with
            the line.
    """
    path = Path(place) / CONFIG if Path(place).is_dir() else Path(place)
    hints = get_type_hints(settings)
    known = {field.name: hints[field.name] for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    said: dict[str, Any] = {}
    for name, value, line in _lines(path):
        where = f"{path}, line {line}"
        if name in NOT_KEPT or name in said:
            why = "that is said on the command line only" if name in NOT_KEPT else "that was said before"
            raise InputError(f"{where} names {name!r}: {why}; remove the line.")
        try:
            choose("setting", name, {one: None for one in known if one not in NOT_KEPT})
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        try:
            said[name] = msgspec.convert(value, type=known[name])
        except msgspec.ValidationError:
            raise InputError(
                f"{where}: {name} is {value!r}, {_word(type(value))}: expected {_expected(known[name])}"
                f"{_quoted(value, known[name])}."
            ) from None
    return settings(**said)


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write ``config.yaml`` into a folder, unless it is there.

    Args:
        folder: Exists.
        settings: By name; values are text, numbers, booleans and None.
    """
    if (folder / CONFIG).exists():
        return
    kept = {name: value for name, value in settings.items() if name not in NOT_KEPT}
    text = "# what was asked; read by --config\n" + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    write_whole(folder / CONFIG, lambda file: file.write(text.encode()))


def _lines(path: Path) -> list[tuple[str, Any, int]]:
    """Name, value and line, for every entry."""
    expected = "expected YAML with a line such as `evaluations: 100` for every setting"
    try:
        loader = yaml.SafeLoader(read_regular(path).decode())
        node = loader.get_single_node()
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            raise InputError(f"{path} holds no settings: {expected}.")
        return [
            (
                str(loader.construct_object(key, deep=True)).replace("-", "_"),
                loader.construct_object(value, deep=True),
                key.start_mark.line + 1,
            )
            for key, value in node.value
        ]
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(getattr(error, "strerror", None) or error or "it is nested too deep").split())
        raise InputError(f"{path} cannot be read as settings ({why}): {expected}.") from error


def _expected(hint: Any) -> str:
    return " or ".join(_word(one) for one in get_args(hint) or (hint,))


def _word(kind: Any) -> str:
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))


def _quoted(value: Any, hint: Any) -> str:
    """What helps if a number stands where text should."""
    is_text = str in (get_args(hint) or (hint,))
    return f"; put it in quotes, '{value}'" if is_text and isinstance(value, (int, float)) else ""
