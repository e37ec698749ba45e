"""What a release says of itself, it says everywhere."""

import re
from pathlib import Path

import pytest

import dsfp_env

ROOT = Path(__file__).parents[1]
PLACES = {
    "pyproject.toml": r'^version = "(.+)"$',
    "CITATION.cff": r"^version: (.+)$",
    "conda/recipe.yaml": r"^  version: (\d.*)$",
}


@pytest.mark.parametrize("name", PLACES)
def test_the_version_is_that_of_the_package(name):
    assert re.findall(PLACES[name], (ROOT / name).read_text(), re.MULTILINE) == [dsfp_env.__version__]


def test_the_changelog_begins_with_it():
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == dsfp_env.__version__
