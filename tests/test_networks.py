"""Networks to the parameter, and by name."""

import re

import pytest
import torch
import torchvision
from conftest import count
from torch import nn

from dsfp_env import ChannelGraph, Costs, InputError, networks
from dsfp_env.channels.costs import output_only_params
from dsfp_env.networks import NETWORKS, check_network, make_network


def rows():
    """The table at the top of `networks`."""
    cells = re.findall(r"^\| `(\w+)` *\|.*\| ([\d ]+?) *\| ([\d ]+?) *\| ([\d ]+?) *\|$", networks.__doc__, re.M)
    return [(name, *(int(cell.replace(" ", "")) for cell in numbers)) for name, *numbers in cells]


def test_the_table_has_every_network():
    assert [name for name, *_ in rows()] == list(NETWORKS)


@pytest.mark.parametrize(("name", "filters", "params", "macs"), rows())
def test_networks_cost_what_the_table_says(name, filters, params, macs):
    shape = (1, 8, 8) if name == "digits_net" else (3, 32, 32)
    network = make_network(name).eval()
    logits, counted, numel = count(network, torch.zeros(1, *shape))
    assert logits.shape == (1, 10)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert (counted, numel, sum(conv.out_channels for conv in convolutions)) == (macs, params, filters)


@pytest.mark.parametrize(
    ("make", "agents", "costs"),
    [
        (networks.alexnet, 5, Costs(171_643_904, 6_976_842, 1152)),  # the DSFP paper, table I
        (networks.vgg16, 13, Costs(313_330_176, 14_848_586, 4224)),  # table II
    ],
)
def test_the_papers_networks_have_an_agent_for_every_convolution(make, agents, costs):
    graph = ChannelGraph.trace(make(), torch.zeros(1, 3, 32, 32))
    assert len(graph.layers) == agents
    assert not graph.excluded
    assert graph.costs() == costs
    scores = {path: torch.rand(layer.out_channels) for path, layer in graph.layers.items()}
    keep = graph.keep(dict.fromkeys(graph.layers, 0.5), scores)
    network = make()
    _, macs, params = count(graph.slim(network, keep), torch.zeros(1, 3, 32, 32))
    assert (macs, params) == (graph.costs(keep).macs, graph.costs(keep).params)


def test_the_papers_count_of_parameters_has_only_the_outputs():
    """5.6191 M: AlexNet at 60 % with the kept filters of figure 3, and the only two numbers that it does not print
    which give the table's parameters. By hand: each removed filter of conv4 has 9 * 384 weights and a bias."""
    network = networks.alexnet()
    layers = ChannelGraph.trace(network, torch.zeros(1, 3, 32, 32)).layers
    kept = dict(zip(layers, (24, 69, 141, 111, 98), strict=True))
    assert output_only_params(network, layers, kept) == 5_619_149
    one = {path: layer.out_channels for path, layer in layers.items()} | {"features.conv4": 255}
    assert 6_976_842 - output_only_params(network, layers, one) == 9 * 384 + 1
    normed = networks.alexnet_bn()
    layers = ChannelGraph.trace(normed, torch.zeros(1, 3, 32, 32)).layers
    assert 6_979_146 - output_only_params(normed, layers, one) == 9 * 384 + 1 + 2


def test_plain_networks_take_any_size():
    assert networks.alexnet(7)(torch.zeros(2, 3, 48, 40)).shape == (2, 7)


def test_networks_by_name():
    assert isinstance(make_network("vgg16-bn", 3), networks.PlainNet)
    assert isinstance(make_network("torchvision.vgg16", 3), torchvision.models.VGG)
    assert make_network("squeezenet1_0", 3)(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    googlenet = make_network("torchvision.googlenet", 3).train()
    assert googlenet(torch.zeros(2, 3, 64, 64)).shape == (2, 3)  # no auxiliary logits
    assert isinstance(make_network("test_networks:make_mine", 4), nn.Flatten)
    with pytest.raises(
        InputError, match="Unknown network of this package or torchvision 'resnet21'. Did you mean 'resnet"
    ):
        check_network("resnet21")


def make_mine(num_classes):
    return nn.Flatten()
