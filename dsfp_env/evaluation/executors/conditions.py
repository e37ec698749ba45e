"""What machines must have in common to come to equal numbers: versions, sources, and the kind of processor."""

from __future__ import annotations

import importlib
import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import NamedTuple

import torch

from dsfp_env.common.devices import device_name
from dsfp_env.tasks.fingerprints import code_of


class Conditions(NamedTuple):
    """What a process computes with."""

    python: str
    torch: str
    numpy: str
    dsfp_env: str
    sources: str  # of the packages that the work is of
    processor: str  # as `device_name` says it, which is part of the key of every outcome; "" if there is none


def conditions(packages: Iterable[str] = ("dsfp_env",), kind: str = "cpu") -> Conditions:
    """Those of this process.

    Args:
        packages: Whose sources count.
        kind: ``"cpu"`` or ``"cuda"``: what computes.

    Raises:
        ImportError: If a package is not here.
    """
    for package in packages:
        importlib.import_module(package)
    sources = " ".join(code_of(package)[:12] for package in packages)
    ours = importlib.import_module("dsfp_env").__version__
    versions = platform.python_version(), torch.__version__, version("numpy"), ours
    return Conditions(*versions, sources, processor(kind))


def processor(kind: str) -> str:
    """What computes here, as part of the key of an outcome; empty, if there is no such device."""
    if kind == "cuda" and not torch.cuda.is_available():
        return ""
    return device_name(torch.device(kind, 0) if kind == "cuda" else torch.device(kind))


def difference(expected: Conditions, here: str, found: Conditions, there: str) -> str:
    """A sentence about what differs, apart from the processor; empty, if nothing does.

    Args:
        expected: Of the process that asks.
        here: What that is called.
        found: Of another.
        there: What that is called.
    """
    differ = [name for name in Conditions._fields[:-1] if getattr(expected, name) != getattr(found, name)]
    if not differ:
        return ""
    theirs, ours = (", ".join(f"{name} {getattr(one, name)}" for name in differ) for one in (found, expected))
    return (
        f"{there} has {theirs}, and {here} has {ours}: expected the same on all, so that outcomes are equal. "
        "Bring them to one state, or take one away; the same command goes on."
    )


def other_processor(expected: Conditions, here: str, found: Conditions, there: str) -> str:
    """A sentence about processors of two kinds; empty, if they are of one."""
    if found.processor == expected.processor:
        return ""
    return (
        f"{there} computes with {found.processor or 'no such device'}, and {here} with {expected.processor}: "
        "their last digits may differ. Leave one away, or say --mixed-processors (mixed_processors=True), and "
        "outcomes are kept under the kind that measured them."
    )
