"""Scores of silent filters, against whole forward passes with one channel masked."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env import InputError, Task, score_filters
from dsfp_env.channels.tracing import share_parameters
from dsfp_env.criteria.silencing import Replay
from dsfp_env.speed.inference_convolutions import InferenceConvolution, hasten


class Net(nn.Module):
    """Convolution ``a`` with normalisation, a middle that differs, convolution ``z``, and logits."""

    def __init__(self, middle, width=6, **modules):
        super().__init__()
        self.a, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.middle, self.z, self.head = middle, nn.Conv2d(width, 5, 3, padding=1), nn.Linear(5, 3)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        return self.head(F.relu(self.z(self.middle(self, x))).mean((2, 3)))


def conv(inputs=6, filters=6, kernel=3, **kwargs):
    return nn.Conv2d(inputs, filters, kernel, padding=kernel // 2, **kwargs)


def in_place(net, x):
    y = net.b(x)
    y += net.c(x)
    return F.relu(y, inplace=True)


def by_position(net, x):
    """Operations that know the number of images."""
    n = x.shape[0]
    x = F.max_pool2d(x, 2).view(n, 6, -1)
    return torch.stack([x[i] for i in range(n)]).reshape(n, 6, 4, 4) * torch.ones(n, 1, 1, 1)


def recurrent(net, x):
    y = net.rnn(x.flatten(2).transpose(1, 2))[0]
    return y.transpose(1, 2).unflatten(2, x.shape[2:])


NETWORKS = {
    "residual": Net(lambda net, x: F.relu(x + net.n(net.b(x))), b=conv(), n=nn.BatchNorm2d(6)),
    "residual in place": Net(in_place, b=conv(), c=conv()),
    "concatenation": Net(lambda net, x: torch.cat([F.relu(net.b(x)), net.c(x), x], 1), 14, b=conv(), c=conv(6, 2)),
    "depthwise": Net(lambda net, x: net.n(net.b(net.d(x))), b=conv(), d=conv(groups=6), n=nn.BatchNorm2d(6)),
    "grouped and dilated": Net(
        lambda net, x: net.c(net.b(x)), b=conv(groups=2), c=nn.Conv2d(6, 6, 3, padding=2, dilation=2)
    ),
    "shared module": Net(lambda net, x: net.b(F.relu(net.b(x))) + net.c(x), b=conv(), c=conv()),
    "shared normalisation": Net(
        lambda net, x: net.n(net.c(net.n(net.b(x)))), b=conv(), c=conv(), n=nn.BatchNorm2d(6)
    ),
    "normalised and not": Net(lambda net, x: (y := net.b(x)) + net.n(y), b=conv(), n=nn.BatchNorm2d(6)),
    "functional": Net(
        lambda net, x: F.pad(F.avg_pool2d(torch.sigmoid(x), 2), (1, 1, 1, 1)) * x.mean((2, 3), True)
    ),
    "number of images": Net(by_position),
    "small images": Net(
        lambda net, x: net.c(F.max_pool2d(net.b(F.max_pool2d(x, 2)), 2)).repeat(1, 1, 3, 3), b=conv(), c=conv()
    ),
    "linear in between": Net(lambda net, x: net.l(x.movedim(1, -1)).movedim(-1, 1), l=nn.Linear(6, 6)),
    "recurrent": Net(recurrent, rnn=nn.GRU(6, 6, batch_first=True)),
}


def make_task(network):
    rng = torch.Generator().manual_seed(0)
    split = torch.randn(24, 2, 8, 8, generator=rng), torch.arange(24) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = copy.deepcopy(network)
        for module in network.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    tensor.data.uniform_(0.5, 1.5)
        network.head.weight.data *= 10  # for scores that are not tiny
    return Task.from_network(network, split, split, split, device="cpu")


@torch.no_grad()
def masked(network, images, point, channel):
    """Logits with one channel of a module's output zero: one whole forward pass in float64."""
    network = copy.deepcopy(network).double()
    if channel is not None:
        keep = torch.arange(network.get_submodule(point).weight.shape[0]) != channel
        network.get_submodule(point).register_forward_hook(
            lambda module, inputs, output: output * keep[:, None, None]
        )
    return network(images.double())


@pytest.mark.parametrize("name", NETWORKS)
def test_output_kl_is_that_of_masked_forward_passes(name):
    task = make_task(NETWORKS[name])
    exact, coarse = (
        score_filters(task, f"output_kl(precision={precision})", batch_size=24)
        for precision in ("float32", "bfloat16")
    )
    for path, layer in task.graph.layers.items():
        logits = [
            masked(task.network, task.train.images, layer.norm or path, channel)
            for channel in (None, *range(layer.out_channels))
        ]
        log_p, *log_qs = [F.log_softmax(one, 1) for one in logits]
        expected = [F.kl_div(log_q, log_p, log_target=True, reduction="batchmean").item() for log_q in log_qs]
        assert exact[path].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-9), path
        assert coarse[path].tolist() == pytest.approx(expected, rel=0.15, abs=2e-3), path


@pytest.mark.parametrize("name", NETWORKS)
def test_a_replay_without_a_channel_of_any_layer_is_a_masked_forward_pass(name):
    """Also of layers that cannot be pruned; a filter at a time where `torch.vmap` has no rule, as for the GRU."""
    task = make_task(NETWORKS[name])
    images = task.train.images[:5]
    replay = Replay(hasten(share_parameters(task.network), "float32"))
    assert torch.equal(replay.remember(images), replay.logits)
    for point in ("a", "norm", "z", *(set("bcdn") & dict(task.network.named_modules()).keys())):
        channels = torch.arange(task.network.get_submodule(point).weight.shape[0])
        logits = replay.without(point, channels)
        expected = torch.stack([masked(task.network, images, point, channel) for channel in channels])
        assert torch.allclose(logits.double(), expected, rtol=1e-4, atol=1e-4), point


def test_by_hand_without_a_channel():
    """Two pixels of 1 and 2; filters 1 and 10, then 3 and 100: 3 * 1 + 100 * 10 = 1003 at the first pixel."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Conv2d(2, 1, 1, bias=False), nn.Flatten())
    network[0].weight.data = torch.tensor([1.0, 10.0]).view(2, 1, 1, 1)
    network[1].weight.data = torch.tensor([3.0, 100.0]).view(1, 2, 1, 1)
    replay = Replay(hasten(network, "float32"))
    assert replay.remember(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)).tolist() == [[1003, 2006]]
    assert replay.without("0", torch.tensor([0, 1])).tolist() == [[[1000, 2000]], [[3, 6]]]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(
    "how", [{"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (2, 3), "bias": False}]
)
def test_a_quick_convolution_is_a_convolution(size, how, precision):
    convolution = nn.Conv2d(4, 6, 3, **how)
    images = torch.randn(5, 4, size, size + 1)
    expected = convolution(images)
    quick = InferenceConvolution(convolution, precision)
    tolerance = 1e-5 if precision == "float32" else 0.05
    assert torch.allclose(quick(images).float(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("options", ["max_batch=1", "max_batch=7", "max_memory=1"])
def test_output_kl_does_not_depend_on_how_filters_and_images_are_batched(tiny, options):
    whole, parts = score_filters(tiny, "output_kl"), score_filters(tiny, f"output_kl({options})")
    for path in whole:
        assert parts[path].tolist() == pytest.approx(whole[path].tolist(), rel=1e-4, abs=1e-9)


def test_precision_is_an_option_of_dsfp_for_the_exact_divergence(tiny):
    coarse, exact = score_filters(tiny, "dsfp(precision=bfloat16)"), score_filters(tiny, "dsfp")
    assert all(coarse[path].tolist() == pytest.approx(exact[path].tolist(), abs=1e-2) for path in exact)
    with pytest.raises(InputError, match="expected kl=output with it"):
        score_filters(tiny, "dsfp(kl=fisher, precision=bfloat16)")
    with pytest.raises(InputError, match="Did you mean 'bfloat16'"):
        score_filters(tiny, "output_kl(precision=bfloat)")
