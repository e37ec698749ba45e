"""Learners of the user's own classes: what they raise comes as a sentence that names the class and the line."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine

VERBS = ("act", "act_many", "update")


class Told:
    """A team whose verbs are told of where they fail; everything else of it is as it was.

    Args:
        team: The learners.
        name: What they were chosen as, for the sentence.
    """

    def __init__(self, team: Any, name: str) -> None:
        self._team, self._name = team, name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") or attribute in ("_team", "_name"):  # asked for while it is copied
            raise AttributeError(attribute)
        found = getattr(self._team, attribute)
        return self._telling(attribute, found) if attribute in VERBS else found

    def _telling(self, verb: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def called(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except InputError:
                raise
            except Exception as error:  # whatever the class raises
                raise_if_of_the_machine(error, f"{verb} of the agent {self._name!r}", "what it needs")
                raised = traceback.extract_tb(error.__traceback__)[-1]
                raise InputError(
                    f"The agent {self._name!r} failed in {verb} ({type(error).__name__}: {error}; "
                    f"{Path(raised.filename).name}, line {raised.lineno}): expected none of that. "
                    "`dsfp_env.testing.check_agent` tries one on a toy, and shows where it fails."
                ) from error

        return called
