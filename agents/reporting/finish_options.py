"""What the settings of a command mean for the end of a run: the long fine-tune, criteria to compare, files."""

from __future__ import annotations

from typing import Any

from agents.reporting.criteria_choice import FEWEST, SHARE, trials_of
from dsfp_env.common.choices import choose
from dsfp_env.common.errors import InputError
from dsfp_env.criteria.scoring import parse_criterion
from dsfp_env.export import check_onnx
from dsfp_env.training.recipes import FINE_TUNING, recipe_from

FORMATS = ("onnx", "torch")


def criteria_of(settings: Any) -> list[str]:
    """The criteria to compare; none, if there is nothing to choose.

    Raises:
        InputError: If one is unknown or named twice, or the evaluations are too few to compare them.
    """
    if settings.criteria is None:
        return []
    names = parts_of(settings.criteria)
    for name in names:
        parse_criterion(name)
    if len(set(names)) < max(2, len(names)):
        raise InputError(f"--criteria is {settings.criteria!r}: expected two or more, each once.")
    least = SHARE * FEWEST * len(names)
    if settings.evaluations < least:
        raise InputError(
            f"--evaluations is {settings.evaluations}, too few to compare {len(names)} criteria by a fifth of "
            f"them: expected {least} or more."
        )
    return names


def left_of(settings: Any) -> int:
    """The evaluations that are left for the search."""
    names = criteria_of(settings)
    return int(settings.evaluations - trials_of(settings.evaluations, len(names)) * len(names))


def formats_of(settings: Any) -> list[str]:
    """The formats to export.

    Raises:
        InputError: If one is unknown, or what it needs is not installed.
    """
    names = [] if settings.export is None else [part.strip() for part in settings.export.split(",")]
    for name in names:
        choose("format", name, dict.fromkeys(FORMATS))
    if "onnx" in names:
        check_onnx()
    return list(dict.fromkeys(names))


def check_finish(settings: Any) -> None:
    """Refuse what cannot be used, before anything is loaded.

    Raises:
        InputError: If something cannot be.
    """
    criteria_of(settings)
    formats_of(settings)
    if settings.fine_tune is not None:
        recipe_from(settings.fine_tune, FINE_TUNING)


def parts_of(text: str) -> list[str]:
    """What is between the commas of a text, other than those in brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]
