"""The examples run as the user would run them."""

import subprocess
import sys
from pathlib import Path

import torch

from dsfp_env.checkpoints import read_pruned

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments, folder):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


def test_your_own_network(tmp_path):
    assert len((EXAMPLES / "your_own_network.py").read_text().splitlines()) < 40
    printed = run("your_own_network.py", "2", "pruned.safetensors", folder=tmp_path)
    header, tensors = read_pruned(tmp_path / "pruned.safetensors")
    filters = {path: layer["filters"] for path, layer in header["layers"].items()}
    assert len(filters) == 12
    assert filters["conv1"] == filters["layer1.0.conv2"] == len(tensors["conv1.weight"]) < 64
    assert f"params={sum(t.numel() for n, t in tensors.items() if 'running' not in n and t.dim())}" in printed
    assert torch.cat([tensor.flatten().float() for tensor in tensors.values()]).isfinite().all()
