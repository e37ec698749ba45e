"""The main job as a user runs it: from the command line, with good settings and bad ones."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import matplotlib.image
import pytest
import torch

import agents
import dsfp_env
import train_agents
from agents.main_job import one_run
from agents.main_job.asked import free_folder, make_env
from agents.reporting.finals import MEASURING_SEEDS
from agents.reporting.fronts import front_of, volume_of
from agents.reporting.seeds import parse_seeds
from dsfp_env.training.accuracy import measure_accuracy

ROOT = Path(__file__).parents[1]
ENTRY_KEYS = {
    "ratios",
    "validation_accuracy",
    "test_accuracy",
    "macs",
    "relative_macs",
    "params",
    "filters",
    "reward",
}
QUICK = ["--evaluations", "4", "--kd-batches", "1", "--criterion", "l1", "--device", "cpu", "--no-store"]


def command(*arguments):
    return [sys.executable, str(ROOT / "train_agents.py"), *map(str, arguments)]


def run(*arguments, **variables):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits):
    """One quick run on the real task; digits is asked for so that its network is in the cache."""
    out = tmp_path_factory.mktemp("runs") / "first"
    return out, run(*QUICK, "--out", out, PYTHONHASHSEED="1")


def test_a_run_leaves_a_whole_folder(finished, digits):
    out, process = finished
    assert process.returncode == 0, process.stderr
    result = json.loads((out / "result.json").read_text())
    assert {"task", "agent", "seed", "evaluations", "original", "best", "greedy", "baselines"} <= set(result)
    assert (result["task"], result["agent"], result["seed"], result["evaluations"]) == (
        "digits",
        "q_learning",
        0,
        4,
    )
    assert {"uniform", "random_search"} <= set(result["baselines"])
    entries = [result["original"], result["best"], result["greedy"], *result["baselines"].values()]
    assert all(set(entry) >= ENTRY_KEYS for entry in entries)
    assert result["original"]["relative_macs"] == 1
    assert abs(result["baselines"]["uniform"]["macs"] / result["best"]["macs"] - 1) < 0.1
    assert result["baselines"]["random_search_equal_macs"]["macs"] <= result["best"]["macs"]
    assert result["original"]["test_accuracy"] == measure_accuracy(digits.network, digits.test)
    assert "4/4, best reward 0." in process.stderr  # plain lines, as this is no terminal
    assert "best joint action" in process.stdout

    lines = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert [line["evaluation"] for line in lines] == [1, 2, 3, 4]
    assert result["best"]["ratios"] in [line["ratios"] for line in lines]
    saved = json.loads((out / "settings.json").read_text())
    assert saved["settings"]["criterion"] == "l1"
    assert saved["versions"]["torch"] == version("torch")
    pruned = dsfp_env.load_pruned(out / "pruned.safetensors")
    assert sum(p.numel() for p in pruned.parameters()) == result["best"]["params"]
    assert matplotlib.image.imread(out / "summary.png").std() > 0.1
    assert (out / "report.html").read_text().count("<svg") == 5
    layers = json.loads((out / "report.json").read_text())["layers"]
    assert [layer["agent"] for layer in layers] == list(digits.agents)
    assert not list(out.glob("*.part"))


def test_the_same_seed_gives_the_same_result_to_the_last_digit(finished, tmp_path):
    first, _ = finished
    process = run(*QUICK, "--out", tmp_path / "again", "--workers", "1", PYTHONHASHSEED="2")
    assert process.returncode == 0, process.stderr
    for name in ("result.json", "evaluations.jsonl", "pruned.safetensors", "report.html", "report-front.pdf"):
        assert (first / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    process = run(*QUICK, "--out", tmp_path / "other", "--workers", "1", "--seed", "1")
    assert (first / "evaluations.jsonl").read_bytes() != (tmp_path / "other" / "evaluations.jsonl").read_bytes()


def settings(**kwargs):
    quick = {"evaluations": 3, "kd_batches": 1, "criterion": "l1", "device": "cpu", "workers": 1}
    return train_agents.RunSettings(**{**quick, **kwargs})


@pytest.mark.parametrize("agent", ["regression_bandit", "random_search", "uniform", "test_agents:MyAgent"])
@pytest.mark.usefixtures("digits")
def test_every_agent_runs(tmp_path, agent):
    out = tmp_path / "out"
    assert train_agents.train(settings(agent=agent, out=str(out), horizon=2, macs_budget=0.3)) == 0
    result = json.loads((out / "result.json").read_text())
    assert (result["agent"], result["reward"], result["macs_budget"]) == (agent, "budget", 0.3)
    lines = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    if agent == "random_search":  # which chooses levels, and respects masks
        assert max(line["relative_macs"] for line in lines) <= 0.3
        assert result["baselines"]["random_search"]["relative_macs"] <= 0.3
    assert result["pareto"] == front_of(lines)
    volume = volume_of(*([line[name] for line in lines] for name in ("validation_accuracy", "relative_macs")))
    assert result["hypervolume"]["tried"] == volume


@pytest.mark.usefixtures("digits")
def test_difference_credit(tmp_path):
    out = tmp_path / "out"
    assert train_agents.train(settings(credit="difference", evaluations=12, out=str(out))) == 0
    lines = [json.loads(line) for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert 2 <= len(lines) <= 4  # each asks for up to five evaluations
    assert lines[-1]["evaluation"] <= 12
    assert json.loads((out / "result.json").read_text())["credit"] == "difference"


@pytest.mark.usefixtures("digits")
def test_several_seeds_are_summed_up(tmp_path, capsys):
    out = tmp_path / "out"
    assert train_agents.train(settings(seeds="0,2", agent="random_search", out=str(out))) == 0
    results = [json.loads((out / f"seed-{seed}" / "result.json").read_text()) for seed in (0, 2)]
    assert [result["seed"] for result in results] == [0, 2]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["seeds"] == [0, 2]
    first, second = (result["best"]["test_accuracy"] for result in results)
    assert summary["summary"]["best"]["test_accuracy"]["mean"] == pytest.approx((first + second) / 2)
    assert summary["summary"]["best"]["test_accuracy"]["std"] == pytest.approx(abs(first - second) / 2**0.5)
    printed = capsys.readouterr().out
    assert "2 seeds, mean ± std" in printed
    assert "fine-tuned with three seeds that no search has seen" in printed
    assert MEASURING_SEEDS == 3


@pytest.mark.usefixtures("digits")
def test_outcomes_on_disk_can_be_left_alone():
    assert make_env(settings()).evaluator._store is not None
    assert make_env(settings(store=False)).evaluator._store is None


def test_seeds_and_default_folders(tmp_path, monkeypatch):
    assert parse_seeds("0-4") == [0, 1, 2, 3, 4]
    assert parse_seeds("7,1-2") == [7, 1, 2]
    monkeypatch.chdir(tmp_path)
    folder = free_folder(train_agents.RunSettings())
    assert str(folder) == "runs/digits-q_learning-seed0"
    folder.mkdir(parents=True)
    assert str(free_folder(train_agents.RunSettings())) == "runs/digits-q_learning-seed0-2"


class BoxedQLearning(agents.QLearning):
    actions = "box"


BAD = [
    ({"task": "digit"}, "Did you mean 'digits'"),
    ({"agent": "q-learning"}, "Did you mean 'q_learning'"),
    ({"reward": "acuracy_x_saving"}, "Did you mean 'accuracy_x_saving'"),
    ({"reward": "budget"}, "needs a budget"),
    ({"criterion": "taylr"}, "Did you mean 'taylor'"),
    ({"evaluations": 0}, "--evaluations is 0: expected 1 or more"),
    ({"horizon": 0}, "--horizon is 0"),
    ({"horizon": 9, "evaluations": 8}, "--horizon is 9, and --evaluations is 8: expected as many"),
    ({"reward": ""}, "Unknown reward ''"),
    ({"recipe": ""}, "Unknown recipe ''"),
    ({"macs_budget": 1.5}, "The MACs budget is 1.5"),
    ({"kd_batches": -1}, "Fidelity.batches is -1"),
    ({"observation": "layer"}, "Did you mean 'layers'"),
    ({"seed": -1}, "The seed -1 is negative"),
    ({"seeds": "4-0"}, "expected for example 0-4"),
    ({"seed": 1, "seeds": "0-4"}, "--seed is 1, and --seeds is 0-4: expected one of them"),
    ({"seeds": "1,1"}, "named twice"),
    ({"device": "cdua"}, "Device 'cdua' cannot be used here"),
    ({"credit": "diference"}, "Did you mean 'difference'"),
    ({"credit": "difference"}, "The budget is 3 evaluation.s., and one step can take 5"),
    ({"agent": "q_learning(step=1)"}, "Did you mean 'step_size'"),
    ({"agent": "nowhere:Agent"}, "Could not import the agent"),
    ({"agent": "test_train_agents:BoxedQLearning"}, "actions='levels'"),
]
if not torch.cuda.is_available():
    BAD.append(({"device": "cuda"}, "Device 'cuda' cannot be used here"))


@pytest.mark.parametrize(("wrong", "sentence"), BAD, ids=str)
@pytest.mark.usefixtures("digits")
def test_bad_settings_get_a_sentence_and_write_nothing(tmp_path, monkeypatch, wrong, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(dsfp_env.InputError, match=sentence):
        train_agents.train(settings(**wrong))
    assert list(tmp_path.iterdir()) == []


def test_folders_that_cannot_be_used_get_a_sentence(tmp_path, finished, monkeypatch):
    out, _ = finished
    with pytest.raises(
        dsfp_env.InputError, match="already holds a run with other settings: --evaluations is 4 there, and 3 came"
    ):
        train_agents.train(settings(out=str(out)))
    (tmp_path / "file").write_text("kept")
    with pytest.raises(dsfp_env.InputError, match="is not empty"):
        train_agents.train(settings(out=str(tmp_path)))
    with pytest.raises(dsfp_env.InputError, match="cannot be written .*file is a file"):
        train_agents.train(settings(out=str(tmp_path / "file" / "below")))
    monkeypatch.setattr(os, "access", lambda *_: False)  # for root, every folder can be written
    with pytest.raises(dsfp_env.InputError, match="is read-only"):
        train_agents.train(settings(out=str(tmp_path / "new" / "below")))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_mistake_on_the_command_line_is_one_sentence_and_a_nonzero_exit(tmp_path):
    process = run("--agent", "q_learnin", "--out", tmp_path / "out")
    assert process.returncode == 2
    assert process.stderr.startswith("error: Unknown agent 'q_learnin'. Did you mean 'q_learning'?")
    assert "Traceback" not in process.stderr
    assert not (tmp_path / "out").exists()
    assert run("--no-such-option").returncode == 2


def test_help_explains_every_option():
    text = run("--help").stdout
    for name in train_agents.RunSettings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in text
    assert "(default: q_learning)" in text


@pytest.mark.usefixtures("digits")
def test_ctrl_c_leaves_the_evaluations_so_far_and_the_best_of_them(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(*QUICK, "--evaluations", "100000", "--out", out),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = out / "evaluations.jsonl"
    deadline = time.monotonic() + 120
    while not (lines.exists() and lines.read_text().count("\n") >= 3):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 130
    assert "ended after" in errors
    assert "Traceback" not in errors
    evaluations = [json.loads(line) for line in lines.read_text().splitlines()]
    result = json.loads((out / "result.json").read_text())
    assert result["interrupted"]
    assert result["evaluations"] == len(evaluations)
    best = max(evaluations, key=lambda line: line["reward"])
    assert result["best"]["ratios"] == best["ratios"]
    assert result["best"]["reward"] == best["reward"]


@pytest.mark.usefixtures("digits")
def test_a_failure_loses_nothing(tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(one_run, "write", fail)
    with pytest.raises(RuntimeError, match="the disk is full"):
        train_agents.train(settings(out=str(tmp_path / "out")))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["interrupted"]
    assert result["evaluations"] == 3
    assert "ended after 3 of 3 evaluations; the best of them" in capsys.readouterr().err
