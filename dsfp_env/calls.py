"""A choice with options, written as a call: ``dsfp(kl=fisher, end=highest)``, ``fast(epochs=10)``."""

from __future__ import annotations

import ast
from typing import Any

from dsfp_env.errors import InputError


def parse_call(kind: str, text: str) -> tuple[str, dict[str, Any]]:
    """Take a call in text apart; a bare name is a call without options.

    Args:
        kind: What is being chosen, for the message ("criterion", "recipe", ...).
        text: Values are numbers, strings, booleans, None, or bare words, which count as strings.

    Returns:
        The name, and the options.

    Raises:
        InputError: If the text is no such call.
    """
    name, bracket, rest = text.partition("(")
    if not bracket:
        return text.strip(), {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or not name.strip():
            raise ValueError("it is no call")
        options = {word.arg: _value(word.value) for word in call.keywords if word.arg}
        if len(options) < len(call.args) + len(call.keywords):
            raise ValueError("options are named, each once")
        return name.strip(), options
    except (SyntaxError, ValueError) as error:
        raise InputError(
            f"The {kind} {text!r} cannot be read ({error}): expected a name, or a name with options such as "
            "'name(option=value, other=2)'."
        ) from error


def _value(node: ast.expr) -> Any:
    return node.id if isinstance(node, ast.Name) else ast.literal_eval(node)
