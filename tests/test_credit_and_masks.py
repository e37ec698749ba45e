"""Credit: whose merit a score is. Masks: a budget of MACs as levels that may be chosen."""

import itertools

import gymnasium
import numpy as np
import pytest

import agents
import dsfp_env
from agents.registry import choose_agent
from agents.reporting.baselines import masked_random_plans
from dsfp_env import InputError
from dsfp_env.environment.credit import compared_plans, credits, default_plan
from dsfp_env.environment.masks import BudgetMasks
from dsfp_env.tasks.layer_control import Decider
from dsfp_env.tasks.ratios import LEVELS
from dsfp_env.toy import ToyEnv
from dsfp_env.wrappers import JointActionEnv, step_together

AGENTS = ("a", "b")


def mean_kept(plan):
    return 1 - sum(plan.values()) / len(plan) / 100


def test_difference_by_hand():
    """The score is 0.6; with 50 % in place of a's ratio it is 0.5, in place of b's 0.8; c chose 50 % itself."""
    plan = {"a": 20.0, "b": 90.0, "c": 50.0}
    default = default_plan({agent: Decider((agent,)) for agent in plan})
    assert default == dict.fromkeys("abc", 50.0)
    assert compared_plans(plan, "difference", default) == [{**plan, "a": 50.0}, {**plan, "b": 50.0}]
    told = credits(plan, "difference", 0.6, [0.5, 0.8], default)
    assert told == pytest.approx({"a": 0.1, "b": -0.2, "c": 0.0})
    assert compared_plans(plan, "shared", default) == []
    assert credits(plan, "shared", 0.6, [], default) == dict.fromkeys("abc", 0.6)


@pytest.mark.parametrize("horizon", [1, 2])
def test_difference_rewards_in_the_environment(tiny, horizon):
    env = dsfp_env.parallel_env(task=tiny, horizon=horizon, credit="difference", seed=3)
    assert env.evaluations_per_step == 3
    infos = env.reset()[1]
    assert [info["evaluations"] for info in infos.values()] == [0, 0]
    returns = dict.fromkeys(env.agents, 0.0)
    for first in (80.0, 20.0)[-horizon:]:
        _, rewards, _, _, infos = env.step({"conv_0": first, "conv_1": 50.0})
        returns = {agent: returns[agent] + reward for agent, reward in rewards.items()}
    assert infos["conv_0"]["evaluations"] == 2  # 50 % needs no comparison with itself

    def score(ratio):
        return env.score(dsfp_env.Evaluator(tiny).evaluate({"conv_0": ratio, "conv_1": 50.0}, seed=3))

    assert infos["conv_0"]["score"] == score(20.0)
    assert returns == pytest.approx({"conv_0": score(20.0) - score(50.0), "conv_1": 0.0})
    assert infos["conv_0"]["credit"] == pytest.approx(returns["conv_0"])


def test_difference_credit_is_evaluated_together_too(tiny):
    def envs():
        first = dsfp_env.parallel_env(task=tiny, actions="levels", credit="difference", seed=0)
        return [first, dsfp_env.parallel_env(evaluator=first.evaluator, actions="levels", seed=1)]

    ours, theirs = envs(), envs()
    joint = [{"conv_0": 1, "conv_1": 8}, {"conv_0": 7, "conv_1": 0}]
    for env in (*ours, *theirs):
        env.reset()
    together = step_together(ours, joint, workers=1)
    np.testing.assert_equal(together, [env.step(one) for env, one in zip(theirs, joint, strict=True)])


def test_a_budget_of_evaluations_counts_every_one(tiny):
    env = dsfp_env.parallel_env(task=tiny, actions="levels", credit="difference")
    history = agents.train(env, choose_agent("random_search").make(env, 0, 20), 20, seed=0)
    spent = [evaluation.number for evaluation in history]
    assert 17 < spent[-1] <= 20  # another step could take 3
    assert set(np.diff(spent, prepend=0)) <= {1, 2, 3}
    with pytest.raises(InputError, match="The budget is 2 evaluation.s., and one step can take 3"):
        agents.train(env, choose_agent("random_search").make(env, 0, 2), 2)


def test_masks_in_turn_by_hand():
    """A budget of 0.4 asks for ratios that sum to 120: 20 % of a and 90 % of b would not do, so a starts at 30."""
    masks = BudgetMasks(dict.fromkeys(AGENTS, LEVELS), mean_kept, 0.4)
    assert masks.of("a").tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert masks.of("b", {"a": 2}).tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert masks.of("b", {"a": 5}).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert masks.of("a", {"a": 8, "b": 8}).tolist() == masks.of("a").tolist()


def test_masks_in_turn_allow_exactly_what_is_within_the_budget():
    masks = BudgetMasks(dict.fromkeys("abc", LEVELS), mean_kept, 0.35)
    for levels in itertools.product(range(9), repeat=3):
        chosen, can = {}, True
        for agent, level in zip("abc", levels, strict=True):
            can &= bool(masks.of(agent, chosen)[level])
            chosen[agent] = level
        assert can == (mean_kept({agent: 10.0 + 10 * level for agent, level in chosen.items()}) <= 0.35)


def test_masks_at_once_never_leave_the_budget_and_reach_all_that_is_within():
    masks, rng = BudgetMasks(dict.fromkeys(AGENTS, LEVELS), mean_kept, 0.4), np.random.default_rng(0)
    reached = set()
    for _ in range(200):
        drawn = masks.draw(rng)
        choices = [np.flatnonzero(drawn[agent]).tolist() for agent in AGENTS]
        reached |= set(itertools.product(*choices))
    within = {pair for pair in itertools.product(range(9), repeat=2) if sum(pair) * 10 + 20 >= 120}
    assert reached == within


@pytest.mark.parametrize("kind", ["drawn", "in turn"])
def test_masked_actions_of_the_real_environment_are_within_the_budget(digits, kind):
    env = dsfp_env.parallel_env(task=digits, actions="levels", reward="budget", macs_budget=0.05)
    rng, costs = np.random.default_rng(0), []
    for seed in range(20):
        infos, chosen = env.reset(seed=seed)[1], {}
        for agent in env.agents:
            mask = infos[agent]["action_mask"] if kind == "drawn" else env.action_mask(agent, chosen)
            assert mask.dtype == np.int8
            chosen[agent] = int(rng.choice(np.flatnonzero(mask)))
        costs.append(env.evaluator.costs(env.plans(chosen)[0]).macs / env.evaluator.original.macs)
    assert max(costs) <= 0.05
    assert len(set(costs)) > 10
    infos["conv_0"]["action_mask"][:] = 7  # nothing inside is changed by that
    assert env.step(chosen)[4]["conv_0"]["action_mask"].max() == 1


@pytest.mark.parametrize("name", ["q_learning", "random_search"])
def test_learners_that_respect_masks_stay_within_the_budget(name):
    env = ToyEnv(macs_budget=0.3)
    history = agents.train(env, choose_agent(name).make(env, 0, 100), 100, seed=0)
    assert max(evaluation.infos["conv_0"]["relative_macs"] for evaluation in history) <= 0.3
    assert agents.best(history).infos["conv_0"]["ratio"] < 90


def test_random_plans_under_a_mask():
    env = ToyEnv(macs_budget=0.5)
    levels = dict.fromkeys(env.possible_agents, LEVELS)
    plans = masked_random_plans(levels, 200, env.action_mask, np.random.default_rng(0))
    assert max(map(mean_kept, plans)) <= 0.5
    assert {ratio for plan in plans for ratio in plan.values()} == set(range(10, 91, 10))


def test_masks_of_the_joint_action(tiny):
    env = gymnasium.make("dsfp/LayerPruning-v0", task=tiny, actions="levels", macs_budget=0.3).unwrapped
    assert isinstance(env, JointActionEnv)
    rng = np.random.default_rng(0)
    for seed in range(10):
        env.reset(seed=seed)
        masks = env.action_masks().reshape(2, 9)
        _, _, _, _, info = env.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks]))
        assert info["relative_macs"] <= 0.3
    free = gymnasium.make("dsfp/LayerPruning-v0", task=tiny, actions="levels").unwrapped
    assert free.action_masks().tolist() == [True] * 18


def test_equal_seeds_draw_equal_masks(tiny):
    def masks(seed):
        env = dsfp_env.parallel_env(task=tiny, actions="levels", macs_budget=0.3)
        env.reset(seed=seed)
        return [env.reset()[1]["conv_0"]["action_mask"].tolist() for _ in range(8)]

    assert masks(0) == masks(0) != masks(1)


def test_bad_input_gets_a_sentence(tiny):
    with pytest.raises(InputError, match="Did you mean 'difference'"):
        dsfp_env.parallel_env(task=tiny, credit="diference")
    with pytest.raises(InputError, match=r"The MACs budget is 0.001, but with every layer pruned by 90 %"):
        dsfp_env.parallel_env(task=tiny, macs_budget=0.001)
    with pytest.raises(InputError, match="Masks are for levels"):
        dsfp_env.parallel_env(task=tiny, macs_budget=0.5).action_mask("conv_0")
    with pytest.raises(InputError, match="Masks are for levels"):
        JointActionEnv(task=tiny).action_masks()
    with pytest.raises(InputError, match="one controller takes all actions"):
        JointActionEnv(task=tiny, credit="difference")
    with pytest.raises(InputError, match="came together with task"):
        JointActionEnv(ToyEnv(), task=tiny)
