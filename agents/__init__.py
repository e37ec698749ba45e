"""Learners of pruning ratios, the protocol they follow, and the loop that runs them.

The public names are those of `agents.public_names`, fetched when the first of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dsfp_env.common.lazily import public_name, public_names

if TYPE_CHECKING:
    from agents.public_names import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """A public name, when the first is used; from then on all are here."""
    return public_name(__name__, name)


def __dir__() -> list[str]:
    return public_names(__name__)
