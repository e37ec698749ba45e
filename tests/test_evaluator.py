"""An evaluation is a pure function; equal questions are not computed twice; workers change nothing."""

import pickle
import random

import pytest
import torch
from conftest import make_tiny_task

from dsfp_env import Evaluator, InputError
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.training.accuracy import compute_logits, measure_accuracy

HALF = {"conv_0": 50.0, "conv_1": 50.0}


def test_outcome_by_hand(tiny):
    evaluator = Evaluator(tiny, "l1")
    outcome = evaluator.evaluate(HALF)
    assert outcome.filters_kept == {"conv_0": 2, "conv_1": 3}
    assert outcome.applied_ratios == {"conv_0": 50.0, "conv_1": 50.0}
    assert outcome.filters == 5
    assert outcome.macs == 64 * 9 * (2 + 2 * 3) + 3 * 3
    assert outcome.relative_macs == outcome.macs / (64 * 9 * (4 + 4 * 6) + 6 * 3)
    assert outcome.params == 9 * (2 + 2 * 3) + 2 * 5 + 3 * 3 + 3
    assert outcome.accuracy == measure_accuracy(evaluator.build(HALF), tiny.validation)
    assert evaluator.costs(HALF).macs == outcome.macs
    assert evaluator.original.relative_macs == evaluator.original.relative_params == 1
    assert evaluator.original.accuracy == measure_accuracy(tiny.network, tiny.validation)


def test_an_evaluation_depends_on_its_arguments_alone(tiny):
    """Not on the order, the global generators, or what was asked before."""
    plans = [HALF, {"conv_0": 10.0, "conv_1": 90.0}, {"conv_0": 75.0, "conv_1": 25.0}]
    forwards, backwards = Evaluator(tiny), Evaluator(tiny)
    first = [forwards.evaluate(plan, seed) for plan in plans for seed in (0, 1)]
    torch.manual_seed(123)
    random.seed(5)
    second = [backwards.evaluate(plan, seed) for plan in plans[::-1] for seed in (1, 0)][::-1]
    assert first == second
    logits = [compute_logits(Evaluator(tiny).build(HALF, 3), tiny.test.images) for _ in range(2)]
    assert torch.equal(*logits)
    assert not torch.equal(logits[0], compute_logits(Evaluator(tiny).build(HALF, 4), tiny.test.images))


def test_equal_kept_filters_are_evaluated_once(tiny, monkeypatch):
    evaluator = Evaluator(tiny)
    outcome = evaluator.evaluate(HALF)
    monkeypatch.setattr(Measurement, "build", None)
    assert evaluator.evaluate({"conv_0": 51.0, "conv_1": 49.0}) is outcome  # the same filters stay
    with pytest.raises(TypeError):
        evaluator.evaluate(HALF, seed=1)


def test_the_task_is_unchanged(tiny):
    before = {name: tensor.clone() for name, tensor in tiny.network.state_dict().items()}
    Evaluator(tiny).evaluate(HALF)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.network.state_dict().items())
    assert not tiny.network.training


def test_an_evaluator_pickles(tiny):
    evaluator = Evaluator(tiny)
    assert pickle.loads(pickle.dumps(evaluator)).evaluate(HALF) == evaluator.evaluate(HALF)


@pytest.mark.parametrize("ratio", [9.0, 91.0, float("nan"), "50", None])
def test_bad_ratios_get_a_sentence(tiny, ratio):
    with pytest.raises(InputError, match="The pruning ratio of conv_1 is"):
        Evaluator(tiny).evaluate({"conv_0": 50.0, "conv_1": ratio})


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_callers_gradient_mode_does_not_matter(mode):
    """TorchRL, for one, steps environments without gradients."""
    plan = {"conv_0": 50.0, "conv_1": 30.0}
    expected, task = Evaluator(make_tiny_task()).evaluate(plan, seed=0), make_tiny_task()
    with mode():
        evaluator = Evaluator(task)
        assert evaluator.evaluate(plan, seed=0) == expected
    assert evaluator.evaluate(plan, seed=1) == Evaluator(make_tiny_task()).evaluate(plan, seed=1)
    assert all(parameter.requires_grad for parameter in evaluator.build(plan).parameters())
