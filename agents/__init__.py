"""Learners of pruning ratios, the protocol they follow, and the loop that runs them.

The public names are those of `agents.public_names`, fetched when the first of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsfp_env.common.lazily import names_of, public_name

if TYPE_CHECKING:
    from agents.public_names import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """A public name, when the first is used; from then on all are here."""
    return public_name(__name__, name)


def __dir__() -> list[str]:
    return names_of(__name__)
