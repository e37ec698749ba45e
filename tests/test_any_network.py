"""Networks of every kind: what can be pruned is removed exactly, and the rest is left alone for a true reason."""

import copy

import pytest
import torch
import torchvision
from conftest import count
from torch import nn
from torch.nn import functional as F

from dsfp_env import ChannelGraph, InputError, load_pruned, save_pruned


def conv(inputs, filters, kernel=3, **kwargs):
    return nn.Conv2d(inputs, filters, kernel, padding=kernel // 2, **kwargs)


class Net(nn.Module):
    """First convolution, a middle that differs, last convolution ``z``, mean over the image, linear head."""

    def __init__(self, middle, width, **modules):
        super().__init__()
        self.middle = middle
        for name, module in {"a": conv(3, 8), **modules, "z": conv(width, 5)}.items():
            if isinstance(module, nn.Module):
                self.add_module(name, module)
            else:
                setattr(self, name, module)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.z(self.middle(self, x)).mean((2, 3)))


class Halves(nn.Module):
    """Cuts its input in two by position, and puts the halves through different convolutions."""

    def __init__(self, cut):
        super().__init__()
        self.cut, self.left, self.right = cut, conv(4, 6), conv(4, 6)

    def forward(self, x):
        left, right = self.cut(x)
        return self.left(left) + self.right(right)


class PerChannel(nn.Module):
    """A user's own layer: one number for each channel, as in LayerScale."""

    def __init__(self, channels):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)
        self.register_buffer("shift", torch.rand(1, channels, 1, 1))

    def forward(self, x):
        return x * self.scale + self.shift


class AddsInPlace(nn.Module):
    def forward(self, x):
        x = x.clone()
        x[:, :4] += 1.0
        return x


class Listed(nn.Module):
    """One number for each channel, in lists."""

    def __init__(self, channels):
        super().__init__()
        self.list = nn.ParameterList([torch.rand(channels), torch.rand(channels, 1, 1)])
        self.dict = nn.ParameterDict({"shift": torch.rand(1, channels, 1, 1)})

    def forward(self, x):
        return x * (self.list[0][:, None, None] + self.list[1]) + self.dict["shift"]


class L2Norm(nn.Module):
    """That of SSD: each place of the image divided by its length over the channels, times a scale."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(channels) + 0.5)

    def forward(self, x):
        length = x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10
        return self.weight[None, :, None, None].expand_as(x) * (x / length)


class Counts(nn.Module):
    """Knows how many channels there are, in each of some pieces."""

    def __init__(self, width, forward):
        super().__init__()
        self.width, self.act = width, forward

    def forward(self, x):
        return self.act(self, x)


def enlarged(network, image):
    y = network.a(image)
    large = torch.zeros(len(y), y.shape[1], 2 * y.shape[2], 2 * y.shape[3])
    large[:, :, ::2, ::2] = y
    return large


def blurred(network, image):
    y = network.a(image)
    return F.conv2d(y, torch.ones(1, 1, 3, 3).repeat(y.shape[1], 1, 1, 1) / 9, groups=y.shape[1])


def radix(network, image):
    """The sum over two splits, as in ResNeSt."""
    y = network.a(image)
    return y.view(len(y), 2, -1, *y.shape[2:]).sum(1)


def shuffled(network, image):
    y = network.a(image)
    return y.view(len(y), 2, -1, *y.shape[2:]).transpose(1, 2).flatten(1, 2)


def efficient_attention(network, image):
    """A gate from a convolution along the channels (ECA)."""
    y = network.a(image)
    gate = network.c(y.mean((2, 3))[:, None]).sigmoid()
    return y * gate.transpose(1, 2)[..., None]


class Standardised(nn.Conv2d):
    """Its weight depends on all of its inputs."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean(1, keepdim=True), self.bias, padding=1)


def pad_channels(net, x):
    x = F.relu(net.a(x))
    return F.relu(net.b(x) + F.pad(x, (0, 0, 0, 0, 2, 2)))


def pad_space(net, x):
    return F.pad(net.a(x), (1, 1, 1, 1)) + F.pad(net.b(x), (1, 1, 1, 1))


def gated(net, x):
    left, right = net.a(x).chunk(2, 1)
    return left * torch.sigmoid(right)


def stacked(net, x):
    return torch.stack([net.a(x), net.b(x)]).sum(0)


def recurrent(net, x):
    x = net.a(x)
    return net.rnn(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, x.shape[2:])


def attention(net, x):
    tokens = net.a(x).flatten(2).transpose(1, 2)
    return net.mha(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).unflatten(2, x.shape[2:])


# name: network, prunable layers, {excluded layer: a word of the reason}
NETWORKS = {
    "option-A shortcut": (Net(pad_channels, 12, b=conv(8, 12)), "a b z", {}),
    "padding of the image": (Net(pad_space, 8, b=conv(3, 8)), "a b z", {}),
    "the same twice side by side": (Net(lambda n, x: torch.cat([n.a(x)] * 2, 1), 16), "a z", {}),
    "convolution used twice": (Net(lambda n, x: n.b(n.b(n.a(x))), 8, b=conv(8, 8)), "a b z", {}),
    "chunk": (
        Net(lambda n, x: n.h(n.a(x)), 6, h=Halves(lambda x: x.chunk(2, 1))),
        "a h.left h.right z",
        {},
    ),
    "split": (
        Net(lambda n, x: n.h(n.a(x)), 6, h=Halves(lambda x: x.split([4, 4], 1))),
        "h.left h.right z",
        {"a": "in 'h'"},
    ),
    "gated halves": (Net(gated, 4), "a z", {}),
    "glu": (Net(lambda n, x: F.glu(n.a(x), 1), 4), "a z", {}),
    "pixel shuffle": (Net(lambda n, x: F.pixel_shuffle(n.a(x), 2), 2), "a z", {}),
    "pixel unshuffle": (Net(lambda n, x: F.pixel_unshuffle(n.a(x), 2), 32), "a z", {}),
    "broadcast sum": (
        Net(lambda n, x: n.a(x) + n.b(x.mean((2, 3), keepdim=True)), 8, b=conv(3, 8, 1)),
        "a b z",
        {},
    ),
    "spatial attention": (
        Net(lambda n, x: n.a(x) * torch.sigmoid(n.b(x)), 8, b=conv(3, 1)),
        "a z",
        {"b": "spreads it over other channels"},
    ),
    "sum of a stack": (Net(stacked, 8, b=conv(3, 8)), "a b z", {}),
    "GroupNorm": (Net(lambda n, x: F.relu(n.g(n.a(x))), 8, g=nn.GroupNorm(4, 8)), "a z", {}),
    "GroupNorm of one group": (
        Net(lambda n, x: n.g(n.a(x)), 8, g=nn.GroupNorm(1, 8)),
        "z",
        {"a": "GroupNorm in 'g'"},
    ),
    "group_norm by function": (Net(lambda n, x: F.group_norm(n.a(x), 4), 8), "z", {"a": "native_group_norm"}),
    "InstanceNorm": (Net(lambda n, x: n.g(n.a(x)), 8, g=nn.InstanceNorm2d(8, affine=True)), "a z", {}),
    "LayerNorm": (
        Net(lambda n, x: n.g(n.a(x)), 8, g=nn.LayerNorm([8, 8, 8])),
        "z",
        {"a": "native_layer_norm in 'g'"},
    ),
    "local response norm": (Net(lambda n, x: n.g(n.a(x)), 8, g=nn.LocalResponseNorm(3)), "z", {"a": "in 'g'"}),
    "softmax over channels": (Net(lambda n, x: n.a(x).softmax(1), 8), "z", {"a": "mixed by _softmax"}),
    "softmax over the image": (Net(lambda n, x: n.a(x).flatten(2).softmax(2).view(1, -1, 8, 8), 8), "a z", {}),
    "transposed convolution": (
        Net(lambda n, x: F.relu(n.bn(n.t(n.a(x)))), 6, t=nn.ConvTranspose2d(8, 6, 2, 2), bn=nn.BatchNorm2d(6)),
        "a t z",
        {},
    ),
    "transposed, in groups": (
        Net(lambda n, x: n.t(n.a(x)), 12, t=nn.ConvTranspose2d(8, 12, 2, 2, groups=2)),
        "a t z",
        {},
    ),
    "transposed, depthwise": (
        Net(lambda n, x: n.t(n.a(x)), 16, t=nn.ConvTranspose2d(8, 16, 2, 2, groups=8)),
        "a t z",
        {},
    ),
    "depthwise with two filters each": (Net(lambda n, x: n.d(n.a(x)), 16, d=conv(8, 16, groups=8)), "a d z", {}),
    "few wide groups": (Net(lambda n, x: n.d(n.a(x)), 12, d=conv(8, 12, groups=2)), "a d z", {}),
    "many narrow groups": (Net(lambda n, x: n.d(n.a(x)), 12, d=conv(8, 12, groups=4)), "a d z", {}),
    "channel shuffle": (
        Net(lambda n, x: n.d(F.channel_shuffle(n.a(x), 2)), 12, d=conv(8, 12, groups=2)),
        "a d z",
        {},
    ),
    "roll over channels": (
        Net(lambda n, x: n.a(x).roll(1, 1), 8),
        "z",
        {"a": "roll takes channels by their position"},
    ),
    "flip over channels": (Net(lambda n, x: n.a(x).flip(1), 8), "a z", {}),
    "linear over channels last": (
        Net(lambda n, x: n.m(n.a(x).movedim(1, 3)).relu().movedim(3, 1), 6, m=nn.Linear(8, 6)),
        "a z",
        {},
    ),
    "numbers of the user's own": (Net(lambda n, x: n.s(n.a(x)), 8, s=PerChannel(8)), "a z", {}),
    "some channels in place": (Net(lambda n, x: n.s(n.a(x)), 8, s=AddsInPlace()), "a z", {}),
    "interpolation": (
        Net(lambda n, x: F.interpolate(n.a(x), scale_factor=2, mode="bilinear"), 8),
        "a z",
        {},
    ),
    "pooling": (Net(lambda n, x: F.max_pool2d(F.hardswish(n.a(x)), 2), 8), "a z", {}),
    "einsum": (
        Net(lambda n, x: torch.einsum("nchw,nc->nchw", n.a(x), n.b(x)[:, :, 0, 0]), 8, b=conv(3, 8)),
        "a b z",
        {},
    ),
    "weight norm": (
        Net(lambda n, x: n.a(x), 8, a=nn.utils.parametrizations.weight_norm(conv(3, 8))),
        "z",
        {"a": "computes its weight"},
    ),
    "standardised weights": (
        Net(lambda n, x: n.b(F.relu(n.a(x))), 6, b=Standardised(8, 6, 3)),
        "b z",
        {"a": "something depends on their number"},
    ),
    "depends on the width": (
        Net(lambda n, x: n.a(x) / x.new_tensor(n.a(x).shape[1]), 8),
        "z",
        {"a": "something depends on their number"},
    ),
    "LSTM": (Net(recurrent, 6, rnn=nn.LSTM(8, 6, batch_first=True)), "z", {"a": "in 'rnn'"}),
    "attention": (Net(attention, 8, mha=nn.MultiheadAttention(8, 2, batch_first=True)), "z", {"a": "in 'mha'"}),
    "lists of the user's own numbers": (Net(lambda n, x: n.s(n.a(x)), 8, s=Listed(8)), "a z", {}),
    "as many zeros as channels": (
        Net(lambda n, x: (y := n.a(x)) + torch.zeros(1, y.shape[1], 1, 1), 8),
        "a z",
        {},
    ),
    "as many minima as channels": (
        Net(lambda n, x: torch.maximum(y := n.a(x), y.new_full((1, y.shape[1], 1, 1), -0.5)), 8),
        "a z",
        {},
    ),
    "as many zeros as there were": (
        Net(lambda n, x: n.a(x) + torch.zeros(1, 8, 1, 1), 8),
        "z",
        {"a": "add combines it with numbers of fixed width"},
    ),
    "as many zeros as it knows": (
        Net(lambda n, x: n.c(n.a(x)), 8, c=Counts(8, lambda c, y: y + torch.zeros(1, c.width, 1, 1))),
        "a z",
        {},
    ),
    "numbered channels": (
        Net(lambda n, x: (y := n.a(x)) * torch.arange(y.shape[1]).view(1, -1, 1, 1), 8),
        "z",
        {"a": "mul combines it with numbers of fixed width"},
    ),
    "written into zeros": (Net(enlarged, 8), "a z", {}),
    "blurred by function": (Net(blurred, 8), "a z", {}),
    "normalised over channels": (Net(lambda n, x: F.normalize(n.a(x), dim=1), 8), "a z", {}),
    "normalised as a whole": (
        Net(lambda n, x: F.normalize(n.a(x).flatten(1)).view(len(x), -1, 8, 8), 8),
        "a z",
        {},
    ),
    "L2 norm": (Net(lambda n, x: n.s(n.a(x)), 8, s=L2Norm(8)), "a z", {}),
    "softmax by hand": (
        Net(lambda n, x: (y := n.a(x).exp()) / y.sum(1, keepdim=True), 8),
        "z",
        {"a": "something depends on their number"},
    ),
    "less the mean": (
        Net(lambda n, x: (y := n.a(x)) - y.mean(1, keepdim=True), 8),
        "z",
        {"a": "mixed by mean"},
    ),
    "gate, expanded": (
        Net(lambda n, x: (y := n.a(x)) * n.g(y).sigmoid().expand_as(y), 8, g=conv(8, 1)),
        "a z",
        {"g": "spreads it over other channels"},
    ),
    "convolution along channels": (
        Net(efficient_attention, 8, c=nn.Conv1d(1, 1, 3, padding=1)),
        "z",
        {"a": "mixed by the forward pass in 'c'", "c": "mixed by the forward pass in 'c'"},
    ),
    "two splits, summed": (Net(radix, 4), "a z", {}),
    "shuffle by hand": (Net(shuffled, 8), "a z", {}),
    "split by what it knows": (
        Net(lambda n, x: n.c(n.a(x)), 8, c=Counts(4, lambda c, y: torch.cat(y.split(c.width, 1)[::-1], 1))),
        "a z",
        {},
    ),
    "every second": (Net(lambda n, x: torch.cat([(y := n.a(x))[:, ::2], y[:, 1::2]], 1), 8), "a z", {}),
    "from the middle": (
        Net(lambda n, x: n.a(x)[:, 2:6], 4),
        "z",
        {"a": "slice takes channels by their position"},
    ),
    "by number": (Net(lambda n, x: n.a(x)[:, [0, 2]], 2, a=conv(3, 4)), "z", {"a": "index fails after removal"}),
    "deformed": (
        Net(
            lambda n, x: n.d(y := n.a(x), n.o(y)),
            8,
            o=conv(8, 18),
            d=torchvision.ops.DeformConv2d(8, 8, 3, padding=1),
        ),
        "z",
        {"a": "deform_conv2d in 'd' cannot be followed", "o": "deform_conv2d in 'd' cannot be followed"},
    ),
    "circular padding": (
        Net(lambda n, x: n.a(x), 8, a=nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular")),
        "a z",
        {},
    ),
}


def prune(graph, network, seed):
    """Pruned at random ratios, by random scores: kept filters, slim network, masked network."""
    rng = torch.Generator().manual_seed(seed)
    scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in graph.layers.items()}
    ratios = {path: float(torch.empty(()).uniform_(0.1, 0.9, generator=rng)) for path in graph.layers}
    keep = graph.keep(ratios, scores)
    return keep, graph.slim(network, keep), graph.masked(network, keep)


@pytest.fixture(autouse=True)
def _no_fused_attention():
    """Its inside cannot be counted."""
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.backends.mha.set_fastpath_enabled(True)


@torch.no_grad()
def assert_exact(graph, network, image, seed):
    keep, slim, masked = prune(graph, network, seed)
    expected = masked(image)
    assert (slim(image) - expected).abs().max() <= 1e-5 * expected.abs().max()
    _, macs, params = count(slim, image[:1])
    assert (graph.costs(keep).macs, graph.costs(keep).params) == (macs, params)


@pytest.mark.parametrize("name", NETWORKS)
def test_removal_is_exact_or_left_alone_for_a_reason(name):
    network, prunable, excluded = NETWORKS[name]
    torch.manual_seed(0)
    network, image = copy.deepcopy(network).eval(), torch.randn(2, 3, 8, 8)
    before = copy.deepcopy(network.state_dict())
    graph = ChannelGraph.trace(network, image)
    assert " ".join(graph.layers) == prunable
    assert graph.excluded.keys() == excluded.keys()
    for path, word in excluded.items():
        assert word in graph.excluded[path]
    image = image[:1] if name == "softmax over the image" else image
    for seed in range(8):
        assert_exact(graph, network, image, seed)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("dims", [1, 3])
def test_convolutions_over_one_and_three_dimensions(dims):
    convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims - 1]
    torch.manual_seed(0)
    network = nn.Sequential(
        convolution(2, 8, 3), norm(8), nn.ReLU(), convolution(8, 6, 3), nn.Flatten(), nn.Linear(6 * 2**dims, 3)
    ).eval()
    image = torch.randn(2, 2, *[6] * dims)
    graph = ChannelGraph.trace(network, image)
    assert list(graph.layers) == ["0", "3"]
    assert graph.layers["0"].norm == "1"
    for seed in range(4):
        assert_exact(graph, network, image, seed)


class Doubled(nn.Conv2d):
    def forward(self, x):
        return super().forward(torch.cat([x, x], 1))


class Enlarging(nn.Conv2d):
    def forward(self, x):
        return F.pixel_shuffle(super().forward(x), 2)


class LowRank(nn.Linear):
    """With an adapter of low rank, as in LoRA."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.down, self.up = nn.Parameter(torch.randn(2, inputs)), nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x):
        return super().forward(x) + x @ self.down.T @ self.up.T


@pytest.mark.parametrize(
    ("layer", "width"),
    [(Doubled(16, 6, 3, padding=1), 6), (Enlarging(8, 8, 3, padding=1), 2)],
    ids=["doubled", "enlarging"],
)
def test_a_convolution_with_a_forward_pass_of_its_own_is_left_alone(layer, width):
    torch.manual_seed(0)
    network, image = Net(lambda n, x: n.d(n.a(x)), width, d=layer).eval(), torch.randn(2, 3, 8, 8)
    graph = ChannelGraph.trace(network, image)
    assert list(graph.layers) == ["z"]
    assert graph.excluded["d"] == "its forward pass is not that of a convolution"
    assert "mixed by convolution in 'd'" in graph.excluded["a"]
    assert_exact(graph, network, image, 0)


def test_what_a_layer_computes_besides_is_counted():
    torch.manual_seed(0)
    network = Net(lambda n, x: n.z2(n.l(x.mean((2, 3)))[..., None, None]), 4, l=LowRank(3, 6), z2=conv(6, 4))
    network, image = network.eval(), torch.randn(2, 3, 8, 8)
    assert_exact(ChannelGraph.trace(network, image), network, image, 0)


def halves_of(width, how):
    """A stage of CSP: a convolution of one half of the channels."""

    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.c = conv(width // 2, width // 2)

        def forward(self, y):
            half = y.shape[1] // 2
            left, right = y.chunk(2, 1) if how == "chunk" else (y[:, :half], y[:, half:])
            return torch.cat([self.c(left), right], 1)

    return Stage()


@pytest.mark.parametrize("how", ["chunk", "slice"])
@pytest.mark.parametrize("width", [8, 16, 24])
@pytest.mark.parametrize("stages", [2, 3])
def test_halves_of_halves_are_exact_for_any_plan(how, width, stages):
    """Coupled sets with other ratios leave other numbers in the two halves, unless these are tied."""
    torch.manual_seed(0)
    blocks = [halves_of(width, how) for _ in range(stages)]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)
    network, image = nn.Sequential(conv(3, width), *blocks, *head).eval(), torch.randn(2, 3, 8, 8)
    graph = ChannelGraph.trace(network, image)
    assert len(graph.layers) == 1 + stages
    for seed in range(20):
        assert_exact(graph, network, image, seed)


ORDERS = {
    "roll": lambda y: y.roll(2, 1),
    "half, rolled": lambda y: y[:, : y.shape[1] // 2].roll(1, 1),
    "even, odd": lambda y: torch.cat([y[:, ::2], y[:, 1::2]], 1),
    "first half": lambda y: y.chunk(2, 1)[0],
    "pairs": lambda y: F.max_pool3d(y[:, None], (2, 1, 1))[:, 0],
    "one gates the others": lambda y: y[:, :1].sigmoid() * y[:, 1:],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("width", [2, 5, 8, 9, 12, 15, 16])
def test_what_is_taken_by_position_is_exact_for_any_plan(order, width):
    torch.manual_seed(0)
    out = ORDERS[order](torch.zeros(1, width, 1, 1)).shape[1]
    network = Net(lambda n, x: ORDERS[order](n.a(x)), out, a=conv(3, width)).eval()
    graph = ChannelGraph.trace(network, torch.randn(1, 3, 8, 8))
    for seed in range(20):
        assert_exact(graph, network, torch.randn(2, 3, 8, 8), seed)


class ScaledTwice(nn.Module):
    """Its scale is the normalisation's own."""

    def __init__(self):
        super().__init__()
        self.a, self.bn, self.z, self.head = conv(3, 8), nn.BatchNorm2d(8), conv(8, 5), nn.Linear(5, 3)
        self.scale = self.bn.weight

    def forward(self, x):
        return self.head(self.z(self.bn(self.a(x)) * self.scale.view(1, -1, 1, 1)).mean((2, 3)))


class PaddedProduct(nn.Module):
    """Channels of zeros, and a product along the image, for each of them."""

    def __init__(self):
        super().__init__()
        self.a, self.z, self.head = conv(3, 8), conv(12, 5), nn.Linear(5, 3)
        self.weight = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return self.head(self.z(F.pad(self.a(x), (0, 0, 0, 0, 2, 2)) @ self.weight).mean((2, 3)))


@pytest.mark.parametrize("make", [ScaledTwice, PaddedProduct])
def test_nothing_is_counted_twice_or_not_at_all(make):
    torch.manual_seed(0)
    network, image = make().eval(), torch.randn(2, 3, 8, 8)
    graph = ChannelGraph.trace(network, image)
    assert list(graph.layers) == ["a", "z"]
    for seed in range(8):
        assert_exact(graph, network, image, seed)


def test_a_branch_that_is_zero_at_first_is_verified_too():
    class ReZero(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.head = conv(3, 8), conv(8, 8), conv(8, 8), nn.Linear(8, 3)
            self.alpha = nn.Parameter(torch.zeros(1))

        def forward(self, x):
            y = F.relu(self.a(x))
            e = self.b(y).exp()
            return self.head((y + self.alpha * self.c(e / e.sum(1, keepdim=True))).mean((2, 3)))

    graph = ChannelGraph.trace(ReZero().eval(), torch.randn(1, 3, 8, 8))
    assert list(graph.layers) == ["a", "c"]
    assert "something depends on their number" in graph.excluded["b"]


class Twins(nn.Module):
    """Two layers that share one weight."""

    def __init__(self, after):
        super().__init__()
        self.a, self.b, self.c, self.after = conv(3, 8), conv(8, 8), conv(8, 8), after
        self.c.weight = self.b.weight
        self.head = nn.Linear(8 if after else 16, 3)

    def forward(self, x):
        y = F.relu(self.a(x))
        both = self.c(F.relu(self.b(y))) if self.after else torch.cat([self.b(y), self.c(y * y)], 1)
        return self.head(F.relu(both).mean((2, 3)))


@pytest.mark.parametrize(
    ("after", "sets"), [(True, [("a", "b", "c")]), (False, [("a",), ("b", "c")])], ids=["chain", "side by side"]
)
def test_layers_that_share_a_weight_are_cut_alike(after, sets):
    torch.manual_seed(0)
    network, image = Twins(after).eval(), torch.randn(2, 3, 8, 8)
    graph = ChannelGraph.trace(network, image)
    assert graph.sets == sets
    for seed in range(8):
        keep, slim, masked = prune(graph, network, seed)
        assert slim.b.weight is slim.c.weight
        assert torch.allclose(slim(image), masked(image), atol=1e-6)
        assert graph.costs(keep).params == sum(p.numel() for p in slim.parameters())


def test_a_set_of_which_one_filter_can_go_is_tried_too():
    """Three of four filters are taken by number; without the fourth, the numbers are wrong."""
    network = Net(lambda n, x: n.a(x)[:, torch.tensor([0, 2, 3])], 3, a=conv(3, 4)).eval()
    assert list(ChannelGraph.trace(network, torch.randn(1, 3, 8, 8)).layers) == ["z"]


def test_a_number_that_the_network_knows_follows_and_comes_back_from_a_file(tmp_path):
    torch.manual_seed(0)
    network, image = copy.deepcopy(NETWORKS["split by what it knows"][0]).eval(), torch.randn(2, 3, 8, 8)
    graph = ChannelGraph.trace(network, image)
    keep = graph.keep({"a": 0.5}, {"a": torch.arange(8.0)})
    assert keep["a"].tolist() == [2, 3, 6, 7]  # the same of both pieces
    slim = graph.slim(network, keep)
    assert (slim.c.width, network.c.width) == (2, 4)
    save_pruned(tmp_path / "slim.safetensors", slim, keep, graph)
    loaded = load_pruned(tmp_path / "slim.safetensors", network=network)
    assert loaded.c.width == 2
    assert torch.equal(loaded(image), slim(image))


def test_a_padded_shortcut_keeps_the_channels_that_only_padding_meets():
    """12 channels = 8 of the shortcut between 2 + 2 of padding: these four stay, the eight go with `a`'s."""
    graph = ChannelGraph.trace(NETWORKS["option-A shortcut"][0].eval(), torch.randn(1, 3, 8, 8))
    assert graph.layers["a"].coupled_with == ("b",)
    assert (graph.layers["a"].pinned, graph.layers["b"].pinned) == (0, 4)
    scores = {"a": torch.arange(8.0), "b": torch.zeros(12), "z": torch.ones(5)}
    keep = graph.keep({"a": 0.5, "b": 0.5}, scores)  # half of the eight
    assert keep["a"].tolist() == [4, 5, 6, 7]
    assert keep["b"].tolist() == [0, 1, 6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("name", "together"),
    [
        ("few wide groups", {"a": [[0, 4], [1, 5], [2, 6], [3, 7]], "d": [[i, i + 6] for i in range(6)]}),
        (
            "many narrow groups",
            {"a": [[0, 1], [2, 3], [4, 5], [6, 7]], "d": [[i, i + 1, i + 2] for i in (0, 3, 6, 9)]},
        ),
        ("GroupNorm", {"a": [[0, 1], [2, 3], [4, 5], [6, 7]]}),
    ],
)
def test_which_filters_of_a_layer_in_groups_go_together(name, together):
    """By hand. The lowest score takes its whole class along."""
    graph = ChannelGraph.trace(NETWORKS[name][0].eval(), torch.randn(1, 3, 8, 8))
    for path, classes in together.items():
        width = graph.layers[path].out_channels
        for one in classes:
            scores = {p: torch.ones(layer.out_channels) for p, layer in graph.layers.items()}
            for other in (path, *graph.layers[path].coupled_with):
                scores[other] = scores[other].clone()
            scores[path][one] = 0
            coupled = [path, *graph.layers[path].coupled_with]
            keep = graph.keep(dict.fromkeys(coupled, 1 / len(classes)), scores)
            assert sorted(set(range(width)) - set(keep[path].tolist())) == one


def test_slim_layers_in_groups_say_what_they_are():
    network = NETWORKS["many narrow groups"][0].eval()
    graph = ChannelGraph.trace(network, torch.randn(1, 3, 8, 8))
    scores = {path: torch.arange(layer.out_channels) for path, layer in graph.layers.items()}
    slim = graph.slim(network, graph.keep({"a": 0.5, "d": 0.5}, scores))
    assert (slim.d.in_channels, slim.d.out_channels, slim.d.groups) == (4, 6, 2)
    network = NETWORKS["GroupNorm"][0].eval()
    graph = ChannelGraph.trace(network, torch.randn(1, 3, 8, 8))
    slim = graph.slim(network, graph.keep({"a": 0.5}, {"a": torch.arange(8)}))
    assert (slim.g.num_channels, slim.g.num_groups) == (4, 2)


class Auxiliary(nn.Module):
    """A second head that only runs in training."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.side = conv(3, 8), conv(8, 6), conv(8, 4, 1)
        self.head, self.side_head = nn.Linear(6, 3), nn.Linear(4, 3)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        logits = self.head(self.conv2(x).mean((2, 3)))
        return (logits, self.side_head(self.side(x).mean((2, 3)))) if self.training else logits


def test_a_head_that_only_runs_in_training_is_cut_too():
    network, image = Auxiliary(), torch.randn(2, 3, 8, 8)
    graph = ChannelGraph.trace(network, image)
    assert graph.excluded == {"side": "it does not run on the example input in evaluation mode"}
    _, slim, masked = prune(graph, network, 0)
    for ours, reference in zip(slim.train()(image), masked.train()(image), strict=True):
        assert torch.allclose(ours, reference, atol=1e-6)
    assert slim.side.in_channels == slim.conv1.out_channels < 8


def test_round_to_keeps_multiples():
    network = nn.Sequential(
        conv(1, 20), nn.ReLU(), conv(20, 6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    )
    graph = ChannelGraph.trace(network, torch.randn(1, 1, 8, 8))
    scores = {"0": torch.arange(20), "2": torch.arange(6)}
    keep = graph.keep({"0": 0.5, "2": 0.5}, scores, round_to=8)
    assert keep["0"].tolist() == list(range(4, 20))  # 10 -> 16
    assert keep["2"].tolist() == list(range(6))  # no multiple of 8 below 6: it keeps all
    assert len(graph.keep({"0": 0.9}, scores, min_filters=5, round_to=4)["0"]) == 8
    with pytest.raises(InputError, match="round_to is 0"):
        graph.keep({"0": 0.5}, scores, round_to=0)


def test_round_to_holds_for_all_layers_of_a_coupled_set():
    network = NETWORKS["option-A shortcut"][0].eval()
    graph = ChannelGraph.trace(network, torch.randn(1, 3, 8, 8))
    for seed in range(10):
        rng = torch.Generator().manual_seed(seed)
        scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in graph.layers.items()}
        keep = graph.keep(dict.fromkeys(graph.layers, 0.6), scores, round_to=4)
        assert [len(keep[path]) for path in ("a", "b")] in ([4, 8], [8, 12])


class Asks(nn.Module):
    """Looks at its own activations."""

    def __init__(self, question):
        super().__init__()
        self.question, self.conv, self.head = question, conv(1, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x).mean((2, 3))
        return self.head(x if self.question(x) else -x)


@pytest.mark.parametrize(
    "question",
    [lambda x: x.sum() > 0, lambda x: x.isnan().any(), lambda x: x.max().item() > 1, lambda x: x[0, 0] > 0],
)
def test_control_flow_that_depends_on_activations_is_refused(question):
    with pytest.raises(InputError, match="Asks cannot be traced: .* reads the value of an activation"):
        ChannelGraph.trace(Asks(question), torch.randn(1, 1, 8, 8))


def test_control_flow_that_depends_on_the_image_or_its_shape_is_none_of_ours():
    class Normalising(nn.Sequential):
        def forward(self, x):
            return super().forward(x / 255 if x.max() > 1 and x.shape[2] == 8 else x)

    network = Normalising(conv(1, 4), nn.Flatten(), nn.Linear(256, 2)).eval()
    graph = ChannelGraph.trace(network, 255 * torch.rand(1, 1, 8, 8))
    assert list(graph.layers) == ["0"]


class Counting(nn.Sequential):
    """Writes into a buffer whenever it runs."""

    def __init__(self, *modules):
        super().__init__(*modules)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        self.seen += x.mean((0, 2, 3))
        return super().forward(x)


def test_buffers_that_the_forward_pass_writes_to_are_not_those_of_the_lent_network():
    network = Counting(conv(3, 4), nn.Flatten(), nn.Linear(256, 2)).train()
    assert list(ChannelGraph.trace(network, torch.rand(1, 3, 8, 8)).layers) == ["0"]
    assert network.seen.tolist() == [0, 0, 0]
    assert network.training


def test_networks_in_half_precision():
    network = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6), nn.Flatten(), nn.Linear(384, 2)).bfloat16()
    graph = ChannelGraph.trace(network, torch.randn(1, 3, 8, 8, dtype=torch.bfloat16))
    assert list(graph.layers) == ["0", "2"]


def test_an_error_inside_the_network_names_the_module():
    network = nn.Sequential(conv(3, 4), nn.Sequential(nn.ReLU(), conv(5, 4)), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(InputError, match=r"failed on the example input of shape \(1, 3, 8, 8\), in .*'1.1'"):
        ChannelGraph.trace(network, torch.randn(1, 3, 8, 8))


def test_moves_are_labelled_as_the_probe_would(monkeypatch):
    """Operations that only move numbers are done to the labels for speed; the probe finds the same."""
    from dsfp_env.channels import propagation

    names = ["option-A shortcut", "the same twice side by side", "gated halves", "pixel shuffle", "pooling"]
    graphs = [ChannelGraph.trace(NETWORKS[name][0].eval(), torch.randn(1, 3, 8, 8)) for name in names]
    monkeypatch.setattr(propagation, "MOVES", set())
    for name, graph in zip(names, graphs, strict=True):
        again = ChannelGraph.trace(NETWORKS[name][0].eval(), torch.randn(1, 3, 8, 8))
        assert (again.layers, again.excluded) == (graph.layers, graph.excluded)


def test_the_normalisation_that_takes_an_output_directly_is_known():
    """After an activation, even in place, it no longer does."""
    direct = nn.Sequential(conv(3, 4), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(256, 2))
    behind = nn.Sequential(conv(3, 4), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 2))
    norms = [ChannelGraph.trace(n, torch.randn(1, 3, 8, 8)).layers["0"].norm for n in (direct, behind)]
    assert norms == ["1", None]


class Adapted(nn.Conv2d):
    """A convolution with another one inside, as adapters have."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.adapter = nn.Conv2d(self.in_channels, self.out_channels, 1)

    def forward(self, x):
        return super().forward(x) + self.adapter(x)


def test_layers_inside_of_layers_are_left_alone():
    network = nn.Sequential(conv(3, 4), Adapted(4, 6, 3, padding=1), conv(6, 5), nn.Flatten(), nn.Linear(320, 2))
    graph = ChannelGraph.trace(network, torch.randn(1, 3, 8, 8))
    assert list(graph.layers) == ["2"]
    assert "fails after removal" in graph.excluded["0"]
    assert "does not run" in graph.excluded["1.adapter"]
