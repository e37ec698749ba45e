"""The documentation site: what its pages promise, without building it; `mkdocs build --strict` looks at links."""

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import dsfp_env
from dsfp_env.environment import infos, observations

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ["index.md", "get_started.md", "environments/*.md", "tutorials/*.md"]
RUN = [page for pattern in PAGES for page in sorted(DOCS.glob(pattern)) if "```python" in page.read_text()]
MARKS = {"sb3.md": pytest.mark.slow, "own_network.md": pytest.mark.slow, "cluster.md": pytest.mark.long}
GENERATED = {"changelog.md", "contributing.md"}  # by docs/site.py, from files beside docs/


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=MARKS.get(page.name, ()), id=page.name) for page in RUN]
)
@pytest.mark.usefixtures("digits")
def test_the_python_of_a_page_runs_block_after_block(page, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", script)  # so that its classes can be pickled
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(compile(block, page.name, "exec"), vars(script))
    assert capsys.readouterr().out.strip()


def test_the_navigation_has_every_page_once():
    navigation = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    named = re.findall(r"([\w/]+\.md)$", navigation, re.MULTILINE)
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(there | GENERATED)


def column(page, heading, place=0):
    """What the tables below a heading name, in backticks, in one of their columns."""
    section = re.split(r"^## ", (DOCS / "environments" / page).read_text(), flags=re.MULTILINE)
    rows = next(part for part in section if part.startswith(heading)).splitlines()
    cells = [row.split("|")[1 + place].strip() for row in rows if row.startswith("|")]
    return [cell.strip("`") for cell in cells if cell.startswith("`")]


def test_the_page_of_the_environment_names_all_arguments_with_their_defaults():
    parameters = list(inspect.signature(dsfp_env.parallel_env).parameters.values())
    assert column("parallel.md", "Arguments") == [one.name for one in parameters]
    defaults = column("parallel.md", "Arguments", 1)
    assert defaults == [repr(one.default).replace("'", '"') for one in parameters]


def test_the_page_of_the_environment_names_what_agents_see_and_are_told():
    assert column("parallel.md", "Observations", 1) == list(observations.FEATURES)
    assert column("parallel.md", "Infos") == [*infos.TEAM, *infos.OWN]


@pytest.mark.parametrize(
    ("package", "file"),
    [
        ("dsfp_env", "public_names.py"),
        ("dsfp_env.wrappers", "__init__.py"),
        ("dsfp_env.testing", "__init__.py"),
        ("agents", "public_names.py"),
    ],
)
def test_the_reference_has_every_public_name(package, file):
    imports = ast.walk(ast.parse((ROOT / package.replace(".", "/") / file).read_text()))
    names = [alias.name for node in imports for alias in getattr(node, "names", ()) if alias.asname == alias.name]
    reference = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    assert names
    assert [name for name in names if f"\n::: {package}.{name}\n" not in reference] == []
