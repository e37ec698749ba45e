"""The blocks that people prune today, narrow: what must be prunable is, removal is exact, and files come back.

What is prunable here is a minimum: a tracer that finds more passes too. `benchmarks/blocks.py` prunes the same
networks at their published widths.
"""

import copy
import re
import runpy
from pathlib import Path

import pytest
import torch
from conftest import count
from torch import nn
from torch.nn.modules.conv import _ConvNd

from dsfp_env import ChannelGraph, load_pruned, save_pruned
from dsfp_env.channels.tracing import tensors_of

BLOCKS = runpy.run_path(str(Path(__file__).parent.parent / "benchmarks" / "block_networks.py"))
NETWORKS, settled = BLOCKS["NETWORKS"], BLOCKS["settled"]
# what need not be prunable: what is shuffled, mixed over channels, or is the output
MAY_STAY = {
    "yolo": r"head\..*",
    "unet": "head",
    "convnext_linear": ".*",
    "convnext_conv": r"features\.\d+|.*\.(spatial|narrow)",
    "mobilenetv4_hybrid": r".*\.(query|key|value)",
    "shufflenet": r"features\.(2|6|14)\.side\.[01]\.0|.*\.main\.2\.0",
}


def make(name):
    """A narrow network in evaluation mode, and two images."""
    torch.manual_seed(0)
    images = torch.randn(2, 3, 64, 64)
    return settled(NETWORKS[name].make(NETWORKS[name].narrow), images), images


def prune(graph, network, ratio, seed=0):
    """Kept filters, slim network, masked network; random ratios if there is none."""
    rng = torch.Generator().manual_seed(seed)
    scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in graph.layers.items()}
    drawn = {path: float(torch.empty(()).uniform_(0.1, 0.9, generator=rng)) for path in scores}
    keep = graph.keep(drawn if ratio is None else dict.fromkeys(scores, ratio), scores)
    return keep, graph.slim(network, keep), graph.masked(network, keep)


@torch.no_grad()
def assert_same(slim, masked, images):
    for ours, reference in zip(tensors_of(slim(images)), tensors_of(masked(images)), strict=True):
        assert reference.isfinite().all()
        assert reference.std() > 0
        assert (ours - reference).abs().max() <= 1e-4 * reference.abs().max()


def training_step(network, images):
    sum(answer.square().mean() for answer in tensors_of(network(images))).backward()
    torch.optim.SGD(network.parameters(), lr=1e-4).step()


@pytest.mark.parametrize("name", NETWORKS)
def test_removal_is_exact(name, tmp_path):
    network, images = make(name)
    before = copy.deepcopy(network.state_dict())
    graph = ChannelGraph.trace(network, images)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    convolutions = {path for path, module in network.named_modules() if isinstance(module, _ConvNd)}
    assert graph.layers.keys() | graph.excluded.keys() == convolutions
    assert not graph.layers.keys() & graph.excluded.keys()
    assert graph.layers.keys() >= {p for p in convolutions if not re.fullmatch(MAY_STAY.get(name, "-"), p)}
    assert all(graph.excluded.values())
    for seed, ratio in enumerate((0.1, 0.5, 0.9, None, None)):
        keep, slim, masked = prune(graph, network, ratio, seed)
        assert_same(slim, masked, images)
        _, macs, params = count(slim, images[:1])
        assert (graph.costs(keep).macs, graph.costs(keep).params) == (macs, params)
        for path, layer in graph.layers.items():
            assert slim.get_submodule(path).out_channels == len(keep[path]) <= layer.out_channels
    save_pruned(tmp_path / "slim.safetensors", slim, keep, graph)
    loaded = load_pruned(tmp_path / "slim.safetensors", network=network)
    assert_same(loaded, slim, images)
    for trained in (slim, masked):
        training_step(trained, images)
    assert_same(slim, masked, images)


@pytest.mark.parametrize("width", [3, 5, 6])
def test_a_ghost_module_of_an_odd_width_leaves_a_channel_out(width):
    """Then it slices, by position."""
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 8, 3), BLOCKS["Ghost"](8, width), nn.Conv2d(width, 6, 3), nn.ReLU())
    images = torch.randn(2, 3, 16, 16)
    network = settled(BLOCKS["Classifier"](features, 6, 10), images)
    graph = ChannelGraph.trace(network, images)
    assert {"features.0", "features.2"} <= graph.layers.keys()
    for seed in range(8):
        _, slim, masked = prune(graph, network, None, seed)
        assert_same(slim, masked, images)
