"""Every joint action at one budget: by hand on two layers of 4 and 6 filters, and in every kind of environment."""

import copy
import json
import pickle

import gymnasium
import numpy as np
import pytest
import torch
from conftest import make_tiny_task

import agents
import dsfp_env
import train_agents
from agents.registry import choose_agent
from dsfp_env import AtBudget, Evaluator, Fidelity, InputError, SurrogateEvaluator, TableEvaluator
from dsfp_env.evaluation.at_budget import brought_to
from dsfp_env.tasks.layer_control import Decider
from dsfp_env.wrappers import ParallelVecEnv

SHAPES = {"conv1": 4, "conv2": 6}


def known(evidence):
    return {path: torch.arange(filters, dtype=torch.float64) for path, filters in SHAPES.items()}


@pytest.fixture(scope="module")
def evaluator():
    return Evaluator(make_tiny_task(), known, Fidelity(batches=1, recalibration_images=8), store=False)


def macs(first, second):
    """Of 8x8 images: 3x3 kernels from 1 to `first` to `second` filters, and a head for 3 classes."""
    return 64 * 9 * (first + first * second) + 3 * second


def test_one_number_is_added_to_all_ratios_within_their_bounds():
    deciders = {"a": Decider(("a",)), "b": Decider(("b",), 10.0, 40.0)}

    def cost(plan):
        return 200 - plan["a"] - plan["b"]

    found = brought_to(deciders, {"a": 20.0, "b": 30.0}, cost, 130)
    assert found == pytest.approx({"a": 30.0, "b": 40.0}, abs=0.16)  # 10 are added to both
    found = brought_to(deciders, {"a": 20.0, "b": 30.0}, cost, 100)
    assert found == pytest.approx({"a": 60.0, "b": 40.0}, abs=0.16)  # the second has come to its bound
    found = brought_to(deciders, {"a": 80.0, "b": 40.0}, cost, 110)
    assert found == pytest.approx({"a": 65.0, "b": 25.0}, abs=0.16)  # and less is pruned where there is room
    assert brought_to(deciders, {"a": 10.0, "b": 10.0}, cost, 0) == {"a": 90.0, "b": 40.0}  # not to be met


def test_all_plans_cost_the_same_to_within_a_filter(evaluator):
    filling, allowed = AtBudget(evaluator, 0.5), 0.5 * macs(4, 6)
    rng = np.random.default_rng(0)
    for first, second in rng.uniform(10, 90, (50, 2)):
        plan = {"conv_0": float(first), "conv_1": float(second)}
        one, other = (len(kept) for kept in filling.keep(plan).values())
        assert filling.costs(plan) == evaluator.costs(filling.filled(plan))
        assert filling.costs(plan).macs == macs(one, other) <= allowed
        more = [macs(one + 1, other)] * (one < 4) + [macs(one, other + 1)] * (other < 6)
        assert max(more) > allowed
        filled = filling.filled(plan)
        if all(10 < ratio < 90 for ratio in filled.values()):
            assert filled["conv_1"] - filled["conv_0"] == pytest.approx(second - first)


def test_plans_that_differ_in_what_is_pruned_in_all_are_one(evaluator):
    filling = AtBudget(evaluator, 0.5)
    little, much = filling.keep({"conv_0": 10.0, "conv_1": 20.0}), filling.keep({"conv_0": 70.0, "conv_1": 80.0})
    assert {path: kept.tolist() for path, kept in little.items()} == {
        path: kept.tolist() for path, kept in much.items()
    }


def test_outcomes_are_those_of_the_filled_plan(evaluator):
    filling, plans = AtBudget(evaluator, 0.4), [{"conv_0": 20.0, "conv_1": 80.0}, {"conv_0": 80.0, "conv_1": 20.0}]
    filled = [filling.filled(plan) for plan in plans]
    assert filling.evaluate(plans[0], 3) == evaluator.evaluate(filled[0], 3)
    assert filling.evaluate_many(plans, 3, 1) == evaluator.evaluate_many(filled, 3, 1)
    assert list(filling.start_many(plans, [3, 4], 1)) == evaluator.evaluate_many(filled, [3, 4], 1)
    weights = filling.build(plans[0], 3).state_dict()
    assert all(torch.equal(weights[k], v) for k, v in evaluator.build(filled[0], 3).state_dict().items())
    assert filling.measure_splits() == evaluator.measure_splits()
    assert filling.measure_splits(plans[1], seed=3) == evaluator.measure_splits(filled[1], 3)
    assert filling.scores is evaluator.scores
    assert (filling.task, filling.original) == (evaluator.task, evaluator.original)


@pytest.mark.parametrize("actions", ["box", "levels"])
def test_an_environment_at_its_budget(evaluator, actions):
    env = dsfp_env.parallel_env(
        evaluator=evaluator, actions=actions, reward="budget", macs_budget=0.5, fill_budget=True, seed=0
    )
    _, infos = env.reset()
    assert "action_mask" not in infos["conv_0"]
    first = np.array([25.0], np.float32) if actions == "box" else 1
    _, rewards, _, _, infos = env.step(dict.fromkeys(env.agents, first))
    info = infos["conv_0"]
    assert 0.3 < info["relative_macs"] <= 0.5
    assert rewards["conv_0"] == info["score"] == info["accuracy"]
    chosen = 25.0 if actions == "box" else 20.0
    plan = {agent: info["ratio"] for agent, info in infos.items()}
    assert plan == env.at_budget.filled(dict.fromkeys(plan, chosen))
    assert info["applied_ratio"] == 50.0  # 2 of 4
    assert evaluator.costs(plan).macs == info["macs"]
    if actions == "levels":
        assert env.action_mask("conv_1", {"conv_0": 0}).all()
    twin = copy.deepcopy(env)
    assert twin.evaluator is env.evaluator
    assert twin.reset(seed=1)[0].keys() == env.reset(seed=1)[0].keys()


def test_an_environment_that_makes_its_evaluator_goes_through_pickle():
    env = dsfp_env.parallel_env(
        "digits", "levels", "budget", 0.1, backend="table", fill_budget=True, agents_per="layer", seed=2
    )
    env.reset()
    _, rewards, *_ = env.step(dict.fromkeys(env.agents, 0))
    again = pickle.loads(pickle.dumps(env))
    assert isinstance(again.evaluator, TableEvaluator)
    assert isinstance(again.at_budget, AtBudget)
    again.reset()
    assert again.step(dict.fromkeys(again.agents, 0))[1] == rewards
    filling = AtBudget(TableEvaluator(dsfp_env.load_table("digits")), 0.1)
    plan = dict.fromkeys(env.possible_agents, 50.0)
    assert pickle.loads(pickle.dumps(filling)).filled(plan) == filling.filled(plan)


def test_learners_use_their_evaluations_on_what_the_budget_allows():
    """On the model of ResNet-20: without it, what is worth most by the reward is far beyond a quarter."""
    evaluator = SurrogateEvaluator(dsfp_env.load_surrogate("resnet20"))
    found = {}
    for fill in (False, True):
        env = dsfp_env.parallel_env(
            evaluator=evaluator, reward="budget", macs_budget=0.25, fill_budget=fill, seed=0
        )
        history = agents.train(env, choose_agent("regression_bandit").make(env, 0, 60), 60, seed=0)
        found[fill] = [evaluation.infos["conv_0"]["relative_macs"] for evaluation in history]
    assert max(found[True]) <= 0.25
    assert min(found[True]) > 0.23
    assert max(found[False]) > 0.4


def test_what_cannot_be_filled_is_refused(evaluator):
    with pytest.raises(InputError, match="No budget was given: expected macs_budget"):
        AtBudget(evaluator)
    with pytest.raises(InputError, match="No budget was given"):
        dsfp_env.parallel_env(evaluator=evaluator, fill_budget=True)
    with pytest.raises(InputError, match=r"MACs, and with every layer .* expected a budget"):
        AtBudget(evaluator, 0.001)
    with pytest.raises(InputError, match="one budget, the one that binds"):
        AtBudget(evaluator, 0.5, params_budget=0.5)
    filling = AtBudget(evaluator, params_budget=0.5)
    assert filling.costs({"conv_0": 10.0, "conv_1": 10.0}).params <= evaluator.original.params / 2
    with pytest.raises(InputError, match="conv_1 missing"):
        filling.evaluate({"conv_0": 50.0})
    for other in (None, "digits", dsfp_env.load_table("digits"), Evaluator):
        with pytest.raises(InputError, match=r"The evaluator is of type .*: expected a dsfp_env.Evaluator"):
            AtBudget(other, 0.5)
    with pytest.raises(InputError, match="latency"):
        AtBudget(evaluator, latency_budget=0.5)
    with pytest.raises(AttributeError, match="nonsense"):
        filling.nonsense  # noqa: B018


@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize(("task", "backend"), [("resnet20", "surrogate"), ("digits", "table")])
def test_many_at_once_are_as_each_alone(task, backend, actions):
    game = {"task": task, "backend": backend, "actions": actions, "reward": "budget", "macs_budget": 0.25}
    many = gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=5, fill_budget=True, **game)
    many.reset(seed=3)
    many.action_space.seed(1)
    chosen = many.action_space.sample()
    seen, rewards, *_, infos = many.step(chosen)
    assert "action_mask" not in infos
    assert infos["relative_macs"].max() <= 0.25
    assert many.unwrapped.relative_cost(many.unwrapped._ratios) == pytest.approx(infos["relative_macs"])
    for place in range(5):
        alone = gymnasium.make("dsfp/LayerPruning-v0", fill_budget=True, **game)
        alone.reset(seed=3 + place)
        observation, reward, *_, info = alone.step(chosen[place])
        assert np.array_equal(observation, seen[place])
        assert info["conv_0"]["ratio"] == infos["conv_0"]["ratio"][place]
        assert (reward, info["relative_macs"]) == (rewards[place], infos["relative_macs"][place])


def test_many_that_decide_in_turn_are_as_each_alone():
    game = {"task": "digits", "backend": "table", "actions": "levels", "reward": "budget", "macs_budget": 0.25}
    game["horizon"] = 2
    many = gymnasium.make_vec("dsfp/LayerByLayer-v0", num_envs=3, fill_budget=True, **game)
    singles = [gymnasium.make("dsfp/LayerByLayer-v0", fill_budget=True, **game) for _ in range(3)]
    seen, _ = many.reset(seed=3)
    assert np.array_equal(seen, [env.reset(seed=3 + place)[0] for place, env in enumerate(singles)])
    many.action_space.seed(1)
    for _ in range(8):
        chosen = many.action_space.sample()
        seen, rewards, *_, infos = many.step(chosen)
        assert infos["action_mask"].all()
        alone = [env.step(one) for env, one in zip(singles, chosen, strict=True)]
        assert np.array_equal(seen, [one[0] for one in alone])
        assert rewards.tolist() == [one[1] for one in alone]
    assert infos["relative_macs"].max() <= 0.25


def test_many_live_ones_share_an_evaluator(evaluator):
    many = gymnasium.make_vec(
        "dsfp/LayerPruning-v0", num_envs=2, evaluator=evaluator, reward="budget", macs_budget=0.5, fill_budget=True
    )
    many.reset(seed=0)
    _, _, _, _, infos = many.step(np.zeros((2, 2), np.float32))
    assert infos["relative_macs"].max() <= 0.5
    filling = AtBudget(evaluator, 0.5)
    with filling as same:
        same.workers = 1
    assert evaluator.workers == 1
    evaluator.workers = None


@pytest.mark.parametrize("budget", [0.1, 0.25, 0.9, 0.99])
def test_what_is_filled_stays_as_it_is(budget):
    filling = AtBudget(SurrogateEvaluator(dsfp_env.load_surrogate("resnet20")), budget)
    rng, found = np.random.default_rng(1), set()
    for ratios in rng.uniform(10, 90, (30, 19)).tolist():
        filled = filling.filled(dict(zip(filling.task.agents, ratios, strict=True)))
        assert filling.filled(filled) == filled
        found.add(tuple(filled.values()))
    assert (found == {(10.0,) * 19}) == (budget > 0.5)  # which the least that can be pruned meets


def test_credit_compares_what_is_chosen_at_the_budget(evaluator):
    env = dsfp_env.parallel_env(
        evaluator=evaluator, reward="budget", macs_budget=0.5, fill_budget=True, credit="difference", seed=0
    )
    chosen = {"conv_0": 20.0, "conv_1": 80.0}
    expected = [chosen, {**chosen, "conv_0": 50.0}, {**chosen, "conv_1": 50.0}]
    assert env.plans_of(chosen) == [env.at_budget.filled(plan) for plan in expected]
    env.reset()
    _, rewards, *_, infos = env.step({agent: np.array([ratio]) for agent, ratio in chosen.items()})
    score, _, without = (evaluator.evaluate(plan, 0).accuracy for plan in env.plans_of(chosen))
    assert rewards["conv_1"] == infos["conv_1"]["credit"] == score - without
    env.reset()
    infos = env.step({agent: np.array([50.0]) for agent in chosen})[4]  # all choose what is compared with
    assert [infos["conv_0"][key] for key in ("credit", "evaluations")] == [0.0, 1]


def test_an_environment_takes_over_the_budget_of_its_evaluator():
    evaluator = SurrogateEvaluator(dsfp_env.load_surrogate("resnet20"))
    filling = AtBudget(evaluator, params_budget=0.3)
    env = dsfp_env.parallel_env(evaluator=filling, backend="surrogate", reward="budget", seed=0)
    assert (env.evaluator, env.budget, env.allowed) == (evaluator, filling.budget, 0.3)
    many = gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=2, backend="surrogate", evaluator=filling)
    many.reset(seed=0)
    infos = many.step(np.zeros((2, 19), np.float32))[4]
    assert (infos["relative_params"] > 0.25).all()
    assert (infos["relative_params"] <= 0.3).all()
    for other in ({"macs_budget": 0.3}, {"params_budget": 0.2}):
        with pytest.raises(InputError, match="expected the same, or the evaluator within it"):
            dsfp_env.parallel_env(evaluator=filling, reward="budget", **other)
    with pytest.raises(InputError, match="already: give the one within it"):
        AtBudget(filling, 0.2)


def test_environments_that_fill_share_an_evaluator(evaluator):
    game = {"evaluator": evaluator, "reward": "budget", "macs_budget": 0.5, "fill_budget": True}
    env = ParallelVecEnv([dsfp_env.parallel_env(**game) for _ in range(2)])
    env.reset()
    infos = env.step(np.zeros((4, 1), np.float32))[3]
    assert all(info["relative_macs"] <= 0.5 for info in infos)


def test_what_costs_may_be_in_turn_is_before_the_budget(evaluator):
    env = dsfp_env.parallel_env(evaluator=evaluator, reward="budget", macs_budget=0.5, fill_budget=True)
    least, most = env.cost_range({"conv_0": 10.0})
    assert (least, most) == pytest.approx((macs(4, 1) / macs(4, 6), macs(4, 5) / macs(4, 6)))


def test_a_run_at_its_budget(tmp_path):
    few = {"evaluations": 20, "criteria": "l1, l2", "device": "cpu", "workers": 1, "task": "tiny_tasks:tiny"}
    asked = train_agents.RunSettings(
        **few, agent="ucb1", credit="difference", macs_budget=0.5, fill_budget=True, out=str(tmp_path / "run")
    )
    train_agents.train(asked)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["fill_budget"] is True
    entries = [result["best"], result["greedy"], result["baselines"]["random_search"]]
    assert all(0.3 < entry["relative_macs"] <= 0.5 for entry in entries)
    with pytest.raises(InputError, match="--fill-budget brings joint actions to a budget: expected one with it"):
        train_agents.train(train_agents.RunSettings(**few, fill_budget=True, out=str(tmp_path / "no")))
    assert not (tmp_path / "no").exists()
