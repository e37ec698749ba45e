"""Shared pieces: a cache of the tests' own, the real digits task, and a tiny task for speed."""

import os

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import dsfp_env

torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Trained networks are kept in a fresh directory, also by subprocesses."""
    os.environ["DSFP_ENV_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def digits(own_cache):
    return dsfp_env.load_task("digits")


@torch.no_grad()
def count(network, image):
    """An independent count: logits, multiply-adds of convolutions and linear layers, parameters."""
    with FlopCounterMode(display=False) as counter:
        logits = network(image)
    flops = {str(operation): number for operation, number in counter.get_flop_counts()["Global"].items()}
    macs = sum(flops.get(f"aten.{name}", 0) for name in ("convolution", "addmm", "mm")) // 2
    return logits, macs, sum(parameter.numel() for parameter in network.parameters())


class TinyNet(nn.Module):
    """Two convolutions, 4 and 6 filters, with normalisation; 8x8 images, 3 classes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean((2, 3)))


def make_tiny_task(name="tiny"):
    rng = torch.Generator().manual_seed(0)
    splits = [
        (torch.randn(n, 1, 8, 8, generator=rng), torch.randint(3, (n,), generator=rng)) for n in (64, 40, 30)
    ]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = TinyNet()
    fidelity = dsfp_env.Fidelity(recalibration_images=32, batches=2, batch_size=16)
    return dsfp_env.Task.from_network(network, *splits, name=name, device="cpu", fidelity=fidelity)


@pytest.fixture(scope="session")
def tiny():
    return make_tiny_task()
