"""Dynamic-coded filter fusion: its formulas by hand, its training on digits, and the networks of its paper."""

import copy
import functools
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from conftest import count
from torch import nn

import dsfp_env
from dsfp_env.common.errors import InputError
from dsfp_env.criteria.similarity import inter_similarity, similarity_scores
from dsfp_env.dcff import fusion
from dsfp_env.dcff.published import RATES, published_ratios, published_skeleton
from dsfp_env.dcff.training import FusedConv2d, Skeleton, baked, fusing, skeleton, train_compact
from dsfp_env.networks import make_network
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.epochs import train
from dsfp_env.training.recipes import Recipe

LINE = torch.tensor([[0.0], [1.0], [3.0]])  # three filters of one weight; their distances are 1, 2 and 3


def p_by_hand(temperature=1.0):
    """P of the filters 0, 1 and 3, as plain numbers."""
    rows = []
    for one in (0, 1, 3):
        likeness = [math.exp(-abs(one - other) / temperature) for other in (0, 1, 3)]
        rows.append([value / sum(likeness) for value in likeness])
    return rows


@pytest.mark.parametrize("temperature", [1.0, 0.3, 5.0])
def test_similarity_and_scores_by_hand(temperature):
    p = p_by_hand(temperature)
    log_p = inter_similarity(LINE, temperature)
    assert log_p.exp().tolist() == [pytest.approx(row, rel=1e-12) for row in p]
    scores = [sum(a * math.log(a / b) for other in p for a, b in zip(row, other, strict=True)) for row in p]
    assert similarity_scores(log_p).tolist() == pytest.approx(scores, rel=1e-12)


def test_the_numbers_themselves():
    log_p = inter_similarity(LINE)
    first = [0.7054, 0.2595, 0.0351]  # 1, 1/e and 1/e^3, divided by 1.4177
    assert log_p[0].exp().tolist() == pytest.approx(first, abs=1e-4)
    assert int(similarity_scores(log_p).argmax()) == 2  # the 3 is far from both others


@pytest.mark.parametrize("temperature", [1e-4, 1e-8, 1e-100])
def test_low_temperatures_give_finite_scores_which_tend_to_the_sums_of_distances(temperature):
    log_p = inter_similarity(LINE, temperature)
    assert torch.equal(log_p.exp(), torch.eye(3, dtype=torch.float64))
    assert (temperature * similarity_scores(log_p)).tolist() == pytest.approx([1 + 3, 1 + 2, 3 + 2])


def test_equal_filters_are_equally_like_each_other_at_every_temperature():
    filters = torch.randn(1, 50).repeat(4, 1)
    for temperature in (1.0, 1e-4, 1e-12):
        log_p = inter_similarity(filters, temperature)
        assert torch.allclose(log_p.exp(), torch.full((4, 4), 0.25, dtype=torch.float64))
        assert similarity_scores(log_p).abs().max() < 1e-12


def test_temperatures_are_positive():
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match=r"temperature of filter fusion is .*: expected a positive number"):
            inter_similarity(LINE, temperature)


def test_the_released_scores_have_the_same_order_at_first_and_are_nan_after_one_epoch():
    torch.manual_seed(0)
    weight = nn.Conv2d(16, 64, 3).weight.detach().flatten(1)

    def released(temperature):
        p = (-torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist") / temperature).softmax(1)
        return (p[:, None] * (p[:, None] / (p + 1e-7)).log()).mean(2).sum(1)

    ours = similarity_scores(inter_similarity(weight, 1.0))
    assert torch.equal(released(1.0).argsort(), ours.argsort())
    temperature = fusion.published(1, 300)
    assert released(temperature).isnan().all()
    log_p = inter_similarity(weight, temperature)
    assert similarity_scores(log_p).isfinite().all()
    assert torch.equal(log_p.exp().float(), torch.eye(64))  # nothing is fused any more


def test_published_temperatures():
    assert fusion.published(0, 300) == 1
    assert 1 / fusion.published(1, 300) == pytest.approx(4621.7, abs=0.1)
    assert 1 / fusion.published(2, 300) == pytest.approx(7616.2, abs=0.1)
    assert 1 / fusion.published(300, 300) == pytest.approx(10_000)
    for epochs in (1, 5, 300):  # as the paper writes it
        a = 2 * 9999 * (1 + math.exp(-epochs)) / (1 - math.exp(-epochs))
        for epoch in range(epochs):
            assert 1 / fusion.published(epoch, epochs) == pytest.approx(a / (1 + math.exp(-epoch)) + 1 - a / 2)


def test_geometric_temperatures():
    assert [fusion.geometric(epoch, 5) for epoch in range(5)] == pytest.approx([1, 0.1, 0.01, 0.001, 0.0001])
    assert fusion.geometric(0, 1) == 1


class OneOfEach(nn.Module):
    """Convolutions of one weight per filter."""

    def __init__(self):
        super().__init__()
        self.plain, self.whole = nn.Conv2d(1, 3, 1), nn.Conv2d(1, 3, 1)
        self.transposed = nn.ConvTranspose2d(1, 3, 1)
        self.depthwise = nn.Conv2d(3, 3, 1, groups=3)
        for module in self.children():
            module.weight.data = LINE.view(module.weight.shape).clone()
            module.bias.data = torch.tensor([1.0, 10.0, 100.0])


def test_fusion_by_hand():
    network = OneOfEach()
    some = torch.tensor([1, 2])
    keep = {"plain": some, "whole": torch.arange(3), "transposed": some, "depthwise": some}
    fused = fusion.fused(network, keep, temperature=2.0)
    p = p_by_hand(2.0)
    for path in ("plain", "transposed"):
        weight, bias = (tensor.flatten().tolist() for tensor in fused.get_submodule(path).parameters())
        assert weight == pytest.approx([0] + [0 * row[0] + 1 * row[1] + 3 * row[2] for row in p[1:]])
        assert bias == pytest.approx([1] + [1 * row[0] + 10 * row[1] + 100 * row[2] for row in p[1:]])
    before = OneOfEach().state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    for name, tensor in fused.state_dict().items():
        assert name.startswith(("plain", "transposed")) or torch.equal(tensor, before[name])


def test_fusing_a_path_that_is_no_convolution():
    with pytest.raises(InputError, match=r"Unknown convolution 'plane'. Did you mean 'plain'\?"):
        fusion.fused(OneOfEach(), {"plane": torch.tensor([0])})


def test_fusion_at_low_temperature_is_selection_also_with_shortcuts():
    network, images = make_network("resnet20").eval(), torch.randn(2, 3, 32, 32)
    graph = dsfp_env.ChannelGraph.trace(network, images)
    scores = {path: torch.rand(layer.out_channels) for path, layer in graph.layers.items()}
    keep = graph.keep(dict.fromkeys(graph.layers, 0.5), scores)
    selected = graph.slim(network, keep)(images)
    assert torch.equal(graph.slim(fusion.fused(network, keep, 1e-6), keep)(images), selected)
    assert not torch.allclose(graph.slim(fusion.fused(network, keep, 1.0), keep)(images), selected, rtol=0.1)


def line(filters=2):
    """A fused convolution of the filters 0, 1 and 3."""
    layer = FusedConv2d(nn.Conv2d(1, filters, 1), 3)
    layer.weight.data, layer.bias.data = LINE.view(3, 1, 1, 1).clone(), torch.zeros(3)
    return layer


def test_gradients_reach_the_filters_that_are_not_chosen():
    layer = line()
    layer.choose_filters(1.0)
    assert sorted(layer.chosen.tolist()) == [0, 2]
    output = layer(torch.ones(1, 1, 1, 1))
    p = p_by_hand()
    mixed = {j: p[j][1] * 1 + p[j][2] * 3 for j in (0, 2)}
    assert output.flatten().tolist() == pytest.approx([mixed[j] for j in layer.chosen.tolist()])
    output.sum().backward()
    assert layer.weight.grad.flatten().tolist() == pytest.approx([p[0][i] + p[2][i] for i in range(3)])
    assert layer.weight.grad[1] > 0.1


def test_a_filter_that_stays_chosen_keeps_its_place():
    layer = line()
    layer.choose_filters(1e-4)
    assert layer.chosen.tolist() == [0, 2]  # sums of distances 4, 3, 5: the 1 goes, though it was in place 1
    layer.weight.data = torch.tensor([0.0, -9.0, 1.0]).view(3, 1, 1, 1)
    layer.choose_filters(1e-4)
    assert layer.chosen.tolist() == [1, 2]  # sums 10, 19, 11
    assert layer.mixture.tolist() == [[0, 1, 0], [0, 0, 1]]


@pytest.fixture(scope="module")
def half(digits):
    """The digits network at half its widths."""
    network = make_network("digits_net")
    return skeleton(network, digits.graph, dict.fromkeys(digits.graph.layers, 0.5))


RECIPE = Recipe(epochs=8)


@pytest.mark.parametrize("schedule", ["geometric", "published", lambda epoch, epochs: 0.1])
def test_training_on_digits(digits, half, schedule):
    network = train_compact(half, digits.train, RECIPE, seed=0, schedule=schedule)
    assert measure_accuracy(network, digits.test) > 0.95  # chance: 0.1
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert {type(module) for module in convolutions} == {nn.Conv2d}
    assert [module.out_channels for module in convolutions] == [8, 16, 16, 32]
    plain = copy.deepcopy(half.network)
    plain.load_state_dict(network.state_dict())  # an ordinary network of those widths: nothing more, nothing less
    assert torch.equal(plain.eval()(digits.test.images), network(digits.test.images))


def test_equal_seeds_agree_and_others_do_not(digits, half):
    before = copy.deepcopy(half.network.state_dict())
    one, same, other = (train_compact(half, digits.train, Recipe(epochs=2), seed) for seed in (1, 1, 2))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name])
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in half.network.state_dict().items())


def test_a_stopped_training_goes_on_bit_for_bit(digits, half, tmp_path):
    def run(checkpoint=None, on_epoch=None):
        return train_compact(
            half, digits.train, RECIPE, 3, validation=digits.validation, checkpoint=checkpoint, on_epoch=on_epoch
        )

    def stop(epoch):
        if epoch.number == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state", stop)
    with pytest.raises(InputError, match=r"is of another training \(about differ\)"):
        train_compact(half, digits.train, RECIPE, 3, schedule="published", checkpoint=tmp_path / "state")
    epochs = []
    resumed = run(tmp_path / "state", epochs.append).state_dict()
    assert [epoch.number for epoch in epochs] == [5, 6, 7, 8]
    for name, tensor in run().state_dict().items():
        assert torch.equal(tensor, resumed[name]), name


def test_the_network_that_is_returned_answers_as_the_trained_one(digits, half):
    trained = fusing(half, seed=0)
    chosen = []

    def choose_filters(epoch):
        layer = trained.features.conv4
        before = layer.mixture.clone()
        for module in (module for module in trained.modules() if isinstance(module, FusedConv2d)):
            module.choose_filters(fusion.geometric(epoch, 3))
        assert not torch.equal(layer.mixture, before)
        chosen.append(set(layer.chosen.tolist()))

    train(trained, digits.train, Recipe(epochs=3), 0, before_epoch=choose_filters)
    assert torch.equal(baked(trained)(digits.test.images), trained(digits.test.images))
    assert any(one != next_one for one, next_one in pairwise(chosen))  # the choice does vary


def test_what_a_skeleton_can_hold():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Linear(4, 2))
    for path, filters in (("0", 4), ("1", 8), ("2", 8)):
        with pytest.raises(InputError, match=f"'{path}' is to be fused of {filters} filters and is"):
            fusing(Skeleton(network, {path: filters}), 0)
    with pytest.raises(InputError, match="Unknown layer of the skeleton '3'"):
        fusing(Skeleton(network, {"3": 8}), 0)
    shared = nn.Sequential(network[0], nn.Sequential(network[0]))
    both = fusing(Skeleton(shared, {"0": 8}), 0)
    assert both[0] is both[1][0]
    assert baked(both)[0] is not both[0]
    random = torch.get_rng_state()
    baked(fusing(Skeleton(network, {"0": 8}), 0))
    assert torch.equal(torch.get_rng_state(), random)


def test_layers_that_are_not_fused_are_narrower():
    network = nn.Sequential(
        nn.ConvTranspose2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 6, 1, padding_mode="reflect"),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2),
    )  # fmt: skip
    graph = dsfp_env.ChannelGraph.trace(network, torch.zeros(1, 1, 8, 8))
    compact = skeleton(network, graph, {"0": 0.5, "1": 0.5, "2": 0.5})
    assert compact.filters == {"2": 6}
    assert [compact.network[place].out_channels for place in range(3)] == [4, 4, 3]
    images = torch.randn(2, 1, 8, 8)
    trainee = fusing(compact, 0)
    trainee[2].choose_filters(0.1)
    assert torch.equal(baked(trainee)(images), trainee(images))


def test_an_unknown_schedule(digits, half):
    with pytest.raises(InputError, match="Unknown temperature schedule 'geometrical'. Did you mean 'geometric'"):
        train_compact(half, digits.train, RECIPE, 0, schedule="geometrical")


@functools.cache
def of_the_paper(name):
    return published_skeleton(name, 1000 if name == "resnet50" else 10)


@torch.no_grad()
def original_count(network, image, pooling):
    """What the released code prints as FLOPs; ``pooling``: operations for every output of its last pooling."""
    total = 0

    def add(module, _, output):
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * (module.weight[0].numel() + (module.bias is not None))
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * output.numel()
        elif isinstance(module, nn.Linear):
            total += module.weight.numel() + pooling * module.in_features

    hooks = [module.register_forward_hook(add) for module in network.modules()]
    network.eval()(image)
    for hook in hooks:
        hook.remove()
    return total


PAPER = {  # MACs, parameters; the paper's FLOPs and parameters; operations of its last pooling: k, or k^2, and 1
    "vgg16_dcff": (72_349_240, 1_071_248, "72.77M 1.07M", 2),  # the paper has 1.06M parameters
    "resnet56": (55_057_024, 384_316, "55.84M 0.38M", 65),
    "resnet110": (84_117_632, 555_368, "85.30M 0.56M", 65),
    "googlenet": (451_471_104, 2_079_250, "457.22M 2.08M", 9),
    "resnet50": (1_474_688_936, 10_581_581, "1490.52M 10.58M", 8),
}


@pytest.mark.parametrize("name", RATES)
def test_the_networks_of_the_paper_to_the_parameter(name):
    macs, params, printed, pooling = PAPER[name]
    network = of_the_paper(name).network.eval()
    image = torch.zeros(1, 3, *([224] * 2 if name == "resnet50" else [32] * 2))
    assert count(network, image)[1:] == (macs, params)
    assert f"{original_count(network, image, pooling) / 1e6:.2f}M {params / 1e6:.2f}M" == printed


@pytest.mark.parametrize("name", ["vgg16_dcff", "resnet56"])
def test_the_channel_graph_takes_the_published_ratios(name):
    graph = dsfp_env.ChannelGraph.trace(make_network(name), torch.zeros(1, 3, 32, 32))
    scores = {path: torch.arange(layer.out_channels) for path, layer in graph.layers.items()}
    costs = graph.costs(graph.keep(published_ratios(name), scores))
    assert (costs.macs, costs.params) == PAPER[name][:2]


def test_widths_of_the_paper():
    def widths(name):
        network = of_the_paper(name).network
        return {path: module.out_channels for path, module in network.named_modules() if hasattr(module, "groups")}

    assert list(widths("vgg16_dcff").values()) == [32, 32, 76, 76, 166, 166, 166] + [76] * 6
    googlenet = widths("googlenet")  # branch by branch; of 64, 96, 128, 16, 32, 32, 32 filters
    assert [one for path, one in googlenet.items() if path.startswith("a3")] == [64, 19, 128, 3, 6, 32, 32]
    resnet110 = widths("resnet110")
    assert [resnet110[f"layer{stage}.7.conv2"] for stage in (1, 2, 3)] == [6, 25, 32]
    assert [resnet110[f"layer3.{block}.conv1"] for block in (0, 1, 16, 17)] == [57, 57, 32, 57]


def test_resnet110_can_be_trained():
    compact = of_the_paper("resnet110")
    assert compact.filters["conv1"] == 16
    assert "layer1.1.conv1" not in compact.filters  # rate 0
    network = fusing(compact, 0)
    for module in network.modules():
        if isinstance(module, FusedConv2d):
            module.choose_filters(0.1)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_a_network_that_is_not_in_the_paper():
    with pytest.raises(InputError, match="Unknown network of the DCFF paper 'resnet20'"):
        published_ratios("resnet20")


def test_the_example(own_cache):
    example = Path(__file__).parent.parent / "examples" / "dcff_from_scratch.py"
    assert len(example.read_text().splitlines()) < 50
    printed = subprocess.run([sys.executable, example, "2"], capture_output=True, text=True, check=True).stdout
    assert [line.split(":")[0] for line in printed.splitlines()] == ["geometric", "published"]
    assert printed.count("189248 MACs, 8610 parameters") == 2
