"""The examples run as the user would run them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dsfp_env.checkpoints import read_pruned

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments, folder):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.apart
def test_your_own_network(tmp_path):
    assert len((EXAMPLES / "your_own_network.py").read_text().splitlines()) < 40
    printed = run("your_own_network.py", "2", "pruned.safetensors", folder=tmp_path)
    header, tensors = read_pruned(tmp_path / "pruned.safetensors")
    filters = {path: layer["filters"] for path, layer in header["layers"].items()}
    assert len(filters) == 12
    assert filters["conv1"] == filters["layer1.0.conv2"] == len(tensors["conv1.weight"]) < 64
    assert f"params={sum(t.numel() for n, t in tensors.items() if 'running' not in n and t.dim())}" in printed
    assert torch.cat([tensor.flatten().float() for tensor in tensors.values()]).isfinite().all()


FEW = "--trials", "4", "--at-once", "2", "--seeds", "2", "--evaluations", "12"


def test_a_sweep_over_options(tmp_path):
    *rounds, best = run("tune_sweep.py", *FEW, "--executor", "serial", folder=tmp_path).splitlines()
    assert [line.partition(",")[0] for line in rounds] == ["2 trials", "4 trials"]
    assert best.startswith("--agent 'q_learning(step_size=0.")
    regrets = [float(line.split("least regret ")[1]) for line in rounds]
    assert 0 <= regrets[1] <= regrets[0] < 2


@pytest.mark.long
def test_a_cluster_in_one_machine(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'dsfp_env[ray]'")
    printed = run("local_cluster.py", "--plans", "8", folder=tmp_path)
    assert "8 plans, equal to those of one process: True" in printed


@pytest.mark.long
@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_a_sweep_is_the_same_wherever_it_is_made(executor, tmp_path):
    if executor == "ray":
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'dsfp_env[ray]'")
    alone, there = (run("tune_sweep.py", *FEW, "--executor", one, folder=tmp_path) for one in ("serial", executor))
    assert alone == there
