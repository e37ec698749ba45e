"""Settings in a YAML file, and what is answered before anything that is slow to import."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agents.run_settings import RunSettings
from dsfp_env.common import command_line
from dsfp_env.common.config_files import read_config, write_config
from dsfp_env.common.errors import InputError

ROOT = Path(__file__).parents[1]


def parsed(*arguments):
    found = []
    assert command_line.run(RunSettings, found.append, None, arguments) == 0
    return found[0]


def test_no_arguments_at_all_are_the_defaults():
    assert parsed() == RunSettings()


def test_a_file_is_read_and_the_command_line_wins(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "evaluations: 7\nmacs-budget: 1\nlayers: first=keep\nstore: false\nseed: 3\n"
    )
    found = parsed("--config", str(tmp_path / "mine.yaml"), "--seed", "4")
    expected = RunSettings(evaluations=7, macs_budget=1.0, layers="first=keep", store=False, seed=4)
    assert found == expected


def test_what_is_written_is_read_again_from_file_and_folder(tmp_path):
    asked = RunSettings(task="mine:make", seeds="0-4", macs_budget=0.3, layers="a=10-20", out="x", config=None)
    write_config(tmp_path, dataclasses.asdict(asked))
    expected = dataclasses.replace(asked, out=None)
    assert read_config(tmp_path, RunSettings) == read_config(tmp_path / "config.yaml", RunSettings) == expected
    write_config(tmp_path, dataclasses.asdict(RunSettings()))  # it is there: it stays
    assert parsed(f"--config={tmp_path}") == expected
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_config(tmp_path / "empty.yaml", RunSettings) == RunSettings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("task: digits\nevaluatons: 5", r"line 2: Unknown setting 'evaluatons'\. Did you mean 'evaluations'\?"),
        ("\nevaluations: many", "line 2: evaluations is 'many', text: expected a whole number"),
        ("evaluations: 1.5", "evaluations is 1.5, a number: expected a whole number"),
        ("store: 1", "store is 1, a whole number: expected true or false"),
        ("seeds: 3", "seeds is 3, a whole number: expected text or null; put it in quotes, '3'"),
        ("macs_budget: [1]", "line 1: macs_budget is .1., list: expected a number or null"),
        ("seed: 1\nseed: 2", "line 2 names 'seed': that was said before"),
        ("out: here", "names 'out': that is said on the command line only"),
        ("- 1", "holds no settings: expected YAML"),
        ("task: [", "cannot be read as settings .while parsing"),
        ("seed: !!python/object:os.system 1", "cannot be read as settings .could not determine a constructor"),
        ("a: " + "[" * 5000, "cannot be read as settings"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path, text, sentence):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_config(tmp_path / "mine.yaml", RunSettings)


def test_a_file_that_is_none(tmp_path, capsys):
    for place in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(InputError, match="No such file"):
            read_config(place, RunSettings)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as settings"):
        read_config(tmp_path / "bytes.yaml", RunSettings)
    assert command_line.run(RunSettings, print, None, ["--config", str(tmp_path / "none.yaml")]) == 2
    assert "error: " in capsys.readouterr().err


def commands():
    """As what ``python -m`` takes: everything that is shipped and can be run."""
    files = [*ROOT.glob("agents/**/*.py"), *ROOT.glob("dsfp_env/**/*.py"), ROOT / "train_agents.py"]
    runnable = [file for file in files if '\nif __name__ == "__main__":' in file.read_text()]
    return sorted(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for file in runnable
    )


def test_all_commands_are_found():
    assert {"train_agents", "agents.registry", "dsfp_env.tabulate", "dsfp_env.datasets"} < set(commands())


@pytest.mark.parametrize("command", commands())
def test_help_needs_no_torch(command):
    code = (
        "import sys, runpy\n"
        "sys.argv = ['command', '--help']\n"
        f"try:\n    runpy.run_module({command!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    print(end.code, 'torch' in sys.modules)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert process.stdout.split()[-2:] == ["0", "False"], process.stderr
    assert f"usage: python -m {command}" in process.stdout


def test_help_has_the_options_of_the_command_first_then_groups_in_which_related_ones_are_beside_each_other():
    lines = help_of("train_agents").splitlines()
    titles = [line.strip("╭╮─ ") for line in lines if line.startswith("╭")]
    groups = ("task", "layer", "evaluation", "width", "budget", "finish", "executor")
    assert titles == ["options", *(f"{one} options" for one in groups)]
    names = [line.split()[1].rstrip(",") for line in lines if line.startswith("│ --")]
    assert names[:5] == ["--agent", "--evaluations", "--seed", "--seeds", "--macs-budget"]
    assert names.index("--tie") == names.index("--layers") + 1
    assert sorted(names) == sorted(
        f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(RunSettings)
    )


def test_help_of_an_option_is_one_paragraph_with_its_default_unless_that_is_none():
    text = help_of("train_agents", columns=400)
    assert "--seeds STR" in text
    assert (
        "Several runs instead of one, for example 0-4 or 0,3,7; each has its folder, and a summary is added.  "
        in text
    )
    assert "one agent for layers that are coupled, as the sides of a residual sum are. (default: layer)" in text


def help_of(command, columns=100):
    environment = {**os.environ, "COLUMNS": str(columns)}
    process = subprocess.run(
        [sys.executable, "-m", command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_the_options_of_a_learner_are_told_with_its_help():
    command = [sys.executable, "train_agents.py", "--agent", "nsga2", "--help"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0
    assert "crossover: number from 0 to 1, default 0.9" in process.stdout
    assert "population: whole number 1 or more, default fits the budget" in process.stdout


def test_ctrl_c_while_a_command_imports_ends_it_without_a_traceback():
    program = (
        "import os, signal, sys\n"
        "from agents.run_settings import RunSettings\n"
        "from dsfp_env.common import command_line\n"
        "sys.argv = ['command']\n"
        "when = sys.stdin.read()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "command_line.answer_early(RunSettings, None)\n"
        "if when == 'importing':\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.exit(command_line.run(RunSettings, lambda _: os.kill(os.getpid(), signal.SIGINT), None))\n"
    )
    command = [sys.executable, "-c", program]
    ends = [
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, input=when)
        for when in ("importing", "working")
    ]
    assert [(end.returncode, end.stderr) for end in ends] == [
        (-signal.SIGINT, ""),
        (128 + signal.SIGINT, "stopped; the same command goes on from here\n"),
    ]
