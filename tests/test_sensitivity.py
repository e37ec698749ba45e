"""Scores that a person can check, and what every criterion owes."""

import copy
import inspect
import itertools
import math
from typing import get_args

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional as F

from dsfp_env import InputError, Task, score_filters
from dsfp_env.channels.layers import filters_first
from dsfp_env.criteria.dsfp import DIVERGENCES, EFFECTS, NORMALISATIONS, SIGNS, dsfp, fuse, minmax, rank, zscore
from dsfp_env.criteria.scoring import CRITERIA, Evidence
from dsfp_env.datasets.labelled_images import LabelledImages

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
ACTIVATION_KL = [LN2, LN2]  # all of filter 0's activations are ln 2, all of filter 1's are 0, of the layer's half


def log_imp(gradient, taylor, divergence):
    return [
        math.log(math.exp(abs(g - t)) + math.exp(abs(t - k)) + math.exp(abs(g - k)) / 2)
        for g, t, k in zip(gradient, taylor, divergence, strict=True)
    ]


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("grad", GRAD),
        ("taylor", TAYLOR),
        ("output_kl", KL),
        ("output_kl(num_images=1)", KL),
        ("activation_kl", ACTIVATION_KL),
        ("dsfp", log_imp(GRAD, TAYLOR, KL)),
        ("dsfp(kl=output, normalisation=none, end=lowest, taylor=sum)", log_imp(GRAD, TAYLOR, KL)),
        ("dsfp(kl=activation)", log_imp(GRAD, TAYLOR, ACTIVATION_KL)),
        ("dsfp(end=highest)", [-score for score in log_imp(GRAD, TAYLOR, KL)]),
        ("taylor_activation", TAYLOR),  # of one position
        ("fisher", [(LN2 / 3) ** 2 / 2, 0]),
        ("l1", [LN2, 0]),
        ("l2", [LN2, 0]),
        ("fpgm", [LN2, LN2]),
        ("dcff", [LN2 / 3, LN2 / 3]),  # P = (2/3, 1/3) and (1/3, 2/3)
        ("dcff(temperature=0.5)", [3 / 5 * 2 * LN2] * 2),  # P = (4/5, 1/5) and (1/5, 4/5)
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
    expected = log_imp([1 / 2, 1 / 2], [LN2 / 3, 0], KL)
    assert score_filters(task, "dsfp")["0"].tolist() == pytest.approx(expected, abs=1e-6)
    expected = log_imp([1 / 2, 1 / 2], [LN2 / 6, 0], KL)  # two elements
    assert score_filters(task, "dsfp(taylor=mean)")["0"].tolist() == pytest.approx(expected, abs=1e-6)


def test_gradients_are_averaged_as_absolute_values_over_batches(two_filters):
    """With labels 0 and 1 in separate batches, dL/dw is p - (1, 0) and p - (0, 1): |.| averages to (1/2, 1/2)."""
    images = torch.ones(2, 1, 1, 1), torch.tensor([0, 1])
    task = Task.from_network(two_filters.network, images, images, images, device="cpu")
    assert score_filters(task, "grad", batch_size=1)["0"].tolist() == pytest.approx([1 / 2, 1 / 2])
    assert score_filters(task, "grad", batch_size=2)["0"].tolist() == pytest.approx([1 / 6, 1 / 6])


def test_fisher_kl_is_the_expectation_over_the_networks_own_labels(two_filters):
    """Label 0 comes with p = 2/3 and gives (ln 2 / 3)^2, label 1 (ln 2 * 2/3)^2: on average ln^2 2 * p (1 - p)."""
    images = torch.ones(4096, 1, 1, 1)
    given = [
        Task.from_network(two_filters.network, *[(images, torch.full((4096,), label))] * 3, device="cpu")
        for label in (0, 1)
    ]
    scores = [score_filters(task, "fisher_kl", num_batches=32)["0"] for task in given]
    # The standard error is 0.7 / sqrt(4096) = 1.1 %.
    assert scores[0].tolist() == pytest.approx([LN2**2 * 2 / 9 / 2, 0], rel=0.04)
    assert torch.equal(scores[0], scores[1])  # the labels that are given do not matter
    fused = score_filters(given[0], "dsfp(kl=fisher)", num_batches=32)["0"]
    assert fused.tolist() == pytest.approx(log_imp(GRAD, TAYLOR, scores[0].tolist()), abs=1e-6)


def test_fisher_kl_where_both_labels_give_the_same_square(two_filters):
    """With w = (ln 2, ln 2), p = (1/2, 1/2): a g is ln 2 / 2 or -ln 2 / 2."""
    network = copy.deepcopy(two_filters.network)
    nn.init.constant_(network[0].weight, LN2)
    task = Task.from_network(network, *[two_filters.train] * 3, device="cpu")
    assert score_filters(task, "fisher_kl")["0"].tolist() == pytest.approx([LN2**2 / 8, LN2**2 / 8])


def test_fisher_kl_orders_filters_of_the_real_network_as_the_exact_kl_does(digits):
    """Measured with seeds 0 to 7: means of .74 to .89 over the four layers (.88 with seed 0)."""
    fast, exact = score_filters(digits, "fisher_kl"), score_filters(digits, "output_kl")
    correlations = [spearmanr(fast[path], exact[path])[0] for path in exact]
    assert sum(correlations) / len(correlations) > 0.7


def test_taylor_activation_adds_positions_with_their_sign_and_images_without(two_filters):
    """Two pixels of 1, filter 0 answers 1 at both, logit 0 is u a_0 + v a_1; dL/dlogit 0 is p - 1 or p."""
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 0.0]).view(2, 1, 1, 1))
        network[2].weight.zero_()
    split = torch.ones(2, 1, 1, 2), torch.tensor([0, 1])
    scores = []
    for u, v in ((1, -1), (LN2 / 2, LN2 / 2)):
        network[2].weight.data[0, :2] = torch.tensor([u, v])
        scores.append(
            score_filters(Task.from_network(network, split, split, split, device="cpu"), "taylor_activation")
        )
    assert scores[0]["0"].tolist() == pytest.approx([0, 0], abs=1e-7)  # effects of -1/2 and 1/2 in each image
    # p = 2/3: effects of -ln 2 / 6 at both pixels of image 0, and of ln 2 / 3 at both of image 1.
    assert scores[1]["0"].tolist() == pytest.approx([LN2 / 4, 0], abs=1e-7)


def normalised_network(**kwargs):
    """One pixel x = 1 becomes 1 in both filters; scale (2 ln 2, -1) and shift (-ln 2, 1) make of it (ln 2, 0)."""
    norm = nn.BatchNorm2d(2, eps=0, **kwargs)
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), norm, nn.Flatten(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(1)
        network[3].weight.copy_(torch.eye(2))
        if norm.affine:
            norm.weight.copy_(torch.tensor([2 * LN2, -1]))
            norm.bias.copy_(torch.tensor([-LN2, 1]))
    return network


def test_of_normalisation_by_hand():
    split = torch.ones(2, 1, 1, 1), torch.tensor([0, 1])
    task = Task.from_network(normalised_network(), split, split, split, device="cpu")
    assert score_filters(task, "bn_scale")["0"].tolist() == pytest.approx([2 * LN2, 1])
    # dL/da_0 is -1/3 for label 0, 2/3 for label 1, and 1/6 for both together; a_1 = 0, though its parts are not.
    alone = score_filters(task, "taylor_bn", batch_size=1)["0"]
    assert alone.tolist() == pytest.approx([((LN2 / 3) ** 2 + (LN2 * 2 / 3) ** 2) / 2, 0], abs=1e-7)
    together = score_filters(task, "taylor_bn", batch_size=2)["0"]
    assert together.tolist() == pytest.approx([(LN2 / 6) ** 2, 0], abs=1e-7)


@pytest.mark.parametrize(("criterion", "instead"), [("bn_scale", "l1"), ("taylor_bn", "taylor_activation")])
def test_a_criterion_of_normalisation_needs_one_with_a_scale(two_filters, criterion, instead):
    with pytest.raises(InputError, match=f"layer '0' has none. Use '{instead}' instead"):
        score_filters(two_filters, criterion)
    network = normalised_network(affine=False)
    task = Task.from_network(network, *[two_filters.train] * 3, device="cpu")
    with pytest.raises(InputError, match="layer '0' has '1', which has no scale"):
        score_filters(task, criterion)


def test_activation_kl_by_hand(two_filters):
    """Images 0 and 1, w = (1, 0), two bins: filter 0 has (1/2, 1/2), filter 1 has (1, 0), the layer (3/4, 1/4)."""
    network = copy.deepcopy(two_filters.network)
    network[0].weight.data = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    expected = pytest.approx([math.log(2 / 3) / 2 + math.log(2) / 2, math.log(4 / 3)])

    def evidence(*batches):
        images = [LabelledImages(torch.tensor(b).view(-1, 1, 1, 1), torch.zeros(len(b)).long()) for b in batches]
        return Evidence(network, two_filters.graph.layers, images, torch.Generator())

    activation_kl = CRITERIA["activation_kl"]
    assert activation_kl(evidence([0.0, 1.0]), bins=2)["0"].tolist() == expected
    # The first batch gives the range; what lies beyond is in the outer bins.
    assert activation_kl(evidence([0.0, 1.0], [-5.0, 5.0]), bins=2)["0"].tolist() == expected
    assert activation_kl(evidence([0.0, 0.0]), bins=2)["0"].tolist() == [0, 0]  # all filters alike


def test_fpgm_of_three_filters_at_known_distances():
    """Filters (0, 0), (3, 4) and (0, 4): distances 5, 4 and 3."""
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(3, 2))
    network[0].weight.data = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]]).view(3, 2, 1, 1)
    split = torch.randn(4, 2, 1, 1), torch.tensor([0, 1, 0, 1])
    task = Task.from_network(network, split, split, split, device="cpu")
    assert score_filters(task, "fpgm")["0"].tolist() == pytest.approx([9, 8, 7])


def test_normalisations_by_hand():
    term = torch.tensor([2.0, 1.0, 6.0], dtype=torch.float64)
    assert minmax(term).tolist() == pytest.approx([1 / 5, 0, 1])
    assert zscore(term).tolist() == pytest.approx([x / math.sqrt(14 / 3) for x in (-1, -2, 3)])
    assert rank(term).tolist() == [1 / 2, 0, 1]
    tied = torch.tensor([7.0, 1.0, 1.0], dtype=torch.float64)
    assert minmax(tied).tolist() == [1, 0, 0]
    assert zscore(tied).tolist() == pytest.approx([math.sqrt(2), -math.sqrt(1 / 2), -math.sqrt(1 / 2)])
    assert rank(tied).tolist() == [1, 1 / 4, 1 / 4]  # places 0 and 1 are shared
    constant = torch.full((3,), 0.1, dtype=torch.float64)
    assert [f(constant).tolist() for f in (minmax, zscore, rank)] == [[0] * 3, [0] * 3, [1 / 2] * 3]


OPTIONS = {"kl": DIVERGENCES, "normalisation": NORMALISATIONS, "end": SIGNS, "taylor": EFFECTS}


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("kl", DIVERGENCES)
def test_options_of_dsfp(tiny, kl, normalisation):
    """The fused score is made of the terms, each a criterion of its own; the elements of a filter are 9 and 36."""
    terms = {c: score_filters(tiny, c) for c in ("grad", "taylor", "output_kl", "activation_kl", "fisher_kl")}
    normalise = NORMALISATIONS[normalisation]
    for end, taylor in itertools.product(SIGNS, EFFECTS):
        text = f"dsfp(kl={kl}, normalisation={normalisation}, end={end}, taylor={taylor})"
        scores = score_filters(tiny, text)
        for path, elements in (("conv1", 9), ("conv2", 36)):
            effect = terms["taylor"][path] / (elements if taylor == "mean" else 1)
            expected = fuse(normalise(terms["grad"][path]), normalise(effect), normalise(terms[f"{kl}_kl"][path]))
            expected = -expected if end == "highest" else expected
            assert scores[path].tolist() == pytest.approx(expected.tolist(), abs=1e-9)


def test_the_options_of_dsfp_are_those_that_its_signature_names():
    parameters = inspect.signature(dsfp, eval_str=True).parameters
    assert {name: get_args(parameters[name].annotation) for name in OPTIONS} == {
        name: tuple(table) for name, table in OPTIONS.items()
    }


def test_an_unknown_option_of_dsfp_is_refused(tiny):
    with pytest.raises(InputError, match="Unknown kl 'fsher'. Did you mean 'fisher'"):
        score_filters(tiny, lambda evidence: dsfp(evidence, kl="fsher"))
    with pytest.raises(InputError, match="Criterion 'output_kl' came with num_images = 0"):
        score_filters(tiny, "output_kl(num_images=0)")


@pytest.mark.parametrize(
    "criterion",
    ["taylor_bn", "taylor_activation", "fisher_kl", "activation_kl"]
    + [f"dsfp(kl={kl}, normalisation={name})" for kl in DIVERGENCES for name in NORMALISATIONS],
)
def test_a_network_of_nan_is_refused_and_not_ranked(tiny, criterion):
    network = copy.deepcopy(tiny.network)
    network.bn2.bias.data[1] = math.nan
    task = Task.from_network(network, tiny.train, tiny.validation, tiny.test, device="cpu")
    with pytest.raises(InputError, match="finite"):
        score_filters(task, criterion)


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


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("kl", DIVERGENCES)
def test_dead_filters_go_first_whatever_the_options(tiny, kl, normalisation):
    """Filter 3 is silent; filter 0 answers -1 to every image, which the ReLU makes 0."""
    network = copy.deepcopy(tiny.network)
    with torch.no_grad():
        network.bn2.weight[3] = network.bn2.bias[3] = 0
        network.bn2.weight[0], network.bn2.bias[0] = 0, -1
    task = Task.from_network(network, tiny.train, tiny.validation, tiny.test, device="cpu")
    for end, taylor in itertools.product(SIGNS, EFFECTS):
        text = f"dsfp(kl={kl}, normalisation={normalisation}, end={end}, taylor={taylor})"
        scores = score_filters(task, text)["conv2"]
        assert scores[[0, 3]].max() < scores[[1, 2, 4, 5]].min(), text


@pytest.mark.parametrize("criterion", [*CRITERIA, "dsfp(kl=fisher)", "dsfp(kl=activation, normalisation=rank)"])
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
    with pytest.raises(InputError, match="'dsfp' option 'kl': 'fsher'. Did you mean 'fisher'"):
        score_filters(tiny, "dsfp(kl=fsher)")


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
    of_any_layer = CRITERIA.keys() - {"bn_scale", "taylor_bn"}
    assert all(score_filters(task, criterion)["0"].shape == (6,) for criterion in of_any_layer)
