"""Networks as other people write and load them: each works as it is, or is refused with the true reason."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import dsfp_env
from dsfp_env import ChannelGraph, Evaluator, Fidelity, InputError, Task
from dsfp_env.channels.tracing import tensors_of
from dsfp_env.criteria.scoring import CRITERIA
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.speed.layout import layout_of
from dsfp_env.training.fine_tuning import distil
from dsfp_env.training.recipes import Recipe

IMAGE = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
FIDELITY = Fidelity(recalibration_images=32, batches=2, batch_size=16)


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def splits(dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    return [
        (torch.randn(n, 1, 8, 8, generator=rng).to(dtype), torch.randint(3, (n,), generator=rng))
        for n in (64, 40, 30)
    ]


def task_of(network, dtype=torch.float32, fidelity=FIDELITY):
    return Task.from_network(network, *splits(dtype), device="cpu", fidelity=fidelity)


def half(task, **kwargs):
    """The outcome of pruning every layer by half."""
    return Evaluator(task, "l1", store=False, **kwargs).evaluate(dict.fromkeys(task.agents, 50.0))


def is_exact(network, image=IMAGE):
    """Slim equals masked, for every layer by 50 %; returns the graph."""
    network = network.eval()
    graph = ChannelGraph.trace(network, image)
    rng = torch.Generator().manual_seed(1)
    scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in graph.layers.items()}
    keep = graph.keep(dict.fromkeys(graph.layers, 0.5), scores)
    slim, masked = graph.slim(network, keep)(image), graph.masked(network, keep)(image)
    assert torch.allclose(slim, masked, atol=1e-5)
    return graph


class LeNet(nn.Module):
    """The commonest of all: flattened by ``view``."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 64, 3)

    def flat(self, y):
        return y.view(y.size(0), -1)

    def forward(self, x):
        return self.head(self.flat(F.relu(self.b(F.relu(self.a(x))))))


class Reshaped(LeNet):
    """The same by ``flatten``, which does not mind how a tensor lies."""

    def flat(self, y):
        return y.flatten(1)


class InPlaceThroughReshape(LeNet):
    """Writes through a reshaped tensor: into the tensor itself, or into a copy, as it lies."""

    def flat(self, y):
        y = y + 0
        y.reshape(y.size(0), -1).mul_(-1)
        return y.flatten(1)


class ViewInTraining(LeNet):
    """Looks at how a tensor lies in training only."""

    def flat(self, y):
        return y.view(y.size(0), -1) if self.training else y.flatten(1)


VIEWS = [LeNet, InPlaceThroughReshape, ViewInTraining]


@pytest.mark.parametrize("criterion", [name for name in CRITERIA if name not in ("taylor_bn", "bn_scale")])
def test_a_forward_pass_with_view_can_be_scored(criterion):
    """What we do to memory formats is not seen by it; the scores are those of the same network with flatten."""
    viewed, flattened = (task_of(seeded(make)).scores(criterion) for make in (LeNet, Reshaped))
    for path, scores in viewed.items():
        assert torch.allclose(scores, flattened[path], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("make", VIEWS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_forward_pass_may_depend_on_how_tensors_lie(make, precision):
    task = task_of(seeded(make))
    assert layout_of(task.network) is torch.contiguous_format
    assert 0 <= half(task, fidelity=Fidelity(batches=2, batch_size=16, precision=precision)).accuracy <= 1
    assert layout_of(task_of(seeded(Reshaped)).network) is torch.channels_last
    recipe = Recipe(epochs=1, batch_size=16, channels_last=True)
    student = Evaluator(task, "l1", store=False).build(dict.fromkeys(task.agents, 50.0))
    assert len(distil(student, task.network, task.train, task.validation, recipe, 0)) == 1


def test_a_frozen_network_is_trained_as_any_other():
    """As a teacher of somebody else's often is: its student is trained, all of it."""
    whole, part, free = (seeded(LeNet) for _ in range(3))
    whole.requires_grad_(False)
    part.a.requires_grad_(False)
    expected = half(task_of(free))
    assert half(task_of(whole)) == half(task_of(part)) == expected
    assert not whole.a.weight.requires_grad
    assert set(task_of(whole).scores("taylor")) == {"a", "b"}


class SpatialGate(nn.Module):
    """The gate mixes what it looks at; what comes after is free."""

    def __init__(self, pool=lambda x: x.mean(1, keepdim=True), pooled=1):
        super().__init__()
        self.a, self.gate = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(pooled, 1, 3, padding=1)
        self.b, self.c, self.head = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 4, 3), nn.Linear(4, 3)
        self.pool = pool

    def forward(self, x):
        x = F.relu(self.a(x))
        x = x * torch.sigmoid(self.gate(self.pool(x)))
        return self.head(F.relu(self.c(F.relu(self.b(x)))).mean((2, 3)))


@pytest.mark.parametrize(
    ("pool", "pooled"),
    [
        (lambda x: x.mean(1, keepdim=True), 1),
        (lambda x: x.amax(1, keepdim=True), 1),
        (lambda x: torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1), 2),  # as in CBAM
    ],
)
def test_a_spatial_gate_binds_what_it_looks_at_and_nothing_else(pool, pooled):
    graph = is_exact(seeded(lambda: SpatialGate(pool, pooled)))
    assert {"b", "c"} <= set(graph.layers)
    assert "a" not in graph.excluded or "mixed by" in graph.excluded["a"]


class Sliced(nn.Module):
    """Only the first four of six channels are looked at, by their place; beside it a branch of its own."""

    def __init__(self, beside=5):
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.beside, self.after, self.head = nn.Conv2d(1, beside, 3), nn.Conv2d(beside, 4, 3), nn.Linear(8, 3)

    def forward(self, x):
        y = self.narrow(self.wide(x)[:, :4]).mean((2, 3))
        return self.head(torch.cat([y, self.after(F.relu(self.beside(x))).mean((2, 3))], 1))


@pytest.mark.parametrize("beside", range(2, 12))
def test_giving_up_is_local(beside):
    graph = is_exact(seeded(lambda: Sliced(beside)))
    assert {"narrow", "beside", "after"} <= set(graph.layers)


class Buffered(nn.Module):
    """A number for every channel that is in no state dict."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 4, 3), nn.Linear(4, 3)
        self.register_buffer("scale", torch.rand(6), persistent=False)

    def forward(self, x):
        return self.head(self.b(self.a(x) * self.scale.view(1, -1, 1, 1)).mean((2, 3)))


class WithExtraState(LeNet):
    def __init__(self):
        super().__init__()
        self.said = {}

    def get_extra_state(self):
        return {"said": self.said}

    def set_extra_state(self, state):
        self.said = state["said"]


def same_module_twice():
    twice = nn.Conv2d(4, 4, 3, padding=1)
    return nn.Sequential(nn.Conv2d(1, 4, 3), twice, nn.ReLU(), twice, nn.Flatten(), nn.Linear(4 * 36, 3))


@pytest.mark.parametrize("make", [Buffered, WithExtraState, same_module_twice, LeNet])
def test_it_comes_back_from_a_file(tmp_path, make):
    network = seeded(make)
    if make is WithExtraState:
        network.said = {"tags": ["a", 1]}
    task = task_of(network)
    evaluator, plan = Evaluator(task, "l1", store=False), dict.fromkeys(task.agents, 50.0)
    slim = evaluator.build(plan)
    dsfp_env.save_pruned(tmp_path / "slim.safetensors", slim, evaluator.keep(plan), task)
    loaded = dsfp_env.load_pruned(tmp_path / "slim.safetensors", network=make())
    assert torch.equal(loaded(IMAGE), slim(IMAGE))
    if make is WithExtraState:
        assert loaded.said == {"tags": ["a", 1]}


class InVain(nn.Module):
    """As a wrapper that returns ``network(x)["out"]``; and a head behind ``detach``, which does matter."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.aux, self.more, self.gate = nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = F.relu(self.a(x))
        _ = self.more(self.aux(y))
        return self.head(self.b(y).mean((2, 3)) * self.gate(y).detach().mean((2, 3)))


def test_what_runs_in_vain_has_no_agent():
    graph = is_exact(seeded(InVain))
    assert set(graph.layers) == {"a", "b", "gate"}
    for path in ("aux", "more"):
        assert "reaches the outputs" in graph.excluded[path]
    task = task_of(seeded(InVain))
    for criterion in ("taylor", "grad", "fisher", "taylor_activation", "dsfp", "output_kl"):
        assert set(task.scores(criterion)) == {"a", "b", "gate"}
    assert task.scores("taylor")["gate"].abs().max() == 0  # no gradient gets there


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_are_taken_off(wrap):
    network = seeded(LeNet).eval()
    graph = ChannelGraph.trace(wrap(network), IMAGE)
    assert list(graph.layers) == ["a", "b"]
    keep = {"a": [0, 2]}
    assert torch.equal(graph.slim(wrap(network), keep)(IMAGE), graph.slim(network, keep)(IMAGE))
    assert half(task_of(wrap(network))) == half(task_of(network))


def test_recomputed_activations():
    class Recomputed(Reshaped):
        def forward(self, x):
            return self.head(
                checkpoint(lambda z: F.relu(self.b(F.relu(self.a(z)))), x, use_reentrant=False).flatten(1)
            )

    assert half(task_of(seeded(Recomputed))).accuracy == half(task_of(seeded(Reshaped))).accuracy


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_activations_recomputed_the_old_way():
    """torch allows no gradients by single tensors there; all else works."""

    class Recomputed(Reshaped):
        def forward(self, x):
            y = checkpoint(lambda z: F.relu(self.b(z)), F.relu(self.a(x)), use_reentrant=True)
            return self.head(y.flatten(1))

    task = task_of(seeded(Recomputed))
    for criterion in ("grad", "fisher", "dsfp"):
        with pytest.raises(InputError, match="use_reentrant=True.*expected use_reentrant=False, or a criterion"):
            task.scores(criterion)
    evaluator = Evaluator(task, "l1", store=False)
    assert evaluator.evaluate(dict.fromkeys(task.agents, 50.0)).accuracy > 0


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (lambda: torch.jit.trace(LeNet().eval(), IMAGE), "scripted or traced by torch.jit"),
        (lambda: torch.jit.script(Reshaped()), "scripted or traced by torch.jit"),
        (lambda: torch.export.export(Reshaped().eval(), (IMAGE,)).module(), "was exported"),
        (
            lambda: nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(3)),
            "'0.weight' .* run the network",
        ),
        (lambda: None, "The network is a NoneType"),
        (lambda: LeNet, "The network is a type"),
    ],
)
def test_what_is_no_network_of_layers_is_refused_for_that_reason(network, sentence):
    network = network()
    with pytest.raises(InputError, match=sentence):
        ChannelGraph.trace(network, IMAGE)
    with pytest.raises(InputError, match=sentence):
        task_of(network)


@pytest.mark.parametrize(
    "example", [None, IMAGE.numpy(), torch.tensor(1.0), torch.ones(3), IMAGE[:0], (), {}, (None,), "image"]
)
def test_examples_that_are_no_images_get_a_sentence(example):
    with pytest.raises(InputError, match="The example input is a .*: expected a tensor of one or more images"):
        ChannelGraph.trace(LeNet().eval(), example)


@pytest.mark.parametrize("by_hand", [[1, 3], (3, 1), np.array([1, 3]), [False, True, False, True]], ids=str)
@pytest.mark.parametrize("as_tensor", [True, False])
def test_filters_may_be_named_by_hand(by_hand, as_tensor):
    """Indices in any order, or a mask: never is a mask read as the indices 0 and 1."""
    network = seeded(LeNet).eval()
    graph = ChannelGraph.trace(network, IMAGE)
    keep = {"a": torch.as_tensor(by_hand) if as_tensor else by_hand}
    assert torch.equal(graph.slim(network, keep).a.weight, network.a.weight[[1, 3]])
    assert graph.costs(keep) == graph.costs({"a": torch.tensor([1, 3])})
    assert torch.equal(graph.masked(network, keep).a.weight[0], torch.zeros(1, 3, 3))
    measurement = Measurement(task_of(network))
    assert measurement.measure(keep, 1) == measurement.measure({"a": torch.tensor([1, 3])}, 1)


@pytest.mark.parametrize(
    "wrong",
    [None, [], torch.tensor([]), torch.tensor([0.0, 1.0]), [True, False], torch.tensor(1), "ab", [4], [-1]],
    ids=str,
)
def test_kept_filters_that_are_none_get_a_sentence(wrong):
    network = LeNet().eval()
    graph = ChannelGraph.trace(network, IMAGE)
    for use in (graph.costs, lambda keep: graph.slim(network, keep), lambda keep: graph.masked(network, keep)):
        with pytest.raises(InputError, match="The kept filters of 'a'"):
            use({"a": wrong})
    with pytest.raises(InputError, match="expected a dictionary"):
        graph.slim(network, wrong if isinstance(wrong, list) else [1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_networks_of_another_type_are_computed_in_float32(dtype):
    network = seeded(LeNet).to(dtype)
    outcome = half(task_of(network, dtype))
    assert outcome == half(task_of(network.float(), dtype))
    assert is_exact(seeded(LeNet).to(torch.float64), IMAGE.double()).layers.keys() == {"a", "b"}


def test_the_default_type_does_not_matter(digits):
    torch.set_default_dtype(torch.float64)
    try:
        task = dsfp_env.load_task("digits", device="cpu", recipe="digits(epochs=1)")
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in task.network.parameters()} == {torch.float32}


def test_tracing_in_inference_mode():
    with torch.inference_mode():
        image = torch.randn(1, 1, 8, 8)
        graph = ChannelGraph.trace(LeNet().eval(), image)
    assert list(graph.layers) == ["a", "b"]


@dataclass
class Answer:
    logits: torch.Tensor
    features: list[torch.Tensor]


class Several(nn.Module):
    """Takes an image and a vector, answers as it is told."""

    def __init__(self, answer=lambda a, b: (a, b)):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        self.beside, self.first, self.second = nn.Linear(5, 4), nn.Linear(8, 3), nn.Conv2d(4, 2, 1)
        self.answer = answer

    def forward(self, image, vector=None):
        y = F.relu(self.b(F.relu(self.norm(self.a(image)))))
        vector = torch.ones(len(image), 5) if vector is None else vector
        both = torch.cat([y.mean((2, 3)), self.beside(vector)], 1)
        return self.answer(self.first(both), self.second(y))


@pytest.mark.parametrize(
    "answer",
    [
        lambda a, b: (a, b),
        lambda a, b: [b, (a,)],
        lambda a, b: {"out": a, "aux": {"deep": b}},
        lambda a, b: Answer(a, [b]),
        lambda a, b: {"out": a, "index": a.argmax(1)},
        lambda a, b: b,  # a map, not logits
    ],
)
@pytest.mark.parametrize(
    "example", [IMAGE, (IMAGE,), (IMAGE, torch.randn(2, 5)), {"image": IMAGE, "vector": torch.randn(2, 5)}]
)
def test_networks_of_several_inputs_and_outputs(tmp_path, answer, example):
    network = seeded(lambda: Several(answer)).eval()
    graph = ChannelGraph.trace(network, example)
    assert {"a", "b"} == set(graph.layers)
    keep = {"a": torch.tensor([0, 2, 3]), "b": torch.tensor([1, 3])}
    slim = graph.slim(network, keep)
    given = [example] if isinstance(example, torch.Tensor) else example

    def answers(network):
        return tensors_of(network(**given) if isinstance(given, dict) else network(*given))

    masked = answers(graph.masked(network, keep))
    assert all(torch.allclose(x.float(), y.float(), atol=1e-5) for x, y in zip(answers(slim), masked, strict=True))
    assert slim.a.out_channels == len(slim.norm.weight) == slim.b.in_channels == 3
    dense = any(path == "second" for path in graph.excluded)
    assert dense
    macs = 36 * 9 * 3 + 16 * 9 * 3 * 2 + 16 * 2 * 2 + 5 * 4 + (2 + 4) * 3
    assert graph.costs(keep).macs == macs
    dsfp_env.save_pruned(tmp_path / "slim.safetensors", slim, keep, graph)
    loaded = dsfp_env.load_pruned(tmp_path / "slim.safetensors", network=network)
    assert all(torch.equal(x, y) for x, y in zip(answers(loaded), answers(slim), strict=True))
    with pytest.raises(InputError, match=r"answers .*: expected logits \[N, classes\]"):
        task_of(network)


def test_a_wrong_example_says_so():
    with pytest.raises(InputError, match=r"failed on the example input of shapes \(1, 1, 8, 8\), \(1, 7\)"):
        ChannelGraph.trace(Several().eval(), (IMAGE, torch.randn(2, 7)))
    with pytest.raises(InputError, match="unexpected keyword argument 'picture'"):
        ChannelGraph.trace(Several().eval(), {"picture": IMAGE})


class Spectral(nn.Module):
    """Works on frequencies, which are complex, and looks at them as pairs of real numbers."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        y = self.a(x)
        pairs = torch.view_as_real(torch.fft.rfft2(y)) * 0.5
        y = torch.fft.irfft2(torch.view_as_complex(pairs), s=y.shape[-2:])
        return self.head(self.b(y).mean((2, 3)))


def test_complex_numbers_are_no_reason_to_fail():
    graph = is_exact(seeded(Spectral))
    assert "b" in graph.layers
    assert "a" in graph.layers or "fft" in graph.excluded["a"]


class Tied(nn.Module):
    """Two convolutions that share weight and normalisation, and a head."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3)
        self.c.weight, self.norm, self.head = self.b.weight, nn.BatchNorm2d(4), nn.Linear(4 * 36, 3)

    def forward(self, x):
        y = F.relu(self.norm(self.b(F.relu(self.a(x)))))
        return self.head(F.relu(self.norm(self.c(y))).flatten(1))


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"random"}))
def test_tied_layers_have_scores(criterion):
    task = task_of(seeded(Tied))
    if criterion not in ("bn_scale", "taylor_bn"):  # these need a normalisation behind every layer
        assert all(scores.isfinite().all() for scores in task.scores(criterion).values())
    assert half(task).accuracy > 0


def test_a_forward_pass_without_gradients_gets_a_sentence():
    class Detached(Reshaped):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    task = task_of(seeded(Detached))
    with pytest.raises(InputError, match="No gradient comes out .*or a criterion without gradients, as 'l1'"):
        task.scores("dsfp")
    with pytest.raises(InputError, match="No gradient comes out .*or no fine-tuning: Fidelity.batches=0."):
        half(task)


def test_complex_logits_are_refused():
    class Complex(Reshaped):
        def forward(self, x):
            return super().forward(x) * 1j

    with pytest.raises(InputError, match="answers complex shape"):
        task_of(seeded(Complex))
