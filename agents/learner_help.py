"""What ``--agent NAME --help`` tells beside the settings of a command: the options of that learner."""

from __future__ import annotations

from collections.abc import Sequence

from dsfp_env.common.command_line import given
from dsfp_env.common.errors import InputError


def learner_help(arguments: Sequence[str]) -> str:
    """The options of the learner that the arguments name; nothing if they name none.

    Args:
        arguments: Of the command line, not yet parsed.
    """
    name = given("agent", arguments)
    if name is None:
        return ""
    from agents.registry import describe  # imports learners, which takes a while

    try:
        return f"\n{describe(name)}\n"
    except InputError as error:
        return f"\nerror: {error}\n"
