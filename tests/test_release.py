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


def test_the_versions_of_python_are_the_same_everywhere():
    package = (ROOT / "pyproject.toml").read_text()
    versions = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', package)
    assert f'requires-python = ">={versions[0]}"' in package
    assert f'python_version = "{versions[0]}"' in package
    assert f'target-version = "py{versions[0].replace(".", "")}"' in package
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    assert re.findall(r"3\.\d+", re.search(r"python: \[(.*)\]", workflow)[1]) == versions
    assert f'python_min: "{versions[0]}"' in (ROOT / "conda" / "recipe.yaml").read_text()
    for page in ("README.md", "docs/get_started.md"):
        assert f"Linux, Python {versions[0]} to {versions[-1]}" in (ROOT / page).read_text()
