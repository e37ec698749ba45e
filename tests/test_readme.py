"""What the README and the pages behind it say works: every Python block runs, as it stands, one after another."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "docs" / f"{name}.md"
    for name in (
        *("benchmark", "networks", "papers", "pruned_networks"),  # test_libraries.py has the libraries'
        *("reproducibility", "reproduction", "results", "tasks", "workers"),
    )
]
NEEDED = {"ray.rllib": "tree", "torchrl": "torchrl", "sb3_contrib": "sb3_contrib"}  # tree comes with ray[rllib]


def blocks():
    """Each once, though the README and a page may both have it; skipped if a library is not there."""
    text = "\n".join([README, *(page.read_text() for page in PAGES)])
    for block in dict.fromkeys(re.findall(r"```python\n(.*?)```", text, re.DOTALL)):
        missing = [name for name, module in NEEDED.items() if f"from {name}" in block and not find_spec(module)]
        skip = pytest.mark.skipif(bool(missing), reason=f"{missing} not installed")
        yield pytest.param(block, marks=skip, id=block.strip().splitlines()[-1])


@pytest.mark.parametrize("block", list(blocks()))
@pytest.mark.usefixtures("digits")
def test_block_runs(block, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip() or "print(" not in block


def test_the_two_commands_are_those_that_ci_and_users_run():
    assert "pip install . && python train_agents.py" in README
    assert "pip install '.[test]' && pytest" in README
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install '.[test]' && pytest" in ci


def test_it_is_a_front_door():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("*.md")), *PAGES, ROOT / "docs/libraries.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for target, section in re.findall(r"\]\((?!\w+:)([^)#]*)#?([^)]*)\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)", there.read_text(), re.MULTILINE)
            names = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert section in names, f"{target}#{section}"


def test_its_tree_has_every_room():
    tree = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    here = {file.parent.relative_to(ROOT) for file in ROOT.glob("[ad]*/**/__init__.py")}
    rooms, floor = set(), Path()
    for indent, name in re.findall(r"^( *)(\w+)/ ", tree, re.MULTILINE):
        floor = floor if indent else Path(name)
        rooms.add(floor / name if indent else floor)
    beside = {Path("notebooks"), Path("examples")}
    assert rooms == {room for room in here if len(room.parts) <= 2} | beside
    assert all((ROOT / room).is_dir() for room in beside)
