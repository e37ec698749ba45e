"""The product on a second device, see `second_device`: whole, equal to the CPU, and without needless waits.

`test_second_device` runs this file in a process of its own.
"""

import copy
import json
import pickle
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import second_device
import torch
from conftest import TinyNet
from torch import nn

import dsfp_env
from agents.reproduce.study import Pieces, Study, StudySettings, reproduce
from dsfp_env import Evaluator, Fidelity, InputError, LatencyMeter, Task
from dsfp_env.common import devices
from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.criteria.scoring import CRITERIA
from dsfp_env.datasets import reading
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.dcff.training import skeleton, train_compact
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.training import epochs
from dsfp_env.training.accuracy import compute_logits, measure_accuracy
from dsfp_env.training.distillation import fine_tune, recalibrate
from dsfp_env.training.fine_tuning import distil
from dsfp_env.training.pretraining import pretrained
from dsfp_env.training.recipes import FINE_TUNING, Recipe
from dsfp_env.wrappers.vector import vector_env

if second_device.LACKS:
    pytest.skip(second_device.LACKS, allow_module_level=True)

second_device.install()
CPU, THERE, OTHER = torch.device("cpu"), torch.device("second", 0), torch.device("second", 1)
NAME = "digits"
SHORT = {"recipe": "digits(epochs=2)"}
RECIPE = Recipe(epochs=3, batch_size=16, shift=1, flip=True)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """Optimisers have kernels of one piece, as CUDA's: so they round alike."""
    monkeypatch.setattr(devices, "_FUSED", {"cpu", "cuda", "second"})


@pytest.fixture(scope="module")
def here(own_cache):
    return dsfp_env.load_task(NAME, device="cpu", **SHORT)


@pytest.fixture(scope="module")
def there(own_cache):
    devices._FUSED.add("second")  # the network is trained
    try:
        return dsfp_env.load_task(NAME, device="second", **SHORT)
    finally:
        devices._FUSED.discard("second")


def plan(task, *ratios):
    return {agent: ratios[place % len(ratios)] for place, agent in enumerate(task.agents)}


def equal(one, other):
    states = one.state_dict(), other.state_dict()
    assert states[0].keys() == states[1].keys()
    for first, second in zip(*(state.values() for state in states), strict=True):
        assert torch.equal(first.cpu(), second.cpu())


def test_the_device_tells_what_goes_wrong_on_a_gpu():
    one = torch.ones(3, device="second")
    assert one.device == THERE
    with pytest.raises(RuntimeError, match="on one device"):
        one + torch.ones(3)
    with pytest.raises(RuntimeError, match="on one device"):
        one + torch.ones(3, device="second:1")
    with second_device.counted() as counts:
        (one + 1).view(3, 1).sum()
        assert (counts.launches, counts.waits, counts.uploads) == (2, {}, {})
        one.sum().item()
        one[one > 0]
        torch.ones(3).to("second")
    assert (sum(counts.waits.values()), sum(counts.uploads.values())) == (2, 1)


def test_a_device_has_a_whole_name(there):
    assert dsfp_env.common.devices.choose_device("second") == THERE
    assert there.device == THERE
    assert dsfp_env.load_task(NAME, device="second:0", **SHORT) is there
    evaluator = Evaluator(there)
    dsfp_env.parallel_env(evaluator=evaluator, device="second")
    with pytest.raises(InputError, match="device='cpu' came beside an evaluator"):
        dsfp_env.parallel_env(evaluator=evaluator, device="cpu")


def test_a_task_is_loaded(here, there):
    equal(here.network, there.network)
    assert list(here.graph.layers) == list(there.graph.layers)
    assert here.fingerprint == there.fingerprint
    assert there.teacher.norms == here.teacher.norms


@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_criterion_scores_as_on_the_cpu(criterion, here, there):
    with second_device.counted() as counts:
        found = dsfp_env.score_filters(there, criterion)
    for path, expected in here.scores(criterion).items():
        assert found[path].device == CPU
        assert torch.allclose(found[path], expected, rtol=1e-5, atol=1e-9)
    batches = 7
    once = {"random": 0, "dsfp": 5, "output_kl": 3, "activation_kl": 8 * batches + 1, "fisher_kl": batches + 1}
    assert sum(counts.waits.values()) == once.get(criterion, 1)


def test_evaluations_are_those_of_the_cpu(here, there):
    plans = [plan(here, 50.0, 30.0), plan(here, 70.0)]
    expected = [Evaluator(here, store=False).evaluate(one, seed=3) for one in plans]
    with Evaluator(there, store=False) as evaluator:
        assert evaluator._worker_count(None) == 1  # a GPU is not shared unless that is asked for
        assert evaluator.evaluate_many(plans, seed=3) == expected
        assert evaluator.evaluate(plans[0], seed=3) == expected[0]
        assert evaluator.original == Evaluator(here, store=False).original
        assert evaluator.measure_splits(plans[0]) == Evaluator(here, store=False).measure_splits(plans[0])


@pytest.mark.parametrize("credit", ["shared", "difference"])
def test_a_step_is_that_of_the_cpu(credit, here, there):
    seen = []
    for task in (here, there):
        short = replace(task.fidelity, batches=3)
        env = dsfp_env.parallel_env(task=task, fidelity=short, credit=credit, store=False, seed=1)
        env.reset(seed=1)
        actions = {agent: np.full(1, 30 + place, np.float32) for place, agent in enumerate(env.agents)}
        seen.append(env.step(actions)[1])
    assert seen[0] == seen[1]


def test_a_vector_of_environments_is_that_of_the_cpu(here, there):
    rewards = []
    for task in (here, there):
        envs = vector_env(2, task=task, fidelity=replace(task.fidelity, batches=3), store=False)
        envs.reset(seed=0)
        actions = np.linspace(-1, 1, 2 * len(task.agents), dtype=np.float32)
        rewards.append(envs.step(actions.reshape(envs.action_space.shape))[1])
        envs.close()
    assert np.array_equal(*rewards)


def test_what_is_built_is_kept_and_read(here, there, tmp_path):
    evaluator, file = Evaluator(there, store=False), tmp_path / "pruned.safetensors"
    ratios = plan(there, 50.0)
    built = evaluator.build(ratios)
    equal(built, Evaluator(here, store=False).build(ratios))
    dsfp_env.save_pruned(file, built, evaluator.keep(ratios), there)
    for read in (dsfp_env.load_pruned(file, task=here), dsfp_env.load_pruned(file, task=there)):
        assert {parameter.device for parameter in read.parameters()} == {CPU}
        equal(read, built)
    assert measure_accuracy(built, there.test) == measure_accuracy(read, here.test)


class WithDropout(TinyNet):
    def __init__(self):
        super().__init__()
        self.head = nn.Sequential(nn.Dropout(0.3), self.head)


def images(count=48, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return LabelledImages(torch.randn(count, 1, 8, 8, generator=rng), torch.randint(3, (count,), generator=rng))


def begun():
    with own_random_numbers(CPU, seed=0):
        return WithDropout()


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "mixup": 0.2}, {"accumulate": 2}])
def test_a_training_stops_and_goes_on_wherever_it_is(changes, tmp_path):
    recipe, ended = replace(RECIPE, **changes), []
    for place in (CPU, THERE):
        file = tmp_path / place.type

        def stop(epoch):
            if epoch.number == 2:
                raise KeyboardInterrupt

        options = {"validation": images(20, seed=1), "checkpoint": file}
        before = torch.get_rng_state(), [state.get_state() for state in second_device.backend.states]
        whole, stopped, resumed = (begun().to(place) for _ in range(3))
        history = epochs.train(whole, images(), recipe, 3, validation=images(20, seed=1))
        with pytest.raises(KeyboardInterrupt):
            epochs.train(stopped, images().to(place), recipe, 3, on_epoch=stop, **options)
        assert epochs.train(resumed, images(), recipe, 3, **options) == history
        equal(whole, resumed)
        assert torch.equal(torch.get_rng_state(), before[0])
        for state, was in zip(second_device.backend.states, before[1], strict=True):
            assert torch.equal(state.get_state(), was)
        ended.append(whole)
    if not changes.get("mixup"):  # it draws from the CPU's generator, dropout from the device's: there, two
        equal(*ended)


def test_a_training_goes_on_on_another_device(tmp_path):
    def stop(epoch):
        raise KeyboardInterrupt

    for first, second in ((CPU, THERE), (THERE, CPU)):
        file = tmp_path / first.type
        with pytest.raises(KeyboardInterrupt):
            epochs.train(begun().to(first), images(), RECIPE, 3, on_epoch=stop, checkpoint=file)
        network = begun().to(second)
        assert len(epochs.train(network, images(), RECIPE, 3, checkpoint=file)) == RECIPE.epochs
        assert next(network.parameters()).device == second


def test_a_training_needs_no_kernels_of_one_piece(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "_FUSED", {"cpu", "cuda"})
    for optimizer in ("adamw", "sgd"):
        recipe, networks = replace(RECIPE, optimizer=optimizer), [begun(), begun().to(THERE)]
        for network in networks:
            with second_device.counted() as counts:
                epochs.train(network, images(), recipe, 3)
            assert not any("fused" in name for name in counts.operations)
        assert torch.allclose(networks[0].conv1.weight, networks[1].conv1.weight.cpu(), atol=1e-3)


def test_pretraining_is_kept_for_the_device(tmp_path, monkeypatch):
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path))
    trained = pretrained(begun().to(THERE), images(), RECIPE, 0)
    equal(trained, pretrained(begun(), images().to(THERE), RECIPE, 0))
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    with second_device.counted() as counts:
        equal(trained, pretrained(begun().to(THERE), images(), RECIPE, 0))
    assert "convolution" not in counts.operations


@pytest.mark.parametrize("teacher_at", [CPU, THERE])
@pytest.mark.parametrize("data_at", [CPU, THERE])
def test_a_long_fine_tune_is_that_of_the_cpu(teacher_at, data_at):
    recipe = replace(FINE_TUNING["short"], epochs=2, batch_size=16, precision="float32", channels_last=False)
    students = []
    for place in (CPU, THERE):
        student, teacher = begun().to(place), begun().to(teacher_at)
        distil(student, teacher, images().to(data_at), images(20, seed=1), recipe, 0)
        students.append(student)
    equal(*students)


def test_filters_are_fused_as_on_the_cpu(here, there):
    trained = []
    for task in (here, there):
        plain = skeleton(task.network, task.graph, dict.fromkeys(task.graph.layers, 0.5))
        part = LabelledImages(task.train.images[:64], here.train.labels[:64])  # labels on the CPU
        trained.append(train_compact(plain, part, RECIPE, 0, validation=here.validation))
    assert next(trained[1].parameters()).device == THERE
    for one, other in zip(trained[0].parameters(), trained[1].parameters(), strict=True):
        assert torch.allclose(one, other.cpu(), atol=1e-4)


PLACES = [(CPU, CPU), (CPU, THERE), (THERE, CPU), (THERE, OTHER)]  # of images and of labels


@pytest.mark.parametrize("network_at", [CPU, THERE, OTHER])
@pytest.mark.parametrize("device", ["cpu", "second"])
def test_network_images_and_labels_may_come_from_anywhere(network_at, device, tiny):
    for mine in (True, False):
        for place, (images_at, labels_at) in enumerate(PLACES):
            splits = [tiny.train, tiny.validation, tiny.test]
            moved = splits[place % 3]
            pair = moved.images.to(images_at), moved.labels.to(labels_at)
            splits[place % 3] = LabelledImages(*pair) if mine else pair
            task = Task.from_network(
                TinyNet().to(network_at), *splits, device=device, fidelity=Fidelity(batches=1, batch_size=16)
            )
            tensors = [*task.network.state_dict().values(), *task.train, *task.validation, *task.test]
            assert {tensor.device.type for tensor in tensors} == {device}
            assert Evaluator(task, store=False).evaluate(plan(task, 50.0)).accuracy >= 0


def test_accuracy_is_measured_where_the_network_is(tiny):
    for place in (CPU, THERE, OTHER):
        network = copy.deepcopy(tiny.network).to(THERE)
        split = LabelledImages(tiny.test.images.to(place), tiny.test.labels.to(CPU))
        assert compute_logits(network, split.images).device == THERE
        expected = measure_accuracy(network, split)
        assert measure_accuracy(network.to(CPU), split) == expected


def test_what_there_is_no_room_for_is_said(monkeypatch, tiny):
    def none(self, *given, **named):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch.Tensor, "to", none)
    sentence = r"bringing 64 images of .* to second:0, where all splits stay; .* make the splits smaller"
    with pytest.raises(torch.OutOfMemoryError, match=sentence):
        tiny.train.to(THERE)


def test_train_agents_runs_there(monkeypatch, tmp_path):
    root = Path(dsfp_env.__file__).parents[1]
    command = "--evaluations 2 --kd-batches 1 --agent random_search --device second --recipe digits(epochs=2)"
    monkeypatch.setattr(sys, "argv", ["train_agents.py", *command.split(), "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(root / "train_agents.py"), run_name="__main__")
    assert end.value.code in (0, None)
    assert (tmp_path / "run" / "result.json").exists()


def test_a_study_of_the_paper_runs_there(tmp_path):
    """The original network is trained, rules and searches find ratios, networks are fine-tuned and timed."""
    asked = StudySettings(
        quick=True,
        rates=(50,),
        evaluations=2,
        kd_batches=1,
        pretraining="digits(epochs=2)",
        fine_tuning="plain(epochs=1)",
        deployed="min_run_time=0.01",
        device="second",
        out=str(tmp_path / "out"),
    )
    reproduce(asked)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert len(results["rows"]) == len(asked.settled().kinds) == 7
    assert {*results["latencies"]["of"]} == {"base", *results["rows"]}
    settled = replace(asked.settled(), executor="processes")
    sent = pickle.loads(pickle.dumps(Pieces(settled, Study(settled))))  # with the task, as workers get it
    assert len(sent._task.train.labels) == 1000


def test_budgets_of_an_evaluation(there):
    """Every launch is some microseconds of a GPU's time, every wait more; more of them need a reason."""
    evaluator = Evaluator(there, store=False)
    evaluator.evaluate(plan(there, 50.0))
    with second_device.counted() as counts:
        evaluator.evaluate(plan(there, 40.0))
    assert list(counts.waits.values()) == [1]  # the accuracy
    assert list(counts.uploads.values()) == [1]  # the filters that stay
    assert counts.launches <= 1850


def test_budgets_of_the_parts(there):
    evaluator = Evaluator(there, store=False)
    keep, fidelity = evaluator.keep(plan(there, 60.0)), evaluator.fidelity
    transfer_set = there.transfer_set(fidelity, 0)
    with second_device.counted() as cutting:
        network = there.graph.slim(there.network, keep)
    with second_device.counted() as recalibrating:
        recalibrate(network, there.train.images[:256])
    with second_device.counted() as training:
        fine_tune(network, there.train, transfer_set, fidelity, 0)
    with second_device.counted() as measuring:
        measure_accuracy(network, there.validation)
    found = {
        name: (counts.launches, sum(counts.waits.values()), sum(counts.uploads.values()))
        for name, counts in zip("crtm", (cutting, recalibrating, training, measuring), strict=True)
    }
    assert found == {"c": (30, 0, 1), "r": (35, 0, 0), "t": (1762, 0, 0), "m": (22, 1, 0)}


def test_the_other_one_of_two(tiny):
    """A second GPU; the first is the current one. (torch lets Python code go backwards on the first only.)"""
    before = [state.get_state() for state in second_device.backend.states]
    forwards = Fidelity(batches=0, recalibration_images=32)
    splits = tiny.train, tiny.validation, tiny.test
    task = Task.from_network(tiny.network, *splits, device="second:1", fidelity=forwards)
    assert task.device == OTHER
    for criterion in ("l1", "output_kl", "activation_kl"):
        for path, scores in task.scores(criterion).items():
            assert torch.allclose(scores, tiny.scores(criterion)[path], rtol=1e-5, atol=1e-9)
    expected = Evaluator(tiny, fidelity=forwards, store=False).evaluate(plan(tiny, 50.0))
    assert Evaluator(task, "l1", store=False).evaluate(plan(tiny, 50.0)).relative_macs == expected.relative_macs
    for state, was in zip(second_device.backend.states, before, strict=True):
        assert torch.equal(state.get_state(), was)


def test_times_are_those_of_the_device_that_works(monkeypatch, tiny):
    asked = []
    monkeypatch.setattr(second_device.backend, "synchronize", lambda: asked.append(second_device.backend.current))
    meter = LatencyMeter(min_run_time=0.01)
    assert meter.measure(TinyNet().to(OTHER), tiny.test.images.to(OTHER)).device == "second"
    assert set(asked) == {1}
    asked.clear()
    meter.measure(TinyNet(), tiny.test.images)
    assert not asked


def test_random_numbers_are_those_of_the_device():
    for place in (THERE, OTHER):
        with own_random_numbers(place, seed=5):
            first = torch.rand(4, device=place).cpu()
        with own_random_numbers(place, seed=5):
            assert torch.equal(torch.rand(4, device=place).cpu(), first)


def test_a_device_without_float64(monkeypatch, here, there):
    """As Apple's: what needs float64 is computed on the CPU."""
    monkeypatch.setattr(second_device, "without_float64", True)
    devices.has_float64.cache_clear()
    try:
        assert not devices.has_float64(THERE)
        with pytest.raises(TypeError, match="float64"):
            torch.ones(3).to(THERE).double()
        for criterion in CRITERIA:
            found = dsfp_env.score_filters(there, criterion)
            for path, expected in here.scores(criterion).items():
                assert torch.allclose(found[path], expected, rtol=1e-5, atol=1e-9)
        ratios = plan(there, 50.0)
        assert Evaluator(there, store=False).evaluate(ratios) == Evaluator(here, store=False).evaluate(ratios)
        test_filters_are_fused_as_on_the_cpu(here, there)
    finally:
        devices.has_float64.cache_clear()


def test_a_measurement_pickles(there):
    """So that a worker may be asked for; it has a copy of its own then."""
    import pickle

    assert isinstance(pickle.loads(pickle.dumps(Measurement(there))), Measurement)


def test_images_that_do_not_fit_come_from_host_memory(there, monkeypatch):
    """As bytes, batch by batch; an evaluation with them is that with images on the device."""
    monkeypatch.setattr(reading, "free_memory", lambda device: 1 << 40 if device.type == "cpu" else 1000)
    rng = torch.Generator().manual_seed(0)
    splits = [
        (torch.randint(256, (60, 1, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(60) % 10)
        for _ in range(3)
    ]
    given = {"device": str(there.device), "fidelity": there.fidelity, "transform": lambda images: images / 255}
    tasks = [Task.from_network(there.network, *splits, **given)]
    monkeypatch.setattr(reading, "free_memory", lambda device: 1 << 40)
    tasks.append(Task.from_network(there.network, *splits, **given))
    assert [isinstance(task.train.images, torch.Tensor) for task in tasks] == [False, True]
    assert tasks[0].train.images[:2].device == tasks[0].train.labels.device == there.device
    outcomes = [Evaluator(task, "l1", store=False).evaluate(plan(there, 50.0)) for task in tasks]
    assert outcomes[0] == outcomes[1]
