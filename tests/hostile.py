"""What tests of hostile input share: things that nobody expects, and what may become of them."""

import copy
import decimal
import fractions
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsfp_env import InputError

NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70), st.sampled_from([0, -1, 1, 2, 3, 2**31, 2**53 + 1]), st.floats(), st.booleans()
)
ANYTHING = st.recursive(  # that JSON can say, or nearly
    st.one_of(st.none(), NUMBERS, st.text(max_size=8)),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=6), inside, max_size=4),
    max_leaves=6,
)


class Raising:
    """An object that nothing can be done with."""

    def __repr__(self):
        raise RuntimeError("no words")

    def __array__(self, *_, **__):
        raise RuntimeError("no array")


THINGS = [
    10**400,
    10**5000,
    -(10**5000),
    float("nan"),
    float("inf"),
    1e308,
    5e-324,
    1j,
    b"50",
    bytearray(b"1"),
    {50},
    frozenset(),
    range(3),
    object(),
    type,
    len,
    Raising(),
    Exception("x"),
    decimal.Decimal("50"),
    decimal.Decimal("sNaN"),
    fractions.Fraction(101, 2),
    np.float32(50),
    np.float64("nan"),
    np.int64(3),
    np.uint8(3),
    np.bool_(True),
    np.str_("dsfp"),
    np.array(50.0),
    np.array([50.0]),
    np.array([1, 2]),
    np.array([]),
    np.array([None]),
    np.array(["50"]),
    np.array([1j]),
    np.array([[50.0]]),
    np.ma.masked,
    np.datetime64("2020-01-01"),
    torch.tensor(50.0),
    torch.tensor([50.0], requires_grad=True),
    torch.zeros(2, 2),
    torch.zeros(0),
    torch.tensor(1j),
    torch.tensor(True),
    [50, [60]],
    [[1], [2, 3]],
    {"conv_0": 50.0},
    {1: 2},
    {None: None},
    (),
    "x" * 5000,
    "\0",
    "\ud800",
    "٣",
    "",
]
ODD = st.integers(0, len(THINGS) - 1).map(lambda place: THINGS[place])  # some of them have no repr
WHATEVER = st.one_of(
    ANYTHING, ODD, st.lists(ODD, max_size=3), st.dictionaries(st.text(max_size=6), ODD, max_size=3)
)
TALLY = Counter()  # what became of all that was tried


def examples(few, many):
    """A test with few inputs, and, by ``-m long``, with many."""
    return pytest.mark.parametrize("count", [few, pytest.param(many, marks=pytest.mark.long)])


def try_all(what, count, tried, *strategies):
    """Try a function with so many inputs, and print what became of them.

    Args:
        what: It is, for what is printed.
        count: Inputs.
        tried: Of what the strategies draw; it raises nothing but `InputError`.
        *strategies: Of Hypothesis.
    """

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.tuples(*strategies))
    def each(drawn):
        try:
            tried(*drawn)
        except InputError as error:
            sentence = str(error)
            assert 10 < len(sentence) < 20_000
            TALLY[what, "sentences"] += 1
        else:
            TALLY[what, "results"] += 1

    each()
    print(f"{what}: {TALLY[what, 'results']} results, {TALLY[what, 'sentences']} sentences")
    assert TALLY[what, "sentences"]


def places(value, path=()):
    """Every place in nested JSON."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from places(one, (*path, key))


def changed(value, data):
    """JSON with something else in one place, or with one place less, or with one more."""
    value = copy.deepcopy(value)
    path = data.draw(st.sampled_from([path for path in places(value) if path]))
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    how = data.draw(st.integers(0, 6))
    if how == 0:
        del inner[path[-1]]
    elif how == 1 and isinstance(inner, dict):
        inner[data.draw(st.text(max_size=6))] = data.draw(ANYTHING)
    else:
        inner[path[-1]] = data.draw(ANYTHING)
    return value


def damaged(content, data):
    """Bytes of which some are others, missing or doubled."""
    content = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(content) - 1)))
        how = data.draw(st.integers(0, 4))
        if how == 0:
            del content[place:]
        elif how == 1:
            del content[place : place + data.draw(st.integers(1, 40))]
        elif how == 2:
            content[place:place] = data.draw(st.binary(max_size=12))
        elif content:
            place = min(place, len(content) - 1)
            content[place] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(content)
