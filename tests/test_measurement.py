"""The heart: a pure function of (kept filters, seed) that can be sent anywhere, asked in plain numbers."""

import os
import pickle
from concurrent.futures import BrokenExecutor, Future
from dataclasses import replace

import pytest
import torch
from conftest import make_tiny_task

from agents.reporting.finals import measure, measure_original
from dsfp_env import Evaluator, Fidelity, LatencyMeter, Task
from dsfp_env.evaluation import measurement as measurement_module
from dsfp_env.evaluation.executors import CannotSubmit
from dsfp_env.evaluation.executors.serial import Serial
from dsfp_env.evaluation.measurement import Measurement, Question
from dsfp_env.evaluation.memo import Memo
from dsfp_env.evaluation.staff import Staff

HALF = {"conv_0": 50.0, "conv_1": 50.0}
PLANS = [{"conv_0": float(r), "conv_1": 100.0 - r} for r in range(10, 91, 10)]
KEEP = {"conv1": torch.tensor([0, 3]), "conv2": torch.tensor([1, 2, 5])}


def test_it_measures_what_the_evaluator_tells(tiny):
    evaluator = Evaluator(tiny)
    keep = evaluator.keep(HALF)
    assert Measurement(tiny).measure(keep, 3) == evaluator.evaluate(HALF, 3)
    assert Measurement(tiny).measure_original() == evaluator.original
    assert evaluator.measurement.accuracies(evaluator.build(HALF, 3), tiny.validation) == [
        evaluator.evaluate(HALF, 3).accuracy
    ]


def test_it_pickles_without_the_test_split(tiny):
    measurement = Measurement(tiny)
    sent = pickle.dumps(measurement)
    assert pickle.loads(sent).measure(KEEP, 1) == measurement.measure(KEEP, 1)
    images = torch.randn(2000, 1, 8, 8)
    heavy = Task.from_network(
        tiny.network, tiny.train, tiny.validation, (images, torch.zeros(2000, dtype=torch.int64)), device="cpu"
    )
    assert len(pickle.dumps(Measurement(heavy, tiny.fidelity))) < len(sent) + 10_000 < images.nbytes


def test_a_question_by_hand(tiny):
    """Filters 0 and 3 of four are 1001, and 1, 2, 5 of six are 011001: bits from the left."""
    measurement = Measurement(tiny)
    question = measurement.question(KEEP, 7)
    assert question == Question((bytes([0b1001_0000]), bytes([0b0110_0100])), 7, 1)
    kept = measurement.kept(question)
    assert list(kept) == list(KEEP)
    assert all(torch.equal(kept[path], KEEP[path]) and kept[path].dtype == torch.int64 for path in KEEP)
    assert measurement.answer(question) == measurement.measure(KEEP, 7)


def test_every_accuracy_of_a_result_row_is_measured_in_one_way(tiny, monkeypatch):
    """Validation and test, pruned and original: by one function, as precisely as the fidelity says."""
    asked = []

    def spy(network, split, metric, precision):
        asked.append(precision)
        return 0.25 if split is tiny.validation else 0.75

    monkeypatch.setattr(measurement_module, "measure_metric", spy)
    evaluator = Evaluator(tiny, "l1", replace(tiny.fidelity, precision="bfloat16"))
    for row in (
        measure(evaluator, HALF, lambda outcome: outcome.accuracy, [1, 2]),
        measure_original(evaluator, lambda outcome: outcome.accuracy),
    ):
        assert (row["validation_accuracy"], row["test_accuracy"], row["reward"]) == (0.25, 0.75, 0.25)
    assert set(asked) == {"bfloat16"}


def test_what_is_auto_is_chosen_when_it_is_made(tiny):
    measurement = Measurement(tiny, Fidelity(precision="auto", kernels="auto"))
    assert (measurement.fidelity.precision, measurement.fidelity.kernels) == ("float32", "torch")


def test_latency_is_measured_if_asked_for(tiny):
    assert Measurement(tiny).measure(KEEP).latency is None
    assert Measurement(tiny, latency=LatencyMeter(min_run_time=0.01)).measure(KEEP).latency > 0


class Elsewhere:
    """An executor as somebody else might write one; what it does is done when the test says so."""

    def __init__(self):
        self.futures = {}

    def submit(self, measurement, questions):
        for question in questions:
            if len(self.futures) == 3:
                raise CannotSubmit("Three are enough.")
            self.futures[question] = Future()
            yield self.futures[question]

    def stop(self):
        pass


def test_a_memo_takes_answers_from_any_executor_and_does_the_rest_here(tiny, built):
    measurement, executor = Measurement(tiny), Elsewhere()
    memo = Memo(measurement, None)
    questions = [measurement.question(Evaluator(tiny).keep(plan), 0) for plan in PLANS[:5]]
    expected = [measurement.answer(question) for question in questions]
    built.clear()
    with pytest.warns(UserWarning, match="Three are enough. Plans are evaluated in this process"):
        answers = memo.many(questions, executor)
    first, second, third = executor.futures.values()
    first.set_result(expected[0])
    second.set_exception(ZeroDivisionError())
    assert next(answers) is expected[0]
    with pytest.raises(ZeroDivisionError):
        next(answers)
    assert third.cancelled()  # nobody waits for it any more
    assert not built
    assert list(memo.many(questions, Staff(Serial()))) == expected
    assert len(built) == 4


def test_a_memo_goes_on_when_its_executor_is_gone(tiny):
    measurement, executor = Measurement(tiny), Elsewhere()
    questions = [measurement.question(Evaluator(tiny).keep(plan), 0) for plan in PLANS[:3]]
    answers = Memo(measurement, None).many(questions, executor)
    for future in executor.futures.values():
        future.set_exception(BrokenExecutor())
    with pytest.warns(UserWarning, match="A worker was ended from outside"):
        assert list(answers) == [measurement.answer(question) for question in questions]


def test_plans_for_workers_hold_no_file_descriptors():
    """Nothing that grows with evaluations may: many machines allow a process 1,024."""
    with Evaluator(make_tiny_task()) as evaluator:
        evaluator.evaluate_many(PLANS, 0, workers=2)
        before = len(os.listdir("/proc/self/fd"))
        for seed in range(1, 11):
            evaluator.evaluate_many(PLANS, seed, workers=2)
        assert len(os.listdir("/proc/self/fd")) < before + 10  # the process itself may have opened one or two
