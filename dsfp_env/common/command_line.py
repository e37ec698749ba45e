"""What commands have in common: settings from the command line, a sentence for what is wrong, an end by Ctrl-C."""

from __future__ import annotations

import dataclasses
import errno
import os
import sys
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from dsfp_env.common import saying
from dsfp_env.common.config_files import read_config
from dsfp_env.common.errors import InputError
from dsfp_env.common.option_groups import parse
from dsfp_env.common.saying import remark
from dsfp_env.common.signals import end_by_ctrl_c, raised_as_ctrl_c

Settings = TypeVar("Settings")

# Exit statuses; a shell's for a program that a signal ended is 128 and the signal's number.
UNSAID, REFUSED, INTERRUPTED = 1, 2, 130
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)  # of a disk


def run(
    settings: type[Settings],
    work: Callable[[Settings], Any],
    description: str | None,
    arguments: Sequence[str] | None = None,
    stopped: str = "stopped; the same command goes on from here",
) -> int:
    """Read settings from the command line, and work; returns the exit status.

    Where settings have a field ``config``, it names a YAML file with others (`config_files`); what is said on the
    command line wins.

    SIGTERM and SIGHUP are as Ctrl-C. A full or closed standard output does not end the work; the status tells.

    Args:
        settings: A dataclass.
        work: Raises InputError if the settings cannot be used, and may raise KeyboardInterrupt with a sentence of
            its own.
        description: For ``--help``.
        arguments: Those of the command line, unless given.
        stopped: What is said after Ctrl-C; after the last semicolon, how to go on.
    """
    sys.path.insert(0, os.getcwd())  # where package.module:attribute is looked for first
    saying.begin()
    with raised_as_ctrl_c() as signals:
        try:
            work(_parsed(settings, description, arguments))
        except InputError as error:
            remark(f"error: {error}")
            return REFUSED
        except KeyboardInterrupt as error:
            remark(error if error.args else stopped)
            return 128 + signals[0] if signals else INTERRUPTED
        except SystemExit as end:  # after --help, and for what is no option
            return (end.code if isinstance(end.code, int) else REFUSED) or _status()
        except OSError as error:
            if error.errno not in FULL:
                if error.filename is None:
                    raise
                remark(f"error: {error}. Expected a path that can be read and written; {stopped.split('; ')[-1]}")
                return UNSAID
            remark(f"error: {error}. What was written before is whole; with room, {stopped.split('; ')[-1]}")
            return UNSAID
        return _status()


def answer_early(
    settings: type[Any],
    description: str | None,
    more_help: Callable[[Sequence[str]], str] | None = None,
) -> None:
    """End the program here if help is all that was asked for, or an option is wrong; for before slow imports.

    From here to `run`, Ctrl-C ends the program without a word: nothing was begun.

    Args:
        settings: As for `run`.
        description: Likewise.
        more_help: The arguments -> what comes after the help for them.
    """
    end_by_ctrl_c()
    saying.begin()
    try:
        _parsed(settings, description, None)
    except InputError as error:
        remark(f"error: {error}")
        sys.exit(REFUSED)
    except SystemExit as end:
        if not end.code and more_help is not None:
            saying.say(more_help(sys.argv[1:]), end="")
        sys.exit((end.code if isinstance(end.code, int) else REFUSED) or _status())


def given(name: str, arguments: Sequence[str]) -> str | None:
    """The last value of an option in arguments, before they are parsed; None if it has none there."""
    value = None
    for word, following in zip_longest(arguments, arguments[1:]):
        option, equals, joined = word.partition("=")
        if option == f"--{name}":
            value = joined if equals else following
    return value


def _parsed(settings: type[Settings], description: str | None, arguments: Sequence[str] | None) -> Settings:
    has_file = "config" in settings.__dataclass_fields__  # type: ignore[attr-defined]
    words = sys.argv[1:] if arguments is None else arguments
    file = given("config", words) if has_file else None
    default = None if file is None else read_config(file, settings)
    try:
        found: Any = parse(settings, default, prog=_program(), description=description, args=arguments)
    except OSError as error:  # it could not print its help
        saying.lose(error, quietly=isinstance(error, BrokenPipeError))  # of `--help | head`
        raise SystemExit(UNSAID) from error
    _check_lists(found, words)
    return found if file is None else dataclasses.replace(found, config=None)


def _check_lists(found: Any, arguments: Sequence[str]) -> None:
    """Of an option with several values that is said twice, the values said first would be lost in silence."""
    options = [word.partition("=")[0].replace("_", "-") for word in arguments]
    for field in dataclasses.fields(found):
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(getattr(found, field.name), tuple) and options.count(option) > 1:
            raise InputError(f"{option} is said {options.count(option)} times: expected all its values after one.")


def _status() -> int:
    """Of a command that came to its end."""
    return 0 if saying.all_was_said() else UNSAID


def _program() -> str | None:
    """How this program was started, if as a module."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name.removesuffix('.__main__')}" if spec else None
