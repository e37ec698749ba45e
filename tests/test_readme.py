"""What the README says works: every Python block runs, as it stands, one after another."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[block.strip().splitlines()[-1] for block in BLOCKS])
@pytest.mark.usefixtures("digits")
def test_block_runs(block, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.strip()


def test_the_two_commands_are_those_that_ci_and_users_run():
    assert "pip install . && python train_agents.py" in README
    assert "pip install '.[test]' && pytest" in README
    ci = (Path(__file__).parents[1] / ".ci" / "run").read_text()
    assert "pip install '.[test]' && pytest" in ci
