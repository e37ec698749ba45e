"""Imports point down: no file imports one that imports it, and rooms import rooms below them only."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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


def test_the_environment_does_not_know_its_learners():
    ours = modules()
    for name, file in ours.items():
        if name.startswith("dsfp_env"):
            found = imports_of(file.read_text(), ours, type_checking=True)
            assert not [one for one in found if one.split(".")[0] in ("agents", "train_agents")], name


def test_importing_needs_no_heavy_optional_library():
    heavy = {"ray", "stable_baselines3", "matplotlib", "sklearn", "torchvision"}
    code = f"import sys, dsfp_env; print({heavy} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout.strip() == "set()", process.stderr
