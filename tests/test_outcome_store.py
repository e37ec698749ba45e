"""Outcomes on disk: found by every later process, for the very same question, and never in the way."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import TinyNet, make_tiny_task
from torch import nn

import dsfp_env
from dsfp_env import Evaluator, LatencyMeter, Task
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.evaluation.outcome_store import OutcomeStore
from dsfp_env.tasks.fingerprints import SOURCES, evaluation_key, fingerprint

ROOT = Path(__file__).parents[1]
HALF = {"conv_0": 50.0, "conv_1": 50.0}
PLANS = [{"conv_0": float(r), "conv_1": 100.0 - r} for r in range(10, 91, 20)]


def no_work(monkeypatch):
    monkeypatch.setattr(Measurement, "build", None)


def test_what_was_measured_is_not_measured_again(tiny, store, monkeypatch):
    expected = [Evaluator(tiny, store=False).evaluate(plan, 3) for plan in PLANS]
    assert not store.file.exists()
    assert Evaluator(tiny).evaluate_many(PLANS, 3, workers=1) == expected
    no_work(monkeypatch)
    same = make_tiny_task("another name")
    assert Evaluator(same, criterion=lambda evidence: tiny.scores()).evaluate_many(PLANS, 3) == expected
    assert Evaluator(same).evaluate(PLANS[1], 3) == expected[1]
    env = dsfp_env.parallel_env(task=same, seed=3)
    env.reset()
    assert env.step(PLANS[2])[4]["conv_0"]["accuracy"] == expected[2].accuracy
    for kwargs in ({"store": False}, {"latency": LatencyMeter(min_run_time=0.01)}):
        with pytest.raises(TypeError, match="not callable"):
            Evaluator(same, **kwargs).evaluate(PLANS[1], 3)
    store.file.unlink()  # it may be deleted at any time
    with pytest.raises(TypeError, match="not callable"):
        Evaluator(same).evaluate(PLANS[1], 3)


def test_a_process_forks_while_none_of_its_threads_is_within_sqlite(store):
    """A mutex of SQLite that another thread holds would stay locked in the child, which would wait for ever."""
    begun, done = threading.Event(), []

    def slowly(database):
        begun.set()
        time.sleep(0.3)
        done.append(True)

    thread = threading.Thread(target=store._use, args=("read", slowly))
    thread.start()
    begun.wait()
    if (child := os.fork()) == 0:
        store.add("key", 0.5)
        os._exit(0 if done and store.find(["key"]) == {"key": 0.5} else 1)
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    store.add("another", 0.25)
    assert store.find(["another", "key"]) == {"another": 0.25, "key": 0.5}


def test_workers_outcomes_are_kept_too_and_times_are_not(tiny, store, monkeypatch):
    with Evaluator(tiny) as evaluator:
        expected = evaluator.evaluate_many(PLANS, workers=2)
    Evaluator(tiny, latency=LatencyMeter(min_run_time=0.01)).evaluate(HALF, 9)
    no_work(monkeypatch)
    assert Evaluator(tiny).evaluate_many(PLANS) == expected
    with pytest.raises(TypeError, match="not callable"):
        Evaluator(tiny).evaluate(HALF, 9)


def test_everything_that_matters_is_in_the_key(tiny):
    evaluator = Evaluator(tiny)
    kept, other = (evaluator._question(plan, 0).kept for plan in (HALF, PLANS[0]))
    given = tiny.fingerprint, kept, tiny.fidelity, 0, torch.device("cpu")
    keys = {evaluation_key(*given)}
    assert evaluation_key(*given) in keys
    for index, value in enumerate(("other", other, replace(tiny.fidelity, batches=3), 1)):
        keys.add(evaluation_key(*given[:index], value, *given[index + 1 :]))
    keys.add(evaluation_key(*given[:2], replace(tiny.fidelity, threads=2), *given[3:]))
    torch.set_float32_matmul_precision("medium")
    keys.add(evaluation_key(*given))
    torch.set_float32_matmul_precision("highest")
    assert len(keys) == 7


class Doubling(TinyNet):
    """The same weights and structure as TinyNet, another function."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_everything_that_matters_is_in_the_fingerprint(tiny):
    def changed(tensor):
        tensor = tensor.clone()
        tensor.view(-1)[-1] += 1
        return tensor

    first = fingerprint(tiny.network, tiny.train, tiny.validation)
    assert first == fingerprint(tiny.network, tiny.train, tiny.validation) == tiny.fingerprint
    prints = {first}
    for split in ("train", "validation"):
        for part in ("images", "labels"):
            splits = {"train": tiny.train, "validation": tiny.validation}
            splits[split] = splits[split]._replace(**{part: changed(getattr(splits[split], part))})
            prints.add(fingerprint(tiny.network, **splits))

    def network(cls=TinyNet):
        made = cls().eval()
        made.load_state_dict(tiny.network.state_dict())
        return made

    assert fingerprint(network(), tiny.train, tiny.validation) == first
    weights, buffers, frozen, hooked = (network() for _ in range(4))
    weights.conv2.weight.data[-1, -1, -1, -1] += 1e-6
    buffers.bn1.running_var[-1] += 1e-6
    frozen.head.bias.requires_grad_(False)
    hooked.register_forward_hook(lambda module, given, answer: answer + 1)
    for one in (weights, buffers, frozen, hooked, network(Doubling)):
        prints.add(fingerprint(one, tiny.train, tiny.validation))
    assert len(prints) == 1 + 4 + 5


def test_a_network_without_source_is_kept_in_memory_only(tiny, store):
    """As those of a notebook: there is no telling whether its code has changed."""
    notebook = types.ModuleType("notebook")
    sys.modules["notebook"] = notebook
    try:
        code = "class Net(TinyNet):\n    def forward(self, x):\n        return super().forward(x)"
        exec(code, vars(notebook) | {"TinyNet": TinyNet}, namespace := {"__name__": "notebook"})
        splits = tiny.train, tiny.validation, tiny.test
        task = Task.from_network(namespace["Net"](), *splits, device="cpu", fidelity=tiny.fidelity)
        assert task.fingerprint is None
        evaluator = Evaluator(task)
        assert evaluator.evaluate(HALF) is evaluator.evaluate(HALF)
        assert not store.file.exists()
    finally:
        del sys.modules["notebook"]


def test_the_code_in_the_key_is_the_code_that_runs(tiny, digits):
    """An evaluation is followed: no module of ours runs whose source is not in the key."""
    ran = set()

    def note(frame, event, argument):
        ran.add(frame.f_globals.get("__name__", ""))

    for task, precision in ((tiny, "float32"), (digits, "float32"), (digits, "bfloat16")):
        evaluator = Evaluator(task, "l1", replace(task.fidelity, precision=precision), store=False)
        question = evaluator._question(dict.fromkeys(task.agents, 50.0), 0)
        sys.setprofile(note)
        try:
            evaluator.measurement.answer(question)
        finally:
            sys.setprofile(None)
    ours = {name.removeprefix("dsfp_env.") for name in ran if name.startswith("dsfp_env.")}
    elsewhere = {
        "evaluation.outcome",
        "channels.costs",
        "common.errors",
        "common.one_at_a_time",
        "networks.plain",
    }  # not the accuracy's, and in the fingerprint
    assert {f"{name.replace('.', '/')}.py" for name in ours - elsewhere} <= set(SOURCES)


def test_half_a_gigabyte_is_read_without_a_copy():
    images = torch.randn(40_000, 3, 32, 32)
    split = LabelledImages(images, torch.zeros(40_000, dtype=torch.int64))
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    before = peak()
    assert fingerprint(network, split, split._replace(images=images[:8], labels=split.labels[:8]))
    assert peak() - before < 100_000


def peak():
    """The highest number of kB that this process has used."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def write_for_ever(name):
    store, number = OutcomeStore(), 0
    while True:
        store.add(f"{name} {number}", number / 1000 % 1)
        number += 1


def write_some(name, number):
    store = OutcomeStore()
    for each in range(number):
        store.add(f"{name} {each}", each / number)


def test_processes_write_at_once(store):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=write_some, args=(name, 200)) for name in ("a", "b", "c")]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    keys = [f"{name} {each}" for name in "abc" for each in range(200)]
    assert store.find([*keys, "other"]) == {key: int(key.split()[1]) / 200 for key in keys}


def test_a_process_may_be_killed_at_any_moment(store):
    rng, spawn = random.Random(0), multiprocessing.get_context("spawn")
    written = 0
    for _ in range(2):
        process = spawn.Process(target=write_for_ever, args=("a",))
        process.start()
        while not store.file.exists() or not store.find([f"a {written + 5}"]):
            assert process.is_alive()
            time.sleep(0.01)
        time.sleep(rng.random() / 10)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while (found := store.find([f"a {written}"])) == {f"a {written}": written / 1000 % 1}:
            written += 1
        assert not found
    store.add("afterwards", 0.25)
    assert store.find(["afterwards"]) == {"afterwards": 0.25}


@pytest.mark.parametrize("content", [b"no database at all", b"", b"SQLite format 3\0" + bytes(range(256)) * 64])
def test_a_damaged_file_is_set_aside(tiny, store, content):
    store.file.parent.mkdir()
    store.file.write_bytes(content)
    expected = Evaluator(tiny, store=False).evaluate(HALF)
    if content:
        with pytest.warns(UserWarning, match=r"was damaged .* a new one is begun") as warned:
            assert Evaluator(tiny).evaluate(HALF) == expected
        assert len(warned) == 1
        assert store.file.with_name("outcomes.sqlite.damaged").read_bytes() == content
    else:  # a new file
        assert Evaluator(tiny).evaluate(HALF) == expected
    assert len(store.find([Evaluator(tiny)._store.key(Evaluator(tiny)._question(HALF, 0))])) == 1


def test_damage_anywhere_never_gives_a_wrong_accuracy(store, recwarn):
    accuracies = {f"key {number}": number / 300 for number in range(300)}
    for key, accuracy in accuracies.items():
        store.add(key, accuracy)
    whole, rng = store.file.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole)
        for place in rng.sample(range(len(whole)), 20):
            damaged[place] = rng.randrange(256)
        store.file.write_bytes(damaged)
        found = OutcomeStore().find(accuracies)
        assert found.items() <= accuracies.items()
        store.file.unlink(missing_ok=True)


def test_without_a_place_to_write_there_is_one_warning(tiny, tmp_path, monkeypatch, store):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path / "file" / "below"))
    evaluator = Evaluator(tiny)
    with pytest.warns(UserWarning, match="Outcomes cannot be read .* DSFP_ENV_CACHE .* store=False") as warned:
        outcomes = [evaluator.evaluate(plan) for plan in PLANS]
    assert len(warned) == 1
    assert outcomes == [Evaluator(tiny, store=False).evaluate(plan) for plan in PLANS]
    assert (tmp_path / "file").read_text() == "kept"


def test_another_process_finds_it(digits, tmp_path):
    """On another day: two runs of a script, the second of which evaluates nothing."""
    file = tmp_path / "script.py"
    file.write_text(
        textwrap.dedent("""
            import torch
            import dsfp_env
            from dsfp_env.evaluation import measurement
            torch.set_num_threads(1)
            task = dsfp_env.load_task("digits", device="cpu")
            done, work = [], measurement.fine_tune
            measurement.fine_tune = lambda *given: done.append(work(*given))
            plan = dict.fromkeys(task.agents, 50.0)
            print(len(done), dsfp_env.Evaluator(task, "l1").evaluate(plan, 123).accuracy, len(done))
        """)
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(file)]
    out = [subprocess.run(command, env=environment, capture_output=True, text=True).stdout for _ in range(2)]
    accuracy = Evaluator(digits, "l1", store=False).evaluate(dict.fromkeys(digits.agents, 50.0), 123).accuracy
    assert out == [f"0 {accuracy} 1\n", f"0 {accuracy} 0\n"]
