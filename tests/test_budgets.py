"""Budgets of parameters and of time: rewards, masks, observations, yardsticks, tables; the model of time."""

import itertools
import json

import gymnasium
import numpy as np
import pytest
import torch
from conftest import TinyNet, make_tiny_task
from tables import make_table

import dsfp_env
import train_agents
from agents.leaderboard.forms import parse_form
from agents.main_job import one_run
from agents.reporting.baselines import random_plans_of, uniform_plan_of
from agents.reporting.budget_options import LATENCY_MODEL
from dsfp_env import Evaluator, InputError, LatencyMeter, LatencyPredictor
from dsfp_env.common.files import cache_directory
from dsfp_env.evaluation.budgets import Budget, budget_from
from dsfp_env.evaluation.latency import Latency, parse_meter
from dsfp_env.evaluation.latency_features import LatencyFeatures
from dsfp_env.evaluation.latency_model import fit
from dsfp_env.evaluation.latency_predictor import random_keeps
from dsfp_env.evaluation.outcome import Outcome
from dsfp_env.evaluation.rewards import reward_function
from dsfp_env.testing import check_env

LEVELS = list(itertools.product(range(9), repeat=2))


def outcome(accuracy=0.8, macs=0.5, params=0.25, latency=None):
    return Outcome(accuracy, 100, macs, 100, params, 1, {}, {}, latency)


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """Times are a sum of widths; gives a list of the networks that were measured. No model is known."""
    measured = []

    def measure_many(self, networks, images):
        for network in networks:
            c1, c2 = network.conv1.out_channels, network.conv2.out_channels
            measured.append((c1, c2))
            yield Latency(1e-3 + 1e-4 * c1 * c2 + 2e-4 * c1, 1e-5, self.batch_size, self.threads, "cpu")

    monkeypatch.setattr(LatencyMeter, "measure_many", lambda *given: list(measure_many(*given)))
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path / "cache"))
    return measured


def test_budgets_in_words():
    assert budget_from(0.3) == Budget("macs", 0.3)
    assert budget_from(params_budget=0.3) == Budget("params", 0.3)
    assert budget_from(latency_budget=0.5) == budget_from(latency_budget="0.5") == Budget("latency", 0.5)
    assert budget_from(latency_budget="3.5ms") == Budget("latency", seconds=0.0035)
    assert budget_from(latency_budget=" 800 us").seconds == pytest.approx(8e-4)
    assert budget_from() is None


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"macs_budget": 0.3, "params_budget": 0.3}, "macs_budget and params_budget were given: expected one"),
        ({"params_budget": 1.5}, r"The parameters budget is 1.5: expected a fraction .* in \(0, 1\)"),
        ({"latency_budget": "fast"}, "'fast' cannot be read: expected a share .* such as 3.5ms"),
        ({"latency_budget": "1.2.3ms"}, "cannot be read"),
        ({"latency_budget": "0ms"}, "expected a time above 0"),
        ({"latency_budget": 2.0}, r"The time budget is 2.0: expected .* in \(0, 1\)"),
        ({"params_budget": "much"}, r"params_budget is 'much': expected a number in \(0, 1\)"),
    ],
)
def test_bad_budgets_get_a_sentence(tiny, given, sentence):
    with pytest.raises(InputError, match=sentence):
        dsfp_env.parallel_env(task=tiny, **given)


def test_the_reward_by_hand():
    """Of 0.2 of the parameters 0.25 are used: 0.8 * 0.2 / 0.25. Of 1 ms, 2 are used, and the original takes 4."""
    assert reward_function("budget", Budget("params", 0.2))(outcome(), outcome()) == pytest.approx(0.64)
    slow, fast = outcome(latency=0.004), outcome(latency=0.002)
    for budget in (Budget("latency", 0.25), Budget("latency", seconds=0.001)):
        assert reward_function("budget", budget)(fast, slow) == pytest.approx(0.4)
    assert reward_function("budget", Budget("latency", 0.6))(fast, slow) == 0.8  # within
    with pytest.raises(InputError, match=r"needs predicted times: .*LatencyPredictor"):
        reward_function("budget", Budget("latency", 0.2))(outcome(), outcome())


def test_features_by_hand(tiny):
    """8x8 images, 3x3 kernels, 4 and 6 filters, 3 classes: multiply-adds, what is written, read, and weights."""
    features = LatencyFeatures(tiny.graph)
    told = features.of(tiny.graph.alive({}))
    assert len(told) == features.count
    work = [4 * 1 * 9 * 64, 6 * 4 * 9 * 64, 3 * 6]
    assert told[:2].tolist() == [1, sum(work)] == [1, tiny.graph.costs().macs]
    rounded = [8 * 8 * 9 * 64, 8 * 8 * 9 * 64, 8 * 8]
    assert told[2] == sum(rounded)
    assert told[5] == 64 * 4 + 64 * 6 + 3
    assert told[9:11].tolist() == [64 * 1 + 64 * 4 + 6, 4 * 9 + 6 * 4 * 9 + 3 * 6]


def test_the_fit_finds_what_is_there_and_bears_disturbances(tiny):
    features = LatencyFeatures(tiny.graph)
    keeps = [{}, *random_keeps(tiny.graph, 59, np.random.default_rng(0))]
    told = np.stack([features.of(tiny.graph.alive(keep)) for keep in keeps])
    rng = np.random.default_rng(1)
    truth = 5e-5 + 2e-9 * told[:, 1] + 1e-8 * told[:, 5]
    seen = truth * rng.normal(1, 0.01, len(truth))
    seen[[7, 30, 44]] *= 10  # somebody else used the machine
    model = fit(told, seen, features.shared, (seen / 100).tolist())
    assert min(model.weights) >= 0
    assert np.abs(model.predict(told) / truth - 1).max() < 0.03
    assert 0.003 < model.median_error < 0.02
    assert model.error_90 < 0.05
    assert (model.measurements, model.spread) == (60, pytest.approx(0.01))
    noisy = fit(told, rng.permutation(seen), features.shared)
    assert noisy.error_90 > 5 * model.error_90  # it says so, where widths tell nothing


def test_predicted_times_never_rise_with_a_ratio(tiny, timed):
    evaluator = Evaluator(tiny, latency=LatencyPredictor(networks=20))
    times = {
        pair: evaluator.predicted_latency({"conv_0": 10.0 + 10 * pair[0], "conv_1": 10.0 + 10 * pair[1]})
        for pair in LEVELS
    }
    for first, second in LEVELS:
        assert times[first, second] <= min(times[max(first - 1, 0), second], times[first, max(second - 1, 0)])
    assert len(set(times.values())) > 5
    assert len(timed) == 21
    assert evaluator.original.latency == pytest.approx(1e-3 + 24e-4 + 8e-4, rel=0.1)
    assert evaluator.evaluate({"conv_0": 50.0, "conv_1": 50.0}).latency == times[4, 4]


def test_turns_within_a_time(tiny, timed):
    turns = dsfp_env.raw_env(
        task=tiny, actions="levels", latency_budget=0.6, latency=LatencyPredictor(networks=20), store=False
    )
    evaluator, costs = turns.parallel_env.evaluator, []
    turns.reset(seed=0)
    for _ in turns.order:
        seen, _, _, _, info = turns.last()
        costs.append(seen[-2:].tolist())  # at least, at most
        turns.step(int(np.flatnonzero(info["action_mask"])[0]))
    ratios = {agent: info["ratio"] for agent, info in turns.infos.items()}
    assert turns.infos["conv_0"]["relative_latency"] <= 0.6
    of_one = [
        evaluator.predicted_latency({"conv_0": ratios["conv_0"], "conv_1": other}) / evaluator.original.latency
        for other in (90.0, 10.0)
    ]
    assert costs[1] == pytest.approx(of_one)
    assert costs[1][0] <= 0.6 < costs[1][1]


def test_a_model_is_fitted_once_for_a_structure_and_a_deployment(tiny, timed):
    twin = make_tiny_task("of the same structure")
    with torch.no_grad():
        twin.network.head.bias.add_(1)
    first = Evaluator(tiny, latency=LatencyPredictor(networks=20)).measurement.predicted.model
    assert Evaluator(twin, latency=LatencyPredictor(networks=20)).measurement.predicted.model == first
    assert len(timed) == 21
    Evaluator(tiny, latency=LatencyPredictor(LatencyMeter(batch_size=8), networks=20))
    assert len(timed) == 42
    (one, other) = (cache_directory() / "latency").iterdir()
    for file in (one, other):
        file.write_text("{damaged")
    assert Evaluator(tiny, latency=LatencyPredictor(networks=20)).measurement.predicted.model == first
    assert len(timed) == 63
    with pytest.raises(InputError, match="was fitted to a network of this structure"):
        Evaluator(task_of_three_layers(), latency=LatencyPredictor(networks=20, model=first))


def task_of_three_layers():
    """A task of another structure: a third convolution."""
    network = TinyNet()
    network.conv2 = torch.nn.Sequential(torch.nn.Conv2d(4, 5, 1), torch.nn.Conv2d(5, 6, 3, padding=1))
    rng = torch.Generator().manual_seed(0)
    split = torch.randn(8, 1, 8, 8, generator=rng), torch.randint(3, (8,), generator=rng)
    return dsfp_env.Task.from_network(network, split, split, split, device="cpu")


BUDGETS = [{"params_budget": 0.3}, {"latency_budget": 0.6}, {"latency_budget": "2.5ms"}]


@pytest.mark.parametrize("given", BUDGETS, ids=str)
@pytest.mark.usefixtures("timed")
def test_masks_observations_and_infos(tiny, given):
    latency = LatencyPredictor(networks=20) if "latency_budget" in given else None
    env = dsfp_env.parallel_env(task=tiny, actions="levels", reward="budget", latency=latency, **given)
    evaluator, original = env.evaluator, env.evaluator.original

    def used(levels):
        plan = {f"conv_{i}": 10.0 + 10 * level for i, level in enumerate(levels)}
        if latency is None:
            return evaluator.costs(plan).params / original.params
        return evaluator.predicted_latency(plan) / original.latency

    share = 0.0025 / original.latency if given == BUDGETS[2] else next(iter(given.values()))
    assert env.allowed == pytest.approx(share)
    for first, second in LEVELS:  # in turn: exactly what is within
        can = env.action_mask("conv_0")[first] and env.action_mask("conv_1", {"conv_0": first})[second]
        assert bool(can) == (used((first, second)) <= env.allowed)
    rng, key = np.random.default_rng(0), f"relative_{env.budget.of}"
    for seed in range(10):  # at once: never beyond
        observations, infos = env.reset(seed=seed)
        assert infos["conv_0"][key] == 1
        assert observations["conv_0"][-2] == np.float32(share)  # the place of macs_budget
        assert env.state()[-2] == np.float32(share)
        drawn = {agent: int(rng.choice(np.flatnonzero(infos[agent]["action_mask"]))) for agent in env.agents}
        _, rewards, _, _, infos = env.step(drawn)
        assert infos["conv_0"][key] == pytest.approx(used(drawn.values()))
        assert infos["conv_0"][key] <= env.allowed
        assert rewards["conv_0"] == infos["conv_0"]["accuracy"]  # within the budget nothing is taken off
    check_env(env)


@pytest.mark.usefixtures("timed")
def test_what_cannot_be_kept_gets_a_sentence(tiny):
    predicted = LatencyPredictor(networks=20)
    with pytest.raises(InputError, match=r"budget is 90 ms, and the original network takes 4.* ms as it is"):
        dsfp_env.parallel_env(task=tiny, latency_budget="90ms", latency=predicted)
    with pytest.raises(
        InputError, match=r"The time budget is 0.01, but with every layer pruned by 90 % .* its time"
    ):
        dsfp_env.parallel_env(task=tiny, latency_budget=0.01, latency=predicted)
    with pytest.raises(InputError, match=r"The parameters budget is 0.001, but .* of its parameters"):
        dsfp_env.parallel_env(task=tiny, params_budget=0.001)
    with pytest.raises(InputError, match="needs predicted times, and the evaluator has none"):
        dsfp_env.parallel_env(evaluator=Evaluator(tiny), latency_budget=0.5)
    with pytest.raises(InputError, match="No times are predicted here"):
        Evaluator(tiny).predicted_latency({"conv_0": 50.0, "conv_1": 50.0})
    with pytest.raises(InputError, match="networks is 3: expected a whole number"):
        LatencyPredictor(networks=3)


@pytest.mark.parametrize("of", ["params", "latency"])
@pytest.mark.usefixtures("timed")
def test_yardsticks_at_equal_cost(tiny, of):
    evaluator = Evaluator(tiny, latency=LatencyPredictor(networks=20))
    cost = evaluator.predicted_latency if of == "latency" else lambda plan: evaluator.costs(plan).params
    wanted = cost({"conv_0": 30.0, "conv_1": 60.0})
    drawn = random_plans_of(evaluator, 10, wanted, np.random.default_rng(0), of)
    assert max(map(cost, drawn)) <= wanted
    assert len({tuple(plan.values()) for plan in drawn}) > 3
    near = abs(cost(uniform_plan_of(evaluator, wanted, of)) - wanted)
    assert near == min(abs(cost(dict.fromkeys(tiny.agents, r)) - wanted) for r in np.arange(10, 90.1, 0.5))


def test_tables_know_parameters_and_no_times(tmp_path):
    table = dsfp_env.load_table(make_table(tmp_path / "table"))
    budget = Budget("params", 0.4)
    scores = table.scores("budget", budget, 0)
    row = table.row_of({"conv_0": 10.0, "conv_1": 10.0})
    used = table.costs(row).params / table.original().params
    assert scores[row] == pytest.approx(table.accuracies(0)[row] * 0.4 / used)
    form = parse_form("budget(params_budget=0.4)")
    assert (table.optimum(form.reward, form.macs_budget, 0).score, budget) == (scores.max(), form.macs_budget)
    with pytest.raises(InputError, match="A table has no times, and latency_budget was given"):
        dsfp_env.parallel_env(task=table, backend="table", latency_budget=0.5)
    with pytest.raises(InputError, match="Did you mean 'params_budget'"):
        parse_form("budget(param_budget=0.4)")


def test_many_environments_over_a_table_are_as_one_of_each(tmp_path):
    table = dsfp_env.load_table(make_table(tmp_path / "table"))
    same = {"task": table, "actions": "levels", "reward": "budget", "params_budget": 0.4, "backend": "table"}
    many = gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=3, **same)
    each = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("dsfp/LayerPruning-v0", **same)] * 3)
    np.testing.assert_equal(many.reset(seed=5), each.reset(seed=5))
    rng = np.random.default_rng(0)
    for _ in range(4):
        actions = rng.integers(3, size=(3, 2))
        np.testing.assert_equal(many.step(actions), each.step(actions))


def test_a_meter_in_words_and_deployed():
    meter = parse_meter("batch_size=8, precision=bfloat16, channels_last=True, min_run_time=0.01, rounds=2")
    assert meter == LatencyMeter(8, 1, 0.01, "bfloat16", True, rounds=2)
    network = TinyNet().train()
    measured = meter.measure(network, torch.randn(3, 1, 8, 8))
    assert (measured.precision, measured.channels_last, measured.batch_size) == ("bfloat16", True, 8)
    assert 0 < measured.seconds < 1
    assert measured.blocks >= 2
    assert network.training
    assert network.conv1.weight.dtype == torch.float32
    fast = LatencyMeter(min_run_time=0.01, statistic="minimum", rounds=2)
    slow = LatencyMeter(min_run_time=0.01, rounds=2)
    assert (
        fast.measure(network, torch.randn(3, 1, 8, 8)).seconds
        < 3 * slow.measure(network, torch.randn(3, 1, 8, 8)).seconds
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("bach_size=8", "Did you mean 'batch_size'"),
        ("batch_size=big", "The batch_size of a deployment came as 'big': expected a int"),
        ("precision=float8", "Unknown precision 'float8'"),
        ("rounds=0", "rounds is 0: expected a whole number 1 or more"),
        ("(", "cannot be read"),
    ],
)
def test_bad_deployments_get_a_sentence(text, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_meter(text)


def settings(**given):
    few = {"evaluations": 4, "criterion": "l1", "device": "cpu", "workers": 1, "task": "tiny_tasks:tiny"}
    return train_agents.RunSettings(**{**few, "latency_networks": 20, "latency_budget": "2.5ms", **given})


def test_a_run_tells_predicted_and_measured_times(tmp_path, timed, monkeypatch, capsys):
    """And it goes on with the model that it began with."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(one_run, "measure_original", stop)
        with pytest.raises(KeyboardInterrupt):
            train_agents.train(settings(out=str(out)))
    assert len(timed) == 21
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path / "another"))
    train_agents.train(settings(out=str(out)))
    result = json.loads((out / "result.json").read_text())
    entries = [result[name] for name in ("original", "best", "greedy")] + list(result["baselines"].values())
    different = {tuple(entry["ratios"].values()) for entry in entries}
    assert len(timed) == 21 + len(different)  # nothing is fitted anew; the final ones are measured
    assert result["original"]["measured_latency"] == pytest.approx(4.2e-3)
    assert result["best"]["predicted_latency"] <= 2.5e-3
    assert abs(result["best"]["measured_latency"] / result["best"]["predicted_latency"] - 1) < 0.2
    assert {"random_search_equal_latency", "uniform"} <= set(result["baselines"])
    about = result["latency_model"]
    assert about["measurements"] == 21
    assert 0 <= about["median_error"] <= about["error_90"] < 0.2
    assert "ms of a forward pass" in capsys.readouterr().out
    assert (out / LATENCY_MODEL).exists()


def stop(*given):
    raise KeyboardInterrupt


def test_a_deployment_without_a_budget_of_time_is_refused():
    with pytest.raises(InputError, match="expected a --latency-budget with it"):
        train_agents.train(settings(latency_budget=None, deployed="threads=2"))
