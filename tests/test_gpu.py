"""What must hold on a GPU: ``pytest -m gpu`` where there is one.

Nearly every test runs on the CPU too, so that it is known to run.
"""

import copy
import subprocess
import sys
import warnings
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from conftest import TinyNet
from torch import nn

import dsfp_env
from dsfp_env import ChannelGraph, Evaluator, LatencyMeter
from dsfp_env.common.devices import finish
from dsfp_env.common.hashing import hash_of
from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.common.repeatable import repeatable
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.networks import make_network
from dsfp_env.speed.folding import foldable
from dsfp_env.training import epochs
from dsfp_env.training.accuracy import compute_logits, measure_accuracy
from dsfp_env.training.distillation import Fidelity, TransferSet, fine_tune, is_same_graphed
from dsfp_env.training.objectives import Objective
from dsfp_env.training.recipes import Recipe

SHORT = {"recipe": "digits(epochs=5)"}
PRECISIONS = ("float32", "bfloat16")
FOUR = Fidelity(batches=4, batch_size=12, kernels="torch")
RATIOS = (50.0, 30.0, 70.0, 40.0)


def gpu(name, number=1):
    """A device of a test that only runs where there are so many GPUs."""
    missing = not torch.cuda.is_available() or torch.cuda.device_count() < number
    skip = pytest.mark.skipif(missing, reason=f"there are not {number} GPU(s) here")
    return pytest.param(name, marks=[pytest.mark.gpu, skip])


@pytest.fixture(params=["cpu", gpu("cuda"), gpu("cuda:1", number=2)])
def device(request):
    return torch.device(request.param)


@pytest.fixture
def task(device, own_cache):
    return dsfp_env.load_task("digits", device=str(device), **SHORT)


@pytest.fixture
def on_cpu(own_cache):
    return dsfp_env.load_task("digits", device="cpu", **SHORT)


def plan(task):
    return dict(zip(task.agents, RATIOS, strict=True))


def evaluator(task, precision, **changes):
    return Evaluator(task, "l1", replace(task.fidelity, precision=precision, **changes), store=False)


@contextmanager
def waits_refused(device):
    """Whoever waits for the GPU gets an error from torch."""
    if device.type != "cuda":
        yield
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it says that it is a prototype
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_training_loop_waits_for_nothing(device, task, precision):
    chosen = evaluator(task, precision)
    network = task.graph.slim(task.network, chosen.keep(plan(task)))
    transfer_set = task.transfer_set(chosen.fidelity, 0)
    before = network.features.conv1.weight.detach().clone()
    with waits_refused(device):
        fine_tune(network, task.train, transfer_set, chosen.fidelity, 0)
    finish(device)
    assert not torch.equal(network.features.conv1.weight, before)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equal_seeds_give_equal_bits(task, precision):
    built = [evaluator(task, precision).build(plan(task), seed=5).state_dict().values() for _ in range(2)]
    assert hash_of(built[0]) == hash_of(built[1])
    other = evaluator(task, precision).build(plan(task), seed=6).state_dict().values()
    assert hash_of(built[0]) != hash_of(other)


SCRIPT = """
import dsfp_env, torch
from dataclasses import replace
from dsfp_env.common.hashing import hash_of
torch.set_num_threads(1)
task = dsfp_env.load_task("digits", device={device!r}, recipe="digits(epochs=5)")
evaluator = dsfp_env.Evaluator(task, "l1", replace(task.fidelity, precision={precision!r}), store=False)
ratios = dict(zip(task.agents, {ratios}))
print(hash_of(evaluator.build(ratios, seed=5).state_dict().values()), evaluator.evaluate(ratios, seed=5).accuracy)
"""


@pytest.mark.parametrize("precision", PRECISIONS)
def test_another_process_finds_the_same_bits(device, task, precision):
    script = SCRIPT.format(device=str(device), precision=precision, ratios=RATIOS)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here = evaluator(task, precision)
    weights = hash_of(here.build(plan(task), seed=5).state_dict().values())
    assert done.stdout.split() == [weights, str(here.evaluate(plan(task), seed=5).accuracy)]


@pytest.mark.parametrize("name", ["vgg16-bn", "resnet20"])
def test_layers_are_those_of_the_cpu(device, name):
    with own_random_numbers(torch.device("cpu"), seed=0):
        network, images = make_network(name, 10), torch.randn(16, 3, 32, 32)
        with torch.no_grad():
            network.train()(images)  # statistics that are not 0 and 1
    expected = ChannelGraph.trace(network.eval(), images[:1])
    there, seen = network.to(device), images.to(device)
    graph = ChannelGraph.trace(there, seen[:1])
    assert list(graph.layers) == list(expected.layers)
    assert graph.excluded == expected.excluded
    assert foldable(there, graph.norms, seen[:2]) == graph.norms


def test_float32_is_that_of_the_cpu(device, on_cpu):
    images = on_cpu.test.images
    expected = compute_logits(on_cpu.network, images)
    with repeatable():
        found = compute_logits(copy.deepcopy(on_cpu.network).to(device), images).cpu()
    assert torch.allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_an_evaluation_is_that_of_the_cpu_with_the_same_weights(device, on_cpu):
    same = dsfp_env.Task.from_network(
        on_cpu.network,
        on_cpu.train,
        on_cpu.validation,
        on_cpu.test,
        device=str(device),
        fidelity=on_cpu.fidelity,
    )
    exact = [evaluator(one, "float32", batches=0) for one in (same, on_cpu)]
    accuracies = [[one.original.accuracy, one.evaluate(plan(on_cpu)).accuracy] for one in exact]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.005)  # of 400 images, two
    found, expected = (evaluator(one, "float32").evaluate(plan(on_cpu)) for one in (same, on_cpu))
    assert (found.macs, found.params, found.filters) == (expected.macs, expected.params, expected.filters)
    assert found.accuracy == pytest.approx(expected.accuracy, abs=0.03)  # rounding grows in training
    for criterion in ("dsfp", "taylor", "fisher", "l1", "activation_kl"):
        for path, scores in on_cpu.scores(criterion).items():
            bins = 1e-2 if criterion == "activation_kl" else 1e-5  # a value at the edge of a bin may change sides
            assert torch.allclose(same.scores(criterion)[path], scores, rtol=bins, atol=1e-6)


def test_bfloat16_is_within_half_a_point_of_float32(task):
    accuracies = [measure_accuracy(task.network, task.validation, precision) for precision in PRECISIONS]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.005)
    means = []
    for precision in PRECISIONS:
        one = evaluator(task, precision)
        outcomes = [one.evaluate(plan(task), seed=seed) for seed in range(6)]
        means.append(sum(outcome.accuracy for outcome in outcomes) / len(outcomes))
    assert means[0] == pytest.approx(means[1], abs=0.005)


def begun(device):
    with own_random_numbers(torch.device("cpu"), seed=0):
        return nn.Sequential(TinyNet(), nn.Dropout(0.3)).to(device)


def images():
    rng = torch.Generator().manual_seed(0)
    return LabelledImages(torch.randn(48, 1, 8, 8, generator=rng), torch.randint(3, (48,), generator=rng))


def stop(epoch):
    raise KeyboardInterrupt


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_that_is_stopped_goes_on(device, precision, tmp_path):
    recipe = Recipe(epochs=3, batch_size=16, shift=1, flip=True, precision=precision, channels_last=True)
    whole, stopped, resumed = (begun(device) for _ in range(3))
    elsewhere = torch.get_rng_state()
    history = epochs.train(whole, images(), recipe, 3)
    with pytest.raises(KeyboardInterrupt):
        epochs.train(stopped, images(), recipe, 3, on_epoch=stop, checkpoint=tmp_path / "state")
    assert epochs.train(resumed, images(), recipe, 3, checkpoint=tmp_path / "state") == history
    assert hash_of(resumed.state_dict().values()) == hash_of(whole.state_dict().values())
    assert torch.equal(torch.get_rng_state(), elsewhere)


def test_a_training_goes_on_on_the_other_device(device, tmp_path):
    recipe = Recipe(epochs=3, batch_size=16)
    for number, places in enumerate(((device, "cpu"), ("cpu", device))):
        file = tmp_path / str(number)
        with pytest.raises(KeyboardInterrupt):
            epochs.train(begun(places[0]), images(), recipe, 3, on_epoch=stop, checkpoint=file)
        assert len(epochs.train(begun(places[1]), images(), recipe, 3, checkpoint=file)) == 3


def test_pruned_networks_are_carried_both_ways(task, on_cpu, tmp_path):
    for number, made in enumerate((task, on_cpu)):
        one, file = evaluator(made, "float32"), tmp_path / f"{number}.safetensors"
        built = one.build(plan(made))
        dsfp_env.save_pruned(file, built, one.keep(plan(made)), made)
        for reader in (task, on_cpu):
            read = dsfp_env.load_pruned(file, task=reader)
            assert hash_of(read.state_dict().values()) == hash_of(built.state_dict().values())
            there = compute_logits(read.to(task.device), task.test.images).cpu()
            assert torch.allclose(there, compute_logits(built, made.test.images).cpu(), rtol=0, atol=1e-3)


def test_times_are_positive_and_say_where(task):
    latency = LatencyMeter(min_run_time=0.05).measure(task.network, task.test.images)
    assert latency.seconds > 0
    assert latency.device


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batches_launched_as_one_give_the_same_bits(task, precision):
    one = evaluator(task, precision)
    assert one.measurement.graphed == (task.device.type == "cuda")
    built = []
    for graphed in (False, True):
        one.measurement.graphed = graphed and one.measurement.graphed
        built.append(hash_of(one.measurement.build(one.keep(plan(task)), 3).state_dict().values()))
    assert built[0] == built[1]


class Odd(nn.Module):
    """A network with dropout that counts its calls, or that waits for the GPU."""

    def __init__(self, how):
        super().__init__()
        self.how, self.calls = how, 0
        self.inner, self.dropout = TinyNet(), nn.Dropout(0.3)

    def forward(self, x):
        self.calls += 1
        y = self.dropout(self.inner(x))
        return y * self.calls if self.how == "counts" else y * float(y.detach().sum() * 0 + 1)


@pytest.mark.parametrize("name", [gpu("cuda")])
@pytest.mark.parametrize("how", ["counts", "waits"])
def test_what_cannot_be_launched_as_one_is_done_as_it_is(name, how):
    """A counter changes the weights, so no graph; who waits is refused by the recording, and goes on without."""
    train, fidelity = images().to(torch.device(name)), replace(FOUR, precision="float32")
    with own_random_numbers(torch.device("cpu"), seed=0):
        odd = Odd(how).to(name)
    assert not is_same_graphed(odd, train, fidelity, Objective())
    transfer_set = TransferSet(*(one.to(name) for one in (torch.arange(48).view(4, 12), torch.randn(4, 12, 3))))
    hashes = []
    for graphed in (False, True):
        student = copy.deepcopy(odd)
        fine_tune(student, train, transfer_set, fidelity, 1, graphed=graphed)
        hashes.append(hash_of(student.state_dict().values()))
    assert (hashes[0] == hashes[1]) == (how == "waits")


@pytest.mark.parametrize("name", [gpu("cuda")])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_epochs_launched_as_one_give_the_same_bits(name, accumulate, monkeypatch):
    recipe = Recipe(epochs=2, batch_size=8, shift=1, accumulate=accumulate, precision="float32")
    hashes = []
    for graphed in (False, True):
        asked = epochs._Training.is_same_graphed
        answer = (lambda *given: False) if not graphed else asked
        with monkeypatch.context() as patch:
            patch.setattr(epochs._Training, "is_same_graphed", answer)
            network = begun(torch.device(name))
            epochs.train(network, images(), recipe, 3)
        hashes.append(hash_of(network.state_dict().values()))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("name", [gpu("cuda")])
def test_what_there_is_no_room_for_is_said(name):
    huge = LabelledImages(torch.zeros(1).expand(1 << 16, 3, 4096, 4096), torch.zeros(1 << 16, dtype=torch.int64))
    with pytest.raises(torch.OutOfMemoryError, match="where all splits stay; .* make the splits smaller"):
        huge.to(torch.device(name))
