"""What is old says so, at the line that uses it, and works on."""

import warnings

import pytest

from dsfp_env.common.deprecated import warn_deprecated


def old(value):
    warn_deprecated("old(...)", "new(...)", since="0.3", removed_in="0.5")
    return value


def old_with_another_between(value):
    def inner():
        warn_deprecated("old(...)", "new(...)", since="0.3", removed_in="0.5", calls=2)

    inner()
    return value


@pytest.mark.parametrize("function", [old, old_with_another_between])
def test_who_uses_it_is_told_where_and_what_instead(function):
    sentence = r"old\(...\) is deprecated since dsfp_env 0.3 and will be removed in 0.5: use new\(...\)\."
    with pytest.warns(DeprecationWarning, match=sentence) as warned:
        assert function(3) == 3
    line = test_who_uses_it_is_told_where_and_what_instead.__code__.co_firstlineno
    assert (warned[0].filename, warned[0].lineno) == (__file__, line + 4)


def test_our_own_code_may_not_use_it():
    """As pyproject.toml has it: such a warning at a line of `dsfp_env` or of `agents` fails a test."""
    script = compile("old(3)", "dsfp_env/somewhere.py", "exec")
    with pytest.raises(DeprecationWarning, match="use new"):
        exec(script, {"__name__": "dsfp_env.somewhere", "old": old})
    with warnings.catch_warnings(record=True):
        exec(script, {"__name__": "somebody.else", "old": old})
