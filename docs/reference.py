"""Docstrings as the reference of the site shows them, without files: what a file says at its top stands below."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

TOP = "the top of this file"


class Reference(griffe.Extension):
    """Changes docstrings as they are read."""

    def on_class_instance(self, *, cls: griffe.Class, **_: Any) -> None:
        """Griffe has read a class."""
        _tell_the_top(cls)

    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        """Griffe has read a function; the parameter that `names_checked` gives is nobody's."""
        if any("names_checked" in str(decorator.value) for decorator in func.decorators):
            assert func.docstring is not None
            del func.parameters["given"]
            func.docstring.value = re.sub(r" +given: .*\n", "", func.docstring.value)
        _tell_the_top(func)


def _tell_the_top(thing: griffe.Object) -> None:
    """Where a docstring speaks of the top of its file, or a file is of one learner, that text comes second."""
    module = thing.module
    if thing.parent is not module or thing.docstring is None or module.docstring is None:
        return
    summary, _, rest = thing.docstring.value.partition("\n\n")
    if TOP in summary or (module.path.startswith("agents.learners.") and _is_only_class(thing)):
        top = module.docstring.value.partition("\n\n")[2]
        thing.docstring.value = "\n\n".join([summary.replace(TOP, "below"), top, rest])


def _is_only_class(thing: griffe.Object) -> bool:
    assert isinstance(thing.filepath, Path)
    return re.findall(r"^class ([^_]\w*)", thing.filepath.read_text(), re.MULTILINE) == [thing.name]
