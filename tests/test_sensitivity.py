"""Scores that a person can check, and what every criterion owes."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dsfp_env import InputError, Task, score_filters
from dsfp_env.layers import filters_first
from dsfp_env.sensitivity import CRITERIA, fuse

LN2 = math.log(2)


@pytest.fixture(scope="module")
def two_filters():
    """One pixel x = 1, filters w = (ln 2, 0), logits z = w x, label 0: p = (2/3, 1/3), dL/dw = p - (1, 0)."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([LN2, 0.0]).view(2, 1, 1, 1))
        network[2].weight.copy_(torch.eye(2))
    images = torch.ones(4, 1, 1, 1), torch.zeros(4, dtype=torch.int64)
    return Task.from_network(network, images, images, images, device="cpu")


GRAD = [1 / 3, 1 / 3]
TAYLOR = [LN2 / 3, 0]
KL = [2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3), 0]  # without filter 0, q = (1/2, 1/2); without 1, q = p


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("grad", GRAD),
        ("taylor", TAYLOR),
        ("output_kl", KL),
        (
            "dsfp",
            [
                math.log(math.exp(abs(g - t)) + math.exp(abs(t - k)) + math.exp(abs(g - k)) / 2)
                for g, t, k in zip(GRAD, TAYLOR, KL, strict=True)
            ],
        ),
        ("fisher", [(LN2 / 3) ** 2 / 2, 0]),
        ("l1", [LN2, 0]),
        ("l2", [LN2, 0]),
    ],
)
def test_by_hand(two_filters, criterion, expected):
    scores = score_filters(two_filters, criterion)["0"]
    assert scores.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_bias_is_an_element_of_its_filter():
    """One pixel x = 2, w = (ln 2 / 4, 0), b = (ln 2 / 2, 0): again p = (2/3, 1/3), and dL/dw = 2 dL/db."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([LN2 / 4, 0.0]).view(2, 1, 1, 1))
        network[0].bias.copy_(torch.tensor([LN2 / 2, 0.0]))
        network[2].weight.copy_(torch.eye(2))
    images = torch.full((4, 1, 1, 1), 2.0), torch.zeros(4, dtype=torch.int64)
    task = Task.from_network(network, images, images, images, device="cpu")
    assert score_filters(task, "grad")["0"].tolist() == pytest.approx([1 / 2, 1 / 2])
    assert score_filters(task, "taylor")["0"].tolist() == pytest.approx([LN2 / 6 + LN2 / 6, 0])
    assert score_filters(task, "output_kl")["0"].tolist() == pytest.approx(KL, abs=1e-6)
    assert score_filters(task, "dsfp")["0"].isfinite().all()


def test_gradients_are_averaged_as_absolute_values_over_batches(two_filters):
    """With labels 0 and 1 in separate batches, dL/dw is p - (1, 0) and p - (0, 1): |.| averages to (1/2, 1/2)."""
    images = torch.ones(2, 1, 1, 1), torch.tensor([0, 1])
    task = Task.from_network(two_filters.network, images, images, images, device="cpu")
    assert score_filters(task, "grad", batch_size=1)["0"].tolist() == pytest.approx([1 / 2, 1 / 2])
    assert score_filters(task, "grad", batch_size=2)["0"].tolist() == pytest.approx([1 / 6, 1 / 6])


def test_fusion_cannot_overflow():
    huge = fuse(torch.tensor([1e4, 0.0]), torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0]))
    assert huge.tolist() == pytest.approx([1e4 + math.log(1.5), math.log(2.5)])


def test_output_kl_equals_silencing_each_filter_by_hand(tiny):
    """Without a filter means zero after its normalisation: the same as scale and shift zero."""
    images = tiny.train.images
    scores = score_filters(tiny, "output_kl", num_batches=1, batch_size=len(images))
    log_p = F.log_softmax(tiny.network(images), 1)
    for path, norm in (("conv1", "bn1"), ("conv2", "bn2")):
        for filter_ in range(tiny.graph.layers[path].out_channels):
            silenced = copy.deepcopy(tiny.network)
            with torch.no_grad():
                silenced.get_submodule(norm).weight[filter_] = 0
                silenced.get_submodule(norm).bias[filter_] = 0
            expected = F.kl_div(F.log_softmax(silenced(images), 1), log_p, log_target=True, reduction="batchmean")
            assert scores[path][filter_].item() == pytest.approx(expected.item(), abs=1e-6)


def test_a_dead_filter_has_the_least_score(tiny):
    network = copy.deepcopy(tiny.network)
    with torch.no_grad():
        network.conv2.weight[3] = 0
        network.bn2.weight[3] = network.bn2.bias[3] = 0
    task = Task.from_network(network, tiny.train, tiny.validation, tiny.test, device="cpu")
    scores = score_filters(task, "dsfp")["conv2"]
    assert scores.argmin() == 3
    assert scores[3].item() == pytest.approx(math.log(2.5), abs=1e-9)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_is_repeatable_and_leaves_the_network_alone(tiny, criterion):
    network = copy.deepcopy(tiny.network).requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    task = Task.from_network(network, tiny.train, tiny.validation, tiny.test, device="cpu")
    first, second = score_filters(task, criterion), score_filters(task, criterion)
    assert all(torch.equal(first[path], second[path]) for path in task.graph.layers)
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.network.state_dict().items())
    assert not task.network.training
    assert all(p.grad is None and not p.requires_grad for p in task.network.parameters())
    assert not any(module._forward_hooks for module in task.network.modules())


def test_random_depends_on_the_seed(tiny):
    assert not torch.equal(
        score_filters(tiny, "random", seed=0)["conv1"], score_filters(tiny, "random", seed=1)["conv1"]
    )


def last_filter_first(evidence):
    return {path: -torch.arange(layer.out_channels) for path, layer in evidence.layers.items()}


def broken(evidence):
    return {path: torch.full((layer.out_channels,), math.nan) for path, layer in evidence.layers.items()}


def test_a_criterion_of_ones_own(tiny):
    assert score_filters(tiny, last_filter_first)["conv1"].tolist() == [0, -1, -2, -3]
    with pytest.raises(InputError, match="'broken' gave layer 'conv1' shape"):
        score_filters(tiny, broken)
    with pytest.raises(InputError, match="Did you mean 'taylor'"):
        score_filters(tiny, "tailor")


def test_filters_of_a_transposed_convolution_lie_along_its_second_dimension():
    """Two groups of 2 inputs and 3 filters: filter 4 is the second of group 1, which reads inputs 2 and 3."""
    layer = nn.ConvTranspose2d(4, 6, 1, groups=2)
    layer.weight.data = torch.arange(12.0).view(4, 3, 1, 1)
    assert filters_first(layer, layer.weight).tolist() == [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8, 11]]
    assert filters_first(layer, layer.bias).shape == (6, 1)
    network = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 2))
    split = torch.randn(8, 4, 2, 2), torch.arange(8) % 2
    task = Task.from_network(network, split, split, split, device="cpu")
    assert score_filters(task, "l1")["0"].tolist() == [3, 5, 7, 15, 17, 19]
    assert all(score_filters(task, criterion)["0"].shape == (6,) for criterion in CRITERIA)
