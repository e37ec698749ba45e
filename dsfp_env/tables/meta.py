"""What the `meta.json` of a table may say: its schema, and what must agree in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from dsfp_env.common.errors import InputError
from dsfp_env.common.schemas import Hash, Name, Natural, Positive, Strict, check_value, read_json
from dsfp_env.tasks.ratios import HIGHEST
from dsfp_env.training.distillation import Fidelity

SCHEMA = 1
FIDELITIES = ("recalibrated", "distilled")  # without, and with the short knowledge distillation
SPLITS = ("validation", "test")
MOST_ROWS = 100_000_000  # joint actions


class AboutSplits(Strict):
    """Images of each split."""

    validation: Positive
    test: Positive


class _Right(Strict):
    validation: Natural
    test: Natural


class AboutAgent(Strict):
    """An agent, and its first layer."""

    path: Name  # of its first layer
    filters: Positive
    coupled_with: list[str]
    features: Annotated[list[float], Meta(min_length=1, max_length=1000)]


class _Control(Strict):
    """Where agents were not one for each prunable layer; see `tasks.layer_control`."""

    fixed: dict[str, Annotated[float, Meta(ge=0, le=HIGHEST)]]  # module path -> percent
    tied: dict[str, list[Name]]  # agent -> module paths, of those that decide for several


class AboutOriginal(Strict):
    """The original network: images answered rightly, and costs."""

    correct: _Right
    macs: Positive
    params: Positive
    filters: Positive


class _Meta(Strict):
    schema: int
    task: Name
    task_seed: Natural
    task_hash: str
    split_hash: str
    splits: AboutSplits
    agents: Annotated[dict[str, AboutAgent], Meta(min_length=1)]
    original: AboutOriginal
    levels: Annotated[list[Annotated[int, Meta(ge=1, le=99)]], Meta(min_length=2)]
    criterion: Name
    fidelities: dict[str, dict[str, int | float | str]]
    seeds: Annotated[list[Natural], Meta(min_length=1)]
    machines: list[dict[str, str | dict[str, str]]]
    control: _Control | None = None
    files: dict[str, Hash] | None = None
    checksum: Hash | None = None


def check_meta(text: str, what: str) -> dict[str, Any]:
    """The content of a `meta.json`.

    Args:
        text: JSON.
        what: It is, for the message.

    Raises:
        InputError: If it is not of this schema, or does not agree with itself.
    """
    meta = read_json(text, Any, what)
    version = meta.get("schema") if isinstance(meta, dict) else type(meta).__name__
    if version != SCHEMA:
        raise InputError(
            f"{what} is no table that this release reads: its schema is {version}, expected {SCHEMA}."
        )
    told = check_value(meta, _Meta, what)
    rows = len(told.levels) ** min(len(told.agents), 64)
    unknown = {other for agent in told.agents.values() for other in agent.coupled_with} - told.agents.keys()
    agrees = {
        "levels rise": told.levels == sorted(set(told.levels)),
        "every seed is there once": len(set(told.seeds)) == len(told.seeds),
        f"there are at most {MOST_ROWS} joint actions": rows <= MOST_ROWS,
        "agents are coupled with agents": not unknown,
        "agents have equally many features": len({len(agent.features) for agent in told.agents.values()}) == 1,
        f"fidelities are {' and '.join(FIDELITIES)}": tuple(told.fidelities) == FIDELITIES,
        "the original network has no more right answers than images": all(
            getattr(told.original.correct, split) <= getattr(told.splits, split) for split in SPLITS
        ),
    }
    for expected, holds in agrees.items():
        if not holds:
            raise InputError(f"{what} cannot be used: expected that {expected}.")
    for name, fields in told.fidelities.items():
        _check_fidelity(fields, f"{what}, fidelity {name!r},")
    return meta


def _check_fidelity(fields: Mapping[str, Any], what: str) -> None:
    known = {field.name: type(field.default) for field in dataclasses.fields(Fidelity)}
    if unknown := fields.keys() - known.keys():
        raise InputError(f"{what} has an unknown field {min(unknown)!r}.")
    for name, value in fields.items():
        if type(value) is not known[name] and not (known[name] is float and type(value) is int):
            raise InputError(f"{what} has {name} = {value!r}: expected {known[name].__name__}.")
    Fidelity(**fields)
