"""A name on its way out: who still uses it is told what to use instead, and in which release it goes."""

from __future__ import annotations

import warnings


def warn_deprecated(what: str, instead: str, *, since: str, removed_in: str, calls: int = 1) -> None:
    """Warn, at the line of the user's that uses something old; it goes on working until it is removed.

    Called first thing in what is old: a function, a class's ``__init__``, a module's ``__getattr__``.

    Args:
        what: Is old, as users write it: ``"parallel_env(length=...)"``.
        instead: What to use: ``"horizon"``.
        since: The release that said so first: ``"0.3"``.
        removed_in: The release that is without it: ``"0.5"``.
        calls: That lie between the user's line and the one that calls this.
    """
    warnings.warn(
        f"{what} is deprecated since dsfp_env {since} and will be removed in {removed_in}: use {instead}.",
        DeprecationWarning,
        stacklevel=calls + 2,
    )
