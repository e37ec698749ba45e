"""The notebooks run from their first cell to their last, and are kept without what they print."""

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = {  # how many pictures each shows, and which files it writes
    "1_first_steps": (4, set()),
    "2_own_agent_on_the_leaderboard": (1, {"mine.py", "leaderboard", "regret.svg", "regret.pdf"}),
    "3_own_network_to_onnx": (0, {"original.onnx", "slim.onnx", "slim.safetensors"}),
}


def path(name):
    return ROOT / "notebooks" / f"{name}.ipynb"


def test_no_notebook_is_forgotten():
    assert {file.stem for file in (ROOT / "notebooks").glob("*.ipynb")} == set(MAKE)


@pytest.mark.parametrize("name", MAKE)
def test_a_notebook_begins_with_colab_and_is_kept_without_outputs(name):
    first, second, *rest = json.loads(path(name).read_text())["cells"]
    assert "In Colab" in "".join(first["source"])
    *_, condition, install = second["source"]
    assert condition.startswith('if importlib.util.find_spec("dsfp_env") is None:')
    assert install.startswith("    %pip install -q ")
    for cell in [second, *rest]:
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.apart
@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize("name", MAKE)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: pip install '.[test]'")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed: pip install '.[test]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path(name), as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures, files = MAKE[name]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
    assert {file.name for file in tmp_path.iterdir()} == files
    assert "Warning" not in "".join(output.get("text", "") for output in outputs)
