"""Rules of the literature that give every layer its share: by hand on two layers of 4 and 6 filters."""

import math

import numpy as np
import pytest
import torch
from conftest import make_tiny_task

import dsfp_env
from dsfp_env import Evaluator, InputError, allocate
from dsfp_env.evaluation.allocation import RULES, of_sweep, path_of, sweep_of

SCORES = {  # brought to [0, 1]: 0 .2 .8 1, and 0 .1 .2 .3 .4 1
    "conv1": [0.0, 2.0, 8.0, 10.0],
    "conv2": [1.0, 1.1, 1.2, 1.3, 1.4, 2.0],
}


def known(evidence):
    return {path: torch.tensor(scores, dtype=torch.float64) for path, scores in SCORES.items()}


@pytest.fixture(scope="module")
def evaluator():
    return Evaluator(make_tiny_task(), known, store=False)


def macs(first, second):
    """Of 8x8 images: 3x3 kernels from 1 to `first` to `second` filters, and a head for 3 classes."""
    return 64 * 9 * (first + first * second) + 3 * second


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("budget", [0.7, 0.5, 0.25, 0.15])
def test_a_budget_is_met_to_within_one_filter(evaluator, rule, budget):
    plan = allocate(evaluator, rule, macs_budget=budget)
    assert all(10 <= ratio <= 90 for ratio in plan.values())
    first, second = (len(kept) for kept in evaluator.keep(plan).values())
    allowed = budget * macs(4, 6)
    assert evaluator.costs(plan).macs == macs(first, second) <= allowed
    assert max(macs(first + 1, second), macs(first, second + 1)) > allowed


@pytest.mark.parametrize("rule", RULES)
def test_an_action_says_the_plan_of_a_rule_exactly(evaluator, rule):
    """Actions are float32, and the plan lies where a layer of 4 or 6 filters just loses one."""
    for budget in np.linspace(0.1, 0.8, 29):
        plan = allocate(evaluator, rule, macs_budget=float(budget))
        assert plan == {agent: float(np.float32(ratio)) for agent, ratio in plan.items()}
        assert evaluator.costs(plan).macs <= budget * macs(4, 6)


def test_uniform_is_one_ratio(evaluator):
    first, second = allocate(evaluator, "uniform", macs_budget=0.5).values()
    assert first == pytest.approx(second, abs=1e-6)
    # Of 3 and 4 filters more than half is left. At 37.5 % the first layer loses its second filter.
    assert first == pytest.approx(37.5)
    assert macs(2, 4) / macs(4, 6) < 0.5 < macs(3, 4) / macs(4, 6)


def test_erk_keeps_shares_in_proportion_to_the_sum_of_sides_over_their_product(evaluator):
    shares = [(1 + 4 + 3 + 3) / (1 * 4 * 3 * 3), (4 + 6 + 3 + 3) / (4 * 6 * 3 * 3)]  # 0.306 and 0.074
    plan = path_of(evaluator, "erk")(0.8)
    # At 0.8 the layer of the lower share keeps 20 %, the other in proportion 82.5 %.
    assert plan == pytest.approx({"conv_0": 100 - 20 * shares[0] / shares[1], "conv_1": 80.0})
    assert plan["conv_0"] == pytest.approx(17.5)
    assert path_of(evaluator, "erk")(0.5) == {"conv_0": 10.0, "conv_1": 50.0}  # the first would keep all


def test_one_threshold_for_all_scores(evaluator):
    # In order: 0 0 .1 .2 .2 .3 .4 .8 1 1. Of ten filters the sixth is .3: two of four and three of six are below.
    assert path_of(evaluator, "global_ranking")(0.55) == {"conv_0": 50.0, "conv_1": 50.0}
    # The eighth is .8: two of four, five of six.
    assert path_of(evaluator, "global_ranking")(0.75) == pytest.approx({"conv_0": 50.0, "conv_1": 500 / 6})
    # By their norms the first layer's are 0 .15 .62 .77, the second's .30 .33 .36 .39 .42 .59: six are below .42.
    norms = [math.sqrt(sum(score**2 for score in scores)) for scores in SCORES.values()]
    assert norms == pytest.approx([12.961, 3.362], abs=1e-3)
    l2 = path_of(evaluator, "global_ranking(normalisation=l2)")
    assert l2(0.65) == pytest.approx({"conv_0": 50.0, "conv_1": 400 / 6})
    assert l2(0.25) == {"conv_0": 50.0, "conv_1": 10.0}


def test_layers_lose_what_costs_the_same_accuracy(evaluator):
    (whole,) = evaluator.measurement.accuracies(evaluator.task.network, evaluator.task.validation)
    falls = {"conv_0": [0.04 * step for step in range(1, 10)], "conv_1": [0.0] * 8 + [0.18]}
    sweep = {agent: [whole - fall for fall in of_one] for agent, of_one in falls.items()}
    path = of_sweep(evaluator, sweep)
    # Half of the largest fall (0.36) is 0.18: the first layer's at 45 %, the second's at 90.
    assert path(0.5) == pytest.approx({"conv_0": 45.0, "conv_1": 90.0}, abs=0.01)
    # A fall of 0.09: 22.5 %, and half the way from 80 to 90 %.
    assert path(0.25) == pytest.approx({"conv_0": 22.5, "conv_1": 85.0}, abs=0.01)


def test_a_sweep_prunes_one_layer_at_a_time_and_trains_nothing(evaluator):
    task = evaluator.task
    sweep = sweep_of(evaluator)
    keep = task.graph.keep({"conv2": 0.5}, evaluator.scores)
    (expected,) = evaluator.measurement.accuracies(task.graph.slim(task.network, keep), task.validation)
    assert sweep["conv_1"][4] == expected
    assert {agent: len(of_one) for agent, of_one in sweep.items()} == {"conv_0": 9, "conv_1": 9}
    plans = [allocate(evaluator, "sensitivity", macs_budget=0.3, sweep=given) for given in (None, sweep)]
    assert plans[0] == plans[1]


def test_coupled_layers_are_swept_together():
    torch.manual_seed(0)
    images, labels = torch.randn(20, 3, 8, 8), torch.arange(20) % 10
    network = dsfp_env.networks.make_network("resnet20", 10)
    task = dsfp_env.Task.from_network(network, *[(images, labels)] * 3, device="cpu")
    assert task.coupled_agents["conv_0"]
    sweep = sweep_of(Evaluator(task, "l1", store=False))
    for agent, others in task.coupled_agents.items():
        assert all(sweep[other] == sweep[agent] for other in others)


def test_bounds_and_layers_that_are_left_alone_hold(evaluator):
    task = evaluator.task.with_layers({"conv_0": (20, 30)})
    plan = allocate(Evaluator(task, "l1", store=False), "uniform", macs_budget=0.3)
    assert plan["conv_0"] == 30
    assert plan["conv_1"] > 30
    kept = Evaluator(evaluator.task.with_layers({"conv_0": None}), "l1", store=False)
    assert list(allocate(kept, "erk", macs_budget=0.5)) == ["conv_1"]


def test_the_budget_that_a_refusal_names_can_be_met(evaluator):
    with pytest.raises(InputError) as refusal:
        allocate(evaluator, "uniform", macs_budget=0.001)
    least = float(str(refusal.value).split("expected a budget of ")[1].split()[0])
    allocate(evaluator, "uniform", macs_budget=least)


def test_what_cannot_be_is_said(evaluator):
    for rule, budget, sentence in (
        ("lamp", 0.5, "Unknown rule 'lamp'"),
        ("erk(power=2)", 0.5, "takes no options"),
        ("global_ranking(normalisation=max)", 0.5, "'normalisation': 'max'. Did you mean 'minmax'"),
        ("uniform", 1.5, r"macs_budget is 1\.5: expected a share"),
        ("uniform", 0.01, r"macs_budget is 0\.01: pruned by the rule 'uniform' as far as bounds allow"),
    ):
        with pytest.raises(InputError, match=sentence):
            allocate(evaluator, rule, macs_budget=budget)
    nine = [0.5] * 9
    for sweep in (
        {},
        5,
        {"conv_0": nine},
        {"conv_0": nine, "conv_1": nine[1:]},
        {"conv_0": nine, "conv_1": ["a"] * 9},
    ):
        with pytest.raises(InputError, match="The sweep says .* of conv_[01]: expected what sweep_of told"):
            allocate(evaluator, "sensitivity", macs_budget=0.5, sweep=sweep)
    with pytest.raises(InputError, match="expected a dsfp_env.Evaluator"):
        allocate(evaluator.task, "uniform", macs_budget=0.5)
