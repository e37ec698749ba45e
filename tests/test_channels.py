"""Removal is exact: slim equals masked on the same input, costs equal an independent count."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dsfp_env import ChannelGraph, Costs, InputError
from dsfp_env.channels import layers
from dsfp_env.networks import digits_net, resnet20


class Residual(nn.Module):
    """conv1 and conv3 meet in a sum; conv2 stands between them alone."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 5, 3, padding=1)
        self.conv3 = nn.Conv2d(5, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(x + self.conv3(F.relu(self.conv2(x))))
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    """Two branches side by side, then one of them again; flattened into the linear layer; PReLU and dropout."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 3, padding=1)
        self.prelu = nn.PReLU(14)
        self.merge = nn.Conv2d(14, 5, 3, stride=4)
        self.dropout = nn.Dropout()
        self.head = nn.Linear(5 * 4, 3)

    def forward(self, x):
        left = self.left(x)
        x = self.prelu(torch.cat([left, self.right(x), left], 1))
        return self.head(self.dropout(self.merge(x).flatten(1)))


class Depthwise(nn.Module):
    """A depthwise convolution follows its input's filters; squeeze and excitation with linear layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.squeeze, self.excite = nn.Linear(8, 4), nn.Linear(4, 8)
        self.point = nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.depthwise(F.relu6(self.conv(x))))
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return self.head(self.point(x * gate[:, :, None, None]).mean((2, 3)))


class Shared(nn.Module):
    """A convolution that runs twice, between two others."""

    def __init__(self):
        super().__init__()
        self.first, self.twice = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = F.relu(self.twice(x))
        return self.head(F.relu(self.twice(x)).amax((2, 3)))


class Sigmoids(nn.Module):
    """An activation that does not map zero to zero: a removed filter still must not be read."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.sigmoid(self.conv2(torch.sigmoid(self.conv1(x)))).mean((2, 3)))


NETWORKS = {
    "digits": (digits_net, (1, 8, 8)),
    "residual": (Residual, (3, 16, 16)),
    "concatenated": (Concatenated, (3, 8, 8)),
    "depthwise": (Depthwise, (3, 8, 8)),
    "shared": (Shared, (3, 8, 8)),
    "sigmoids": (Sigmoids, (3, 8, 8)),
    "resnet20": (resnet20, (3, 32, 32)),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), (3, 32, 32)),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=10), (3, 32, 32)),
}


@pytest.fixture(params=NETWORKS, scope="module")
def traced(request):
    torch.manual_seed(0)
    make, shape = NETWORKS[request.param]
    network = make().eval()
    with torch.no_grad():  # statistics and slopes that are not all alike
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.dim() == 1:
                tensor.copy_(torch.rand_like(tensor) + 0.5)
    image = torch.randn(2, *shape)
    return network, image, ChannelGraph.trace(network, image)


def random_keep(graph, ratio, seed=0):
    rng = torch.Generator().manual_seed(seed)
    scores = {p: torch.rand(layer.out_channels, generator=rng) for p, layer in graph.layers.items()}
    ratios = {
        p: 0.1 + 0.8 * float(torch.rand((), generator=rng)) if ratio is None else ratio for p in graph.layers
    }
    return graph.keep(ratios, scores)


@pytest.mark.parametrize("ratio", [0.1, 0.9, None])
def test_slim_equals_masked(traced, ratio):
    network, image, graph = traced
    keep = random_keep(graph, ratio)
    with torch.no_grad():
        slim, masked = graph.slim(network, keep)(image), graph.masked(network, keep)(image)
    assert (slim - masked).abs().max() <= 1e-5 * masked.abs().max()
    assert not torch.allclose(masked, network(image))  # something was removed


def test_every_convolution_of_these_networks_can_be_pruned(traced):
    network, _, graph = traced
    assert graph.excluded == {}
    assert set(graph.layers) == {p for p, m in network.named_modules() if isinstance(m, nn.Conv2d)}


def test_costs_equal_an_independent_count(traced):
    network, image, graph = traced
    keep = random_keep(graph, None)
    slim = graph.slim(network, keep)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        slim(image[:1])
    costs = graph.costs(keep)
    assert 2 * costs.macs == counter.get_total_flops()
    assert costs.params == sum(p.numel() for p in slim.parameters())
    assert costs.filters == sum(m.out_channels for m in slim.modules() if isinstance(m, nn.Conv2d))
    assert graph.costs().params == sum(p.numel() for p in network.parameters())


def test_the_lent_network_is_unchanged(traced):
    network, image, _ = traced
    network = copy.deepcopy(network).train()
    before, flags = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    graph = ChannelGraph.trace(network, image)
    keep = random_keep(graph, 0.5)
    slim = graph.slim(network, keep)
    graph.masked(network, keep)
    assert slim.training
    assert flags == [m.training for m in network.modules()]
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all("forward" not in vars(module) for module in network.modules())
    shared = {t.data_ptr() for t in slim.state_dict().values() if t.numel()}
    assert not shared & {t.data_ptr() for t in network.state_dict().values() if t.numel()}


def test_one_training_step_keeps_slim_and_masked_equal(traced):
    network, image, graph = traced
    keep = random_keep(graph, 0.5)
    logits = []
    for pruned in (graph.slim(network, keep), graph.masked(network, keep)):
        pruned.eval()  # the statistics of removed channels are not masked, and need not be
        optimizer = torch.optim.SGD(pruned.parameters(), lr=1e-2)
        F.cross_entropy(pruned(image), torch.tensor([0, 1])).backward()
        optimizer.step()
        with torch.no_grad():
            logits.append(pruned(image))
    assert (logits[0] - logits[1]).abs().max() <= 1e-4 * logits[1].abs().max()


def test_keep_by_hand():
    """10 filters at 25 %: 2.5 is rounded up to 3; the lowest go, equal scores by index."""
    network = nn.Sequential(nn.Conv2d(1, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 2))
    graph = ChannelGraph.trace(network, torch.randn(1, 1, 4, 4))
    scores = {"0": torch.tensor([5.0, 1, 1, 9, 1, 7, 1, 8, 6, 4])}
    assert graph.keep({"0": 0.25}, scores)["0"].tolist() == [0, 3, 5, 6, 7, 8, 9]
    assert graph.keep({}, scores)["0"].tolist() == list(range(10))
    assert graph.keep({"0": 0.99}, scores)["0"].tolist() == [3]  # one filter always stays
    assert graph.keep({"0": 0.99}, scores, min_filters=3)["0"].tolist() == [3, 5, 7]


def test_costs_by_hand():
    network = digits_net()
    graph = ChannelGraph.trace(network, torch.randn(1, 1, 8, 8))
    layers = list(graph.layers)
    keep = graph.keep(
        dict.fromkeys(layers, 0.5), {p: torch.arange(n.out_channels) for p, n in graph.layers.items()}
    )
    assert [len(keep[path]) for path in layers] == [8, 16, 16, 32]
    macs = 64 * 9 * (1 * 8 + 8 * 16) + 16 * 9 * (16 * 16 + 16 * 32) + 32 * 10
    params = 9 * (8 + 8 * 16 + 16 * 16 + 16 * 32) + 2 * (8 + 16 + 16 + 32) + 32 * 10 + 10
    assert graph.costs(keep) == Costs(macs, params, 72)
    assert graph.layers["features.conv2"].norm == "features.bn2"
    assert graph.layers["features.conv2"].macs == 64 * 9 * 16 * 32


def test_coupled_layers_share_the_mean_ratio():
    torch.manual_seed(0)
    graph = ChannelGraph.trace(Residual(), torch.randn(1, 3, 16, 16))
    assert graph.layers["conv1"].coupled_with == ("conv3",)
    assert graph.layers["conv2"].coupled_with == ()
    scores = {"conv1": torch.arange(8.0), "conv2": torch.arange(5.0), "conv3": torch.zeros(8)}
    keep = graph.keep({"conv1": 0.25, "conv3": 0.75}, scores)
    assert keep["conv1"].tolist() == keep["conv3"].tolist() == [4, 5, 6, 7]
    with pytest.raises(InputError, match="coupled"):
        graph.slim(Residual(), {"conv1": torch.arange(4)})


def test_a_depthwise_convolution_keeps_what_its_input_keeps():
    torch.manual_seed(0)
    graph = ChannelGraph.trace(Depthwise(), torch.randn(1, 3, 8, 8))
    assert graph.layers["conv"].coupled_with == ("depthwise",)
    keep = random_keep(graph, 0.5)
    assert keep["conv"].tolist() == keep["depthwise"].tolist()
    slim = graph.slim(Depthwise(), keep)
    assert (slim.depthwise.groups, slim.depthwise.in_channels, slim.excite.out_features) == (4, 4, 4)


class Excluded(nn.Module):
    """One of each kind that must stay whole."""

    def __init__(self):
        super().__init__()
        self.free = nn.Conv2d(3, 8, 3, padding=1)
        self.normed, self.norm = nn.Conv2d(8, 8, 1), nn.GroupNorm(1, 8)
        self.added = nn.Conv2d(8, 3, 1)
        self.unused = nn.Conv2d(8, 8, 1)
        self.head = nn.Conv2d(3, 4, 1)

    def forward(self, image):
        x = self.added(self.norm(self.normed(self.free(image))))
        return self.head(x + image).mean((2, 3))


def test_what_cannot_be_pruned_is_excluded_with_a_reason():
    graph = ChannelGraph.trace(Excluded(), torch.randn(1, 3, 8, 8))
    assert list(graph.layers) == ["free"]
    for path, word in {
        "normed": "GroupNorm in 'norm'",
        "added": "input",
        "unused": "does not run",
        "head": "outputs",
    }.items():
        assert word in graph.excluded[path]
    with pytest.raises(InputError, match="'head' cannot be pruned: its filters are the outputs"):
        graph.keep({"head": 0.5}, {})


@pytest.mark.parametrize(
    ("network", "shape", "sentence"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (1, 1, 8, 8), "Sequential has no convolution"),
        (digits_net(), (1, 3, 8, 8), r"failed on the example input of shape \(1, 3, 8, 8\)"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(0)), (1, 1, 8, 8), r"answered \(72,\), not logits"),
    ],
)
def test_what_cannot_be_traced_gets_a_sentence(network, shape, sentence):
    with pytest.raises(InputError, match=sentence):
        ChannelGraph.trace(network, torch.randn(shape))


def test_bad_ratios_scores_and_networks_get_a_sentence():
    graph = ChannelGraph.trace(digits_net(), torch.randn(1, 1, 8, 8))
    path = "features.conv1"
    with pytest.raises(InputError, match="No prunable layer is called 'conv9'"):
        graph.keep({"conv9": 0.5}, {})
    for ratio in (1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match=r"expected a fraction in \[0, 1\)"):
            graph.keep({path: ratio}, {path: torch.ones(16)})
    with pytest.raises(InputError, match="are missing"):
        graph.keep({path: 0.5}, {})
    with pytest.raises(InputError, match=r"have shape \(3,\)"):
        graph.keep({path: 0.5}, {path: torch.ones(3)})
    keep = graph.keep({path: 0.5}, {path: torch.arange(16)})
    with pytest.raises(InputError, match="does not fit the channel graph"):
        graph.slim(graph.slim(digits_net(), keep), keep)


class Gain(nn.Module):
    """A factor for every channel, in a layer that counts them."""

    def __init__(self, num_gains):
        super().__init__()
        self.num_gains, self.gains = num_gains, nn.Parameter(torch.rand(num_gains) + 0.5)
        self.shape = (1, num_gains, 1, 1)

    def forward(self, x):
        return x * self.gains.view(self.shape)


class KindOfGain(layers.Kind):
    """All that a new kind of layer needs."""

    modules = (Gain,)
    width_names = ("num_gains",)

    def set_widths(self, layer, reads, writes):
        layer.num_gains, layer.shape = writes, (1, writes, 1, 1)


def test_a_new_kind_of_layer_is_one_class(monkeypatch):
    """Without, the layer counts the channels that it had: nothing can be removed."""
    network = nn.Sequential(nn.Conv2d(1, 6, 3), Gain(6), nn.Flatten(), nn.Linear(6 * 36, 3))
    image = torch.randn(2, 1, 8, 8)
    assert "0" in ChannelGraph.trace(network, image).excluded
    monkeypatch.setattr(layers, "KINDS", (*layers.KINDS, KindOfGain()))
    graph = ChannelGraph.trace(network, image)
    keep = {"0": torch.tensor([1, 4])}
    slim = graph.slim(network, keep)
    assert torch.equal(slim[1].gains, network[1].gains[[1, 4]])
    assert layers.widths(slim[1]) == {"num_gains": 2}
    assert torch.allclose(slim(image), graph.masked(network, keep)(image), atol=1e-6)


@pytest.mark.parametrize(
    "ratio", ["0.5", None, [0.5], 1j, torch.tensor([0.5]), np.array([0.5, 0.2]), np.nan, 1, -0.1]
)
def test_ratios_that_are_no_fractions_get_a_sentence(tiny, ratio):
    path = next(iter(tiny.graph.layers))
    with pytest.raises(InputError, match=f"The pruning ratio of '{path}' is .*expected a fraction in"):
        tiny.graph.keep({path: ratio}, tiny.scores("l1"))


@pytest.mark.parametrize("ratios", [None, [0.5], "half", 0.5])
def test_ratios_that_are_no_dictionary_get_a_sentence(tiny, ratios):
    with pytest.raises(InputError, match="The pruning ratios are a .*expected a dictionary"):
        tiny.graph.keep(ratios, tiny.scores("l1"))


@pytest.mark.parametrize(
    "change",
    [
        lambda scores: scores.numpy(),
        lambda scores: scores.tolist(),
        lambda scores: scores.to_sparse(),
        lambda scores: scores.to("meta"),
        lambda scores: scores.to(torch.complex128),
        lambda scores: scores[:-1],
        lambda scores: scores * torch.nan,
        lambda scores: None,
    ],
)
def test_scores_that_are_none_get_a_sentence(tiny, change):
    scores = {path: change(one) for path, one in tiny.scores("l1").items()}
    with pytest.raises(InputError, match="The scores of .*expected"):
        tiny.graph.keep(dict.fromkeys(tiny.graph.layers, 0.5), scores)


@pytest.mark.parametrize("name", ["min_filters", "round_to"])
@pytest.mark.parametrize("number", ["2", None, 0, -1, 1.5, np.nan])
def test_numbers_of_filters_that_are_none_get_a_sentence(tiny, name, number):
    with pytest.raises(InputError, match="expected whole numbers, 1 or more"):
        tiny.graph.keep(dict.fromkeys(tiny.graph.layers, 0.5), tiny.scores("l1"), **{name: number})
