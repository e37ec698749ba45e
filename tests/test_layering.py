"""Imports point down: no file imports one that imports it, and rooms import rooms below them only.

The rooms and their order are those of docs/architecture.md. Run as a script, this brings that page's sentences up
to date.
"""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
HEADING, LINE = re.compile(r"### `([^`]+)`"), re.compile(r"- `([^`]+)`: (.*)")


def modules():
    """Module -> its file, of everything that is shipped; a package is its ``__init__.py``."""
    files = [*ROOT.glob("dsfp_env/**/*.py"), *ROOT.glob("agents/**/*.py"), ROOT / "train_agents.py"]
    return {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files
    }


def imports_of(source, ours, type_checking=False):
    """Which of our modules a source imports, also within functions; those for type checkers only if asked."""
    tree = ast.parse(source)
    if not type_checking:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & ours.keys()
            if names - ours.keys():  # something that the module, or the face of the package, holds
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & ours.keys()


def imports():
    """Module -> our modules that it imports."""
    ours = modules()
    return {name: imports_of(file.read_text(), ours) - {name} for name, file in ours.items()}


def check_no_cycle(graph):
    tuple(TopologicalSorter(graph).static_order())


def test_there_is_no_cycle():
    check_no_cycle(imports())


def test_a_cycle_through_the_face_of_a_package_would_be_seen():
    ours = {"house": None, "house.room": None, "house.room.file": None}
    sources = {
        "house": "from house.room import thing",
        "house.room": "from house.room.file import thing",
        "house.room.file": "def f():\n    import house",
    }
    with pytest.raises(CycleError):
        check_no_cycle({name: imports_of(source, ours) - {name} for name, source in sources.items()})


def rooms(page):
    """File -> the number of its room, from the top floor down; and file -> the sentence beside it."""
    room, folder, number, sentences = {}, "", 0, {}
    for line in page.splitlines():
        if heading := HEADING.match(line):
            place = heading[1]
            folder, number = place[: place.rfind("/") + 1], number + 1
            if place.endswith("/"):  # the faces of a folder belong to its first room
                for face in ("__init__.py", "__main__.py"):
                    if (ROOT / place / face).exists():
                        room.setdefault(place + face, number)
        elif entry := LINE.match(line):
            assert folder + entry[1] not in sentences, f"{folder + entry[1]} is there twice"
            room[folder + entry[1]], sentences[folder + entry[1]] = number, entry[2]
    return room, sentences


def first_line(file):
    """Of the docstring."""
    return (ast.get_docstring(ast.parse((ROOT / file).read_text())) or "").split("\n")[0]


def check_floors(graph, room):
    """Refuse imports that point up, from a module of one room to one of a room above it."""
    upwards = [
        f"{name} (room {room[name]}) imports {other} (room {room[other]})"
        for name, others in graph.items()
        for other in others
        if room[other] < room[name]
    ]
    assert not upwards, "\n".join(upwards)


def test_rooms_import_downwards_only():
    of_file, _ = rooms(PAGE.read_text())
    check_floors(imports(), {name: of_file[str(file.relative_to(ROOT))] for name, file in modules().items()})


def test_an_import_that_points_up_would_be_seen():
    check_floors({"hall": {"cellar"}, "cellar": set()}, {"hall": 1, "cellar": 2})
    with pytest.raises(AssertionError, match=r"cellar \(room 2\) imports hall \(room 1\)"):
        check_floors({"hall": set(), "cellar": {"hall"}}, {"hall": 1, "cellar": 2})


def test_every_file_is_on_the_page_with_its_own_sentence():
    of_file, sentences = rooms(PAGE.read_text())
    assert set(of_file) == {str(file.relative_to(ROOT)) for file in modules().values()}
    for file, sentence in sentences.items():
        assert sentence == first_line(file), file


def test_the_environment_does_not_know_its_learners():
    ours = modules()
    for name, file in ours.items():
        if name.startswith("dsfp_env"):
            found = imports_of(file.read_text(), ours, type_checking=True)
            assert not [one for one in found if one.split(".")[0] in ("agents", "train_agents")], name


def test_importing_needs_no_heavy_optional_library():
    heavy = {"ray", "stable_baselines3", "matplotlib", "sklearn", "torchvision"}
    code = f"import sys, dsfp_env, agents; dsfp_env.load_task, agents.train; print({heavy} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout.strip() == "set()", process.stderr


def test_public_names_come_on_first_use():
    code = (
        "import sys, dsfp_env, agents; print('torch' in sys.modules)\n"
        "from dsfp_env import *; from agents import *\n"
        "print(InputError.__name__, QLearning.__name__, 'load_task' in dir(dsfp_env), 'train' in dir(agents))\n"
        "dsfp_env.evaluation.measurement.Measurement; agents.nothing"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout.split() == ["False", "InputError", "QLearning", "True", "True"], process.stderr
    assert "AttributeError: module 'agents' has no attribute 'nothing'" in process.stderr


def refreshed(page):
    """The page with today's sentences."""
    lines, folder = [], ""
    for line in page.splitlines():
        if heading := HEADING.match(line):
            folder = heading[1][: heading[1].rfind("/") + 1]
        elif entry := LINE.match(line):
            line = f"- `{entry[1]}`: {first_line(folder + entry[1])}"
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(refreshed(PAGE.read_text()))
