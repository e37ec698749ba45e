"""Torch-Pruning as an independent oracle: where it works, both remove the same and answer the same."""

import copy
import warnings

import pytest
import torch
import torchvision
from torch import nn

from dsfp_env import ChannelGraph

tp = pytest.importorskip("torch_pruning", reason="the oracle is not installed (pip install 'dsfp_env[test]')")

# It fails, and we do not: CIFAR ResNets with padded shortcuts (the wrong channels are added, or it crashes),
# channel shuffle (ZeroDivisionError), torch.cat([x, x]), and by index, grouped convolutions (wrong outputs).
AGREE = [
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "densenet121",
    "googlenet",
    "squeezenet1_1",
    "mnasnet0_5",
    "efficientnet_b0",
]


@pytest.mark.parametrize("name", AGREE)
def test_both_remove_the_same(name):
    torch.manual_seed(0)
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torchvision.models.get_model(name, num_classes=10, **options).eval()
    image = torch.randn(1, 3, 64, 64)
    graph = ChannelGraph.trace(network, image)
    for path in list(graph.layers)[:: max(1, len(graph.layers) // 6)]:  # six layers of each
        theirs = copy.deepcopy(network)
        dependencies = tp.DependencyGraph().build_dependency(theirs, image)
        coupled = [path, *graph.layers[path].coupled_with]
        scores = {p: torch.arange(graph.layers[p].out_channels).float() for p in coupled}
        keep = graph.keep(dict.fromkeys(coupled, 0.25), scores)
        gone = sorted(set(range(graph.layers[path].out_channels)) - set(keep[path].tolist()))
        module = theirs.get_submodule(path)
        depthwise = module.groups == module.in_channels > 1
        function = tp.prune_depthwise_conv_out_channels if depthwise else tp.prune_conv_out_channels
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dependencies.get_pruning_group(module, function, idxs=gone).prune()
        ours = graph.slim(network, keep)
        assert {n: t.shape for n, t in ours.state_dict().items()} == {
            n: t.shape for n, t in theirs.state_dict().items()
        }
        with torch.no_grad():
            assert torch.allclose(ours(image), theirs(image), atol=1e-6)


def test_where_the_oracle_fails_and_we_do_not():
    """Option-A shortcuts: its slim network adds the wrong channels."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            x = torch.relu(self.conv1(x))
            x = torch.relu(self.conv2(x) + nn.functional.pad(x, (0, 0, 0, 0, 2, 2)))
            return self.head(x.mean((2, 3)))

    torch.manual_seed(0)
    network, image = Padded().eval(), torch.randn(1, 3, 8, 8)
    graph = ChannelGraph.trace(network, image)
    keep = graph.keep({"conv1": 0.5, "conv2": 0.5}, {"conv1": torch.arange(4), "conv2": torch.ones(8)})
    with torch.no_grad():
        assert torch.allclose(graph.slim(network, keep)(image), graph.masked(network, keep)(image), atol=1e-6)
    theirs, reference = copy.deepcopy(network), copy.deepcopy(network)
    dependencies = tp.DependencyGraph().build_dependency(theirs, image)
    dependencies.get_pruning_group(theirs.conv1, tp.prune_conv_out_channels, idxs=[1]).prune()
    assert (theirs.conv1.out_channels, theirs.conv2.out_channels) == (3, 7)
    with torch.no_grad():
        for module in (reference.conv1, reference.conv2):  # what it took from both, silenced by hand
            module.weight[1], module.bias[1] = 0, 0
        assert (theirs(image) - reference(image)).abs().max() > 1e-3
