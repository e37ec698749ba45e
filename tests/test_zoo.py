"""Every classification model of torchvision: exact removal, honest costs, a reason for what is left alone.

Random weights, and small images. `python benchmarks/trace_zoo.py` prints the same models with 224x224 images as
the table in docs/networks.md.
"""

import copy
import math
import warnings
from contextlib import contextmanager
from unittest import mock

import pytest
import torch
import torchvision
from conftest import count
from torch import nn
from torch.nn import functional as F

from dsfp_env import ChannelGraph

MODELS = torchvision.models.list_models(module=torchvision.models)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
SIZES = {"maxvit_t": 224, "inception_v3": 299, "alexnet": 64, "vit_h_14": 56}  # 64 for the others
OPTIONS = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
SLOW = {"vit_h_14", "maxvit_t", "inception_v3"}  # 10 s or more
# The first is built as regnet_y_32gf is, with 2.6 GB of weights. The others are verified set by set, as rounding
# grows too much along so many layers with random weights.
MINUTES = {"regnet_y_128gf", "efficientnet_v2_l", "efficientnet_v2_s"}
MIXED = ("convnext", "swin", "vit")  # every convolution feeds a LayerNorm or position embeddings


def cheaply(tensor, *args, **kwargs):
    """Instead of torch's initialisers: normal numbers of the right size, repeated, in a fraction of the time."""
    fan_in = tensor[0].numel() if tensor.dim() > 1 else 1
    pattern = torch.randn(min(tensor.numel(), 65521)) * math.sqrt(1 / fan_in)
    with torch.no_grad():
        tensor.copy_(pattern.repeat(-(-tensor.numel() // len(pattern)))[: tensor.numel()].view(tensor.shape))
    return tensor


@contextmanager
def quick_initialisation():
    names = ("kaiming_uniform_", "kaiming_normal_", "trunc_normal_", "xavier_uniform_", "normal_", "uniform_")
    patches = [mock.patch.object(nn.init, name, cheaply) for name in names]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


def make(name):
    """A model in evaluation mode, with statistics and slopes that are not all alike, and two images."""
    torch.manual_seed(0)
    size = SIZES.get(name, 64)
    options = {"image_size": size} if name.startswith("vit") else OPTIONS.get(name, {})
    with quick_initialisation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torchvision.models.get_model(name, num_classes=10, **options).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    if name.startswith("squeezenet"):
        nn.init.constant_(network.classifier[1].bias, 1.0)  # a ReLU follows, and zeros prove nothing
    return network, torch.randn(2, 3, size, size)


def relative_difference(ours, reference):
    assert reference.isfinite().all()
    return float((ours - reference).abs().max() / reference.abs().max())


def training_step(network, images):
    F.cross_entropy(network(images), torch.tensor([0, 1])).backward()
    torch.optim.SGD(network.parameters(), lr=1e-4).step()
    with torch.no_grad():
        return network(images)


def marked(name):
    """A model's name, with what it costs."""
    marks = [pytest.mark.slow] * (name in SLOW) + [pytest.mark.long] * (name in MINUTES)
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [marked(model) for model in MODELS])
def test_removal_is_exact(name, monkeypatch):
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)
    network, images = make(name)
    before, flags = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    graph = ChannelGraph.trace(network, images)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert flags == [module.training for module in network.modules()]
    del before
    convolutions = {path for path, module in network.named_modules() if isinstance(module, CONVOLUTIONS)}
    assert graph.layers.keys() | graph.excluded.keys() == convolutions
    assert not graph.layers.keys() & graph.excluded.keys()
    assert all(graph.excluded.values())
    assert bool(graph.layers) is not name.startswith(MIXED)
    if not graph.layers:
        _, macs, params = count(network, images[:1])
        assert (graph.costs().macs, graph.costs().params) == (macs, params)
        return
    rng = torch.Generator().manual_seed(0)
    for ratio in (0.1, 0.9, None):
        scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in graph.layers.items()}
        ratios = {
            p: float(torch.empty(()).uniform_(0.1, 0.9, generator=rng)) if ratio is None else ratio for p in scores
        }
        keep = graph.keep(ratios, scores)
        slim, masked = graph.slim(network, keep), graph.masked(network, keep)
        logits, macs, params = count(slim, images[:1])
        with torch.no_grad():
            assert relative_difference(logits, masked(images[:1])) <= 1e-4
        assert (graph.costs(keep).macs, graph.costs(keep).params) == (macs, params)
    assert relative_difference(training_step(slim, images), training_step(masked, images)) <= 1e-4
