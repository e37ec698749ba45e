"""Options of functions, and criteria with options by text."""

import pickle
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Literal

import pytest

from dsfp_env import InputError
from dsfp_env.common.choices import with_options
from dsfp_env.criteria.dsfp import dsfp
from dsfp_env.criteria.scoring import CRITERIA, parse_criterion

if TYPE_CHECKING:
    from nowhere import Unknown


def cut(cake, *, pieces: int = 2, angle: float = 0.0, knife: Literal["blunt", "sharp"] = "sharp", for_whom=None):
    """A function with options."""


def plain(cake):
    """A function without."""


def anything(cake, first: int = 0, **others):
    """A function with options of any name."""


def untyped(cake: "Unknown", *, pieces: "int" = 2):
    """A function whose annotations cannot be read."""


@pytest.mark.parametrize(
    ("function", "options"),
    [
        (cut, {"pieces": 3, "knife": "blunt"}),
        (cut, {"angle": -1.5}),
        (cut, {"angle": 90}),
        (cut, {"for_whom": ("me", 2)}),
        (anything, {"first": 1, "second": "no"}),
        (untyped, {"pieces": 3}),
    ],
)
def test_options_are_set(function, options):
    found = with_options("way", "name", function, options)
    assert isinstance(found, partial)
    assert (found.func, found.args, found.keywords) == (function, (), options)
    assert with_options("way", "name", function, {}) is function


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (
            cut,
            {"piece": 3},
            "Unknown 'name' option 'piece'. Did you mean 'pieces'? Expected one of: angle, ",
        ),
        (cut, {"cake": 3}, "Unknown 'name' option 'cake'."),
        (cut, {"knife": "shrap"}, "Unknown value of 'name' option 'knife': 'shrap'. Did you mean 'sharp'?"),
        (cut, {"knife": [1]}, "Unknown value of 'name' option 'knife': '[1]'. Expected one of: blunt, sharp."),
        (cut, {"pieces": "few"}, "The 'name' option 'pieces' came as 'few': expected a whole number."),
        (cut, {"pieces": 2.5}, "The 'name' option 'pieces' came as 2.5: expected a whole number."),
        (cut, {"pieces": True}, "The 'name' option 'pieces' came as True: expected a whole number."),
        (cut, {"angle": "right"}, "The 'name' option 'angle' came as 'right': expected a number."),
        (anything, {"first": "no"}, "The 'name' option 'first' came as 'no': expected a whole number."),
        (plain, {"pieces": 3}, "The way 'name' takes no options, and pieces = 3 came."),
        (3, {}, "The way 'name' is of type int: expected a function."),
    ],
)
def test_unknown_options_and_values_are_refused(function, options, message):
    with pytest.raises(InputError) as refusal:
        with_options("way", "name", function, options)
    assert message in str(refusal.value)


def test_criteria_by_text():
    assert all(parse_criterion(name) is function for name, function in CRITERIA.items())
    assert parse_criterion("taylor()") is CRITERIA["taylor"]
    found = pickle.loads(pickle.dumps(parse_criterion("dsfp(kl=fisher, end='highest')")))
    assert (found.func, found.keywords) == (dsfp, {"kl": "fisher", "end": "highest"})
    assert parse_criterion("dcff(temperature=0.2)").keywords == {"temperature": 0.2}
    assert parse_criterion("output_kl(num_images=64, max_batch=9)").keywords == {"num_images": 64, "max_batch": 9}
    assert parse_criterion("collections:Counter") is Counter
    own = parse_criterion(f"{__name__}:cut(pieces=3)")
    assert (own.func, own.keywords) == (cut, {"pieces": 3})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Unknown criterion ''. Expected one of: activation_kl, "),
        ("tailor(kl=fisher)", "Unknown criterion 'tailor'. Did you mean 'taylor'?"),
        ("nowhere:cut(pieces=3)", "Could not import the criterion 'nowhere:cut'"),
        ("math:pi", "The criterion 'math:pi' is of type float: expected a function."),
        ("l1(kl=fisher)", "The criterion 'l1' takes no options"),
        ("dsfp(kll=fisher)", "Unknown 'dsfp' option 'kll'. Did you mean 'kl'?"),
        ("dsfp(kl=fsher)", "Unknown value of 'dsfp' option 'kl': 'fsher'. Did you mean 'fisher'?"),
        ("dcff(temperature=hot)", "The 'dcff' option 'temperature' came as 'hot': expected a number."),
        *[
            (text, "cannot be read")
            for text in (
                "dsfp(",
                "dsfp(kl",
                "dsfp(fisher)",
                "dsfp(kl=)",
                "dsfp(kl=fisher",
                "dsfp(kl=fisher))",
                "dsfp(kl=fisher end=lowest)",
                "dsfp(kl=fisher) + 1",
                "dsfp(**options)",
                "dcff(temperature=1 / 2)",
                "dsfp(kl=fisher)(end=highest)",
                "dsfp(kl=fisher, kl=output)",
                "(kl=fisher)",
            )
        ],
    ],
)
def test_other_text_is_refused(text, message):
    with pytest.raises(InputError) as refusal:
        parse_criterion(text)
    assert message in str(refusal.value)
