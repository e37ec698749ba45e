"""Imports point down: leaves, tasks, evaluator, environment, wrappers, agents, train_agents."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def imports_of(path, type_checking=False):
    """Modules of ours that a file imports at run time."""
    tree = ast.parse(path.read_text())
    if not type_checking:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
                node.body = [ast.Pass()]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules():
    files = [*ROOT.glob("dsfp_env/**/*.py"), *ROOT.glob("agents/**/*.py"), ROOT / "train_agents.py"]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}


def test_there_is_no_cycle():
    ours = modules()
    graph = {name: {i for i in imports_of(file) if i in ours and i != name} for name, file in ours.items()}
    assert tuple(TopologicalSorter(graph).static_order())


def test_the_environment_does_not_know_its_learners():
    for name, file in modules().items():
        if name.startswith("dsfp_env"):
            assert not [i for i in imports_of(file, True) if i.split(".")[0] in ("agents", "train_agents")], name


def test_importing_needs_no_heavy_optional_library():
    heavy = {"ray", "stable_baselines3", "matplotlib", "sklearn", "torchvision"}
    code = f"import sys, dsfp_env; print({heavy} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout.strip() == "set()", process.stderr
