"""Measured times: recorded with their circumstances, and a reward."""

import pytest
import torch
from conftest import make_tiny_task
from torch import nn

import dsfp_env
from dsfp_env import Evaluator, InputError, LatencyMeter
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.rewards import accuracy_x_speed


def test_a_bigger_network_takes_longer():
    """100 times the multiply-adds: no machine is so noisy."""
    small, big = nn.Conv2d(8, 8, 3), nn.Conv2d(80, 80, 3)
    meter = LatencyMeter(batch_size=3, threads=1, min_run_time=0.05)
    latency = meter.measure(big.train(), torch.randn(2, 80, 32, 32))
    assert big.training
    assert latency.seconds > 2 * meter.measure(small, torch.randn(2, 8, 32, 32)).seconds > 0
    assert (latency.batch_size, latency.threads, latency.device) == (3, 1, "cpu")


def test_outcomes_have_a_latency_if_asked_for(tiny):
    plan = {"conv_0": 50.0, "conv_1": 50.0}
    assert Evaluator(tiny).evaluate(plan).latency is None
    evaluator = Evaluator(tiny, latency=LatencyMeter(min_run_time=0.01))
    outcome = evaluator.evaluate(plan)
    assert 0 < outcome.latency < 1
    assert evaluator.evaluate(plan) is outcome  # measured once
    assert evaluator.original.latency > 0


def test_the_reward_by_hand():
    """Three quarters of the time saved, at 80 % accuracy: 0.6."""
    rest = 1, 1.0, 1, 1.0, 1, {}, {}
    outcome, original = Outcome(0.8, *rest, latency=0.5), Outcome(0.9, *rest, latency=2.0)
    assert accuracy_x_speed(outcome, original) == pytest.approx(0.6)
    with pytest.raises(InputError, match=r"give the evaluator .* latency=dsfp_env.LatencyMeter\(\)"):
        accuracy_x_speed(Outcome(0.8, *rest), original)


def test_the_environment_measures_for_this_reward():
    env = dsfp_env.parallel_env(task=make_tiny_task("timed"), actions="levels", reward="accuracy_x_speed")
    env.reset(seed=0)
    _, rewards, _, _, infos = env.step({"conv_0": 4, "conv_1": 4})
    original, outcome = env.evaluator.original, env.evaluator.evaluate({"conv_0": 50.0, "conv_1": 50.0}, 0)
    assert rewards["conv_0"] == outcome.accuracy * (1 - outcome.latency / original.latency)
    assert "latency" not in infos["conv_0"]  # a time would differ between equal runs


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"threads": 0}, {"min_run_time": 0.0}])
def test_bad_settings_get_a_sentence(bad):
    with pytest.raises(InputError, match="LatencyMeter.* is 0.*: expected a .*number"):
        LatencyMeter(**bad)
