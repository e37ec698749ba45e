"""Shared pieces: a cache of the tests' own, the real digits task, and a tiny task for speed."""

import hashlib
import os
import pickle
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.transforms.v2.functional import to_pil_image

import dsfp_env
from dsfp_env.datasets import on_disk
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.evaluation.outcome_store import OutcomeStore

torch.set_num_threads(1)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job in the background; processes would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Trained networks are kept in a fresh directory, also by subprocesses, which run on one thread each."""
    os.environ["DSFP_ENV_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["OMP_NUM_THREADS"] = "1"  # two workers with two threads each are many times slower on two cores


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Outcomes are kept on disk, in a directory of the test's own."""
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path / "cache"))
    return OutcomeStore()


@pytest.fixture(autouse=True)
def everything_is_evaluated_anew(request, monkeypatch):
    """So that tests that compare two evaluations compare two; other than those that ask for the store."""
    if "store" not in request.fixturenames:
        monkeypatch.setattr(OutcomeStore, "find", lambda self, keys: {})


@pytest.fixture
def built(monkeypatch):
    """A list that grows with every network that is pruned and fine-tuned in this process."""
    built, work = [], Measurement.build
    monkeypatch.setattr(Measurement, "build", lambda *given: built.append(given) or work(*given))
    return built


@pytest.fixture(scope="session")
def digits(own_cache):
    return dsfp_env.load_task("digits")


@pytest.fixture(scope="session")
def image_files(tmp_path_factory):
    """Real handwritten digits as a tree of JPEG files, 16x16 pixels: 30 of each for training, 10 for test."""
    from sklearn.datasets import load_digits

    pixels, classes = load_digits(return_X_y=True)
    root = tmp_path_factory.mktemp("digits")
    for digit in range(10):
        images = torch.from_numpy(pixels[classes == digit][:40].reshape(-1, 1, 8, 8) / 16 * 255)
        images = F.interpolate(images, scale_factor=2, mode="bilinear").to(torch.uint8).expand(-1, 3, -1, -1)
        for number, image in enumerate(images):
            folder = root / ("train" if number < 30 else "test") / str(digit)
            folder.mkdir(parents=True, exist_ok=True)
            to_pil_image(image).save(folder / f"{number:04d}.jpg", quality=95)
    return root


@pytest.fixture
def cifar_files(tmp_path, monkeypatch):
    """Small CIFAR-10 and -100 files of random images, sorted by class; their sums take the real ones' place."""
    rng = np.random.default_rng(0)
    for kind, key, classes in ((CIFAR10, "labels", 10), (CIFAR100, "fine_labels", 100)):
        folder = tmp_path / kind.base_folder
        folder.mkdir()
        for attribute, number in (("train_list", 500), ("test_list", 100)):
            entries = []
            for name, _ in getattr(kind, attribute):
                labels = sorted(i % classes for i in range(number))
                batch = {"data": rng.integers(256, size=(number, 3072), dtype=np.uint8), key: labels}
                (folder / name).write_bytes(pickle.dumps(batch))
                entries.append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])
            monkeypatch.setattr(kind, attribute, entries)
        names = pickle.dumps({kind.meta["key"]: [str(i) for i in range(classes)]})
        (folder / kind.meta["filename"]).write_bytes(names)
        monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": hashlib.md5(names).hexdigest()})
    monkeypatch.setattr(on_disk, "CIFAR_VALIDATION", 50)
    return tmp_path


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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TinyNet()
    fidelity = dsfp_env.Fidelity(recalibration_images=32, batches=2, batch_size=16)
    return dsfp_env.Task.from_network(network, *splits, name=name, device="cpu", fidelity=fidelity)


@pytest.fixture(scope="session")
def saved_tiny(tmp_path_factory):
    """A file of a pruned network of the tiny task."""
    file = tmp_path_factory.mktemp("saved") / "net.safetensors"
    task = make_tiny_task("hostile")
    evaluator = dsfp_env.Evaluator(task, "l1", store=False)
    ratios = dict.fromkeys(task.agents, 50.0)
    dsfp_env.save_pruned(file, evaluator.build(ratios), evaluator.keep(ratios), task, {"score": 1})
    return file


@pytest.fixture(scope="session")
def tiny():
    return make_tiny_task()
