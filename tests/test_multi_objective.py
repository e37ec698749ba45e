"""Fronts and volumes by hand; vector rewards in both interfaces."""

import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from pettingzoo.test import parallel_api_test

import dsfp_env
from dsfp_env import InputError
from dsfp_env.pareto import hypervolume, pareto_front
from dsfp_env.wrappers.multi_objective import VectorRewardEnv, VectorRewardJointActionEnv, objectives

PLANS = [{"conv_0": a, "conv_1": b} for a, b in ((8, 1), (0, 0), (3, 5))]


def test_front_by_hand():
    points = [[1, 3], [2, 2], [1, 2], [3, 1], [2, 2], [0, 3], [3, 0]]
    assert pareto_front(points).tolist() == [0, 1, 3]
    assert pareto_front([[1, 1, 5], [1, 1, 1], [2, 0, 1]]).tolist() == [0, 2]
    assert pareto_front([[4], [7], [7], [1]]).tolist() == [1]
    assert pareto_front(np.empty((0, 2))).tolist() == []


def test_front_is_what_no_point_dominates():
    points = np.random.default_rng(0).integers(6, size=(60, 3)).astype(float)
    front = pareto_front(points)
    for i, point in enumerate(points):
        dominated = any((other >= point).all() and (other > point).any() for other in points)
        repeated = any((other == point).all() for other in points[:i])
        assert (i in front) == (not dominated and not repeated)


def test_hypervolume_by_hand():
    """Squares 1 x 3, 2 x 2 and 3 x 1 above the origin cover 3 + 2 + 1 of the plane."""
    points = [[2, 2], [1, 3], [3, 1]]
    assert hypervolume(points, [0, 0]) == 6
    assert hypervolume([*points, [1, 1], [2, 2]], [0, 0]) == 6  # dominated, repeated
    assert hypervolume(points, [1, 1]) == 1  # the others are not above the reference
    assert hypervolume([[0.9, 0.5]], [0, 0]) == pytest.approx(0.45)
    assert hypervolume([[-1, 5]], [0, 0]) == 0
    assert hypervolume(np.empty((0, 2)), [0, 0]) == 0
    assert hypervolume([[3.0], [5.0]], [1.0]) == 4


def test_hypervolume_of_three_objectives_by_hand():
    """Boxes 1 x 2 x 3 and 2 x 1 x 1 meet in 1 x 1 x 1."""
    assert hypervolume([[1, 2, 3], [2, 1, 1]], [0, 0, 0]) == 6 + 2 - 1


@pytest.mark.parametrize("objectives_", [2, 3, 4])
def test_hypervolume_is_optunas(objectives_):
    optuna = pytest.importorskip("optuna._hypervolume")  # minimises
    points = np.random.default_rng(objectives_).uniform(-0.1, 1, size=(25, objectives_))
    above = points[(points > 0).all(1)]
    expected = optuna.compute_hypervolume(-above, np.zeros(objectives_))
    assert hypervolume(points, np.zeros(objectives_)) == pytest.approx(expected)


def test_bad_points_are_refused():
    with pytest.raises(InputError, match=r"\[points, objectives\]"):
        pareto_front([1, 2, 3])
    with pytest.raises(InputError, match="finite"):
        hypervolume([[1, np.nan]], [0, 0])
    with pytest.raises(InputError, match="2 finite number"):
        hypervolume([[1, 2]], [0, 0, 0])


@pytest.fixture
def evaluator(tiny):
    return dsfp_env.Evaluator(tiny)


def steps(env, plans, seed=0):
    env.reset(seed=seed)
    return [env.step(plan) for plan in plans]


def test_rewards_are_changes_and_their_sum_is_the_last_outcome(evaluator):
    env = VectorRewardEnv(evaluator=evaluator, actions="levels", horizon=3)
    for _ in range(2):  # the second episode starts from 0 again
        rewards = [step[1]["conv_1"] for step in steps(env, PLANS)]
        outcomes = [evaluator.evaluate({a: 10.0 + 10 * n for a, n in plan.items()}, 0) for plan in PLANS]
        worths = np.array([[0, 0], *([o.accuracy, 1 - o.relative_macs] for o in outcomes)])
        assert np.array(rewards) == pytest.approx(np.diff(worths, axis=0), abs=1e-6)
        assert np.sum(rewards, axis=0) == pytest.approx(worths[-1], abs=1e-6)
        assert len({tuple(worth) for worth in worths}) == 4


def test_parallel_contract(evaluator):
    env = VectorRewardEnv(evaluator=evaluator, actions="levels", horizon=2)
    parallel_api_test(env, num_cycles=5)
    observations, infos = env.reset(seed=0)
    results = env.step(PLANS[0])
    assert all(list(result) == env.possible_agents for result in (observations, infos, *results))
    for agent, reward in results[1].items():
        assert reward.dtype == np.float32
        assert env.reward_space(agent).contains(reward)
        assert env.reward_space(agent) is env.reward_space(agent)
    assert env.reward_space("conv_0") == Box(-1, 1, (2,), np.float32)
    results[1]["conv_0"] += 1  # every agent has an array of its own
    assert env.reward_space("conv_1").contains(results[1]["conv_1"])
    env.step(PLANS[1])
    assert env.agents == []
    assert env.step({}) == ({}, {}, {}, {}, {})
    assert env.state() in env.state_space


def test_all_else_is_as_without_vectors(evaluator):
    kwargs = {"evaluator": evaluator, "actions": "levels", "horizon": 2, "macs_budget": 0.6}
    scalar, vector = dsfp_env.parallel_env(**kwargs), VectorRewardEnv(**kwargs)
    for one, other in zip(steps(scalar, PLANS[:2]), steps(vector, PLANS[:2]), strict=True):
        for i in (0, 2, 3, 4):  # observations, terminations, truncations, infos
            np.testing.assert_equal(one[i], other[i])
    assert (vector.action_mask("conv_0") == scalar.action_mask("conv_0")).all()
    assert vector.action_space("conv_0") is vector.env.action_space("conv_0")


WEIGHTS = np.array([0.7, 0.3])


def linear(outcome, original):
    return WEIGHTS @ [outcome.accuracy, 1 - outcome.relative_macs]


def test_linearised_rewards_are_those_of_a_linear_reward(evaluator):
    kwargs = {"evaluator": evaluator, "actions": "levels", "horizon": 3}
    scalar = steps(dsfp_env.parallel_env(reward=linear, **kwargs), PLANS)
    vector = steps(VectorRewardEnv(**kwargs), PLANS)
    for one, other in zip(scalar, vector, strict=True):
        assert WEIGHTS @ other[1]["conv_0"] == pytest.approx(one[1]["conv_0"], abs=1e-6)


def test_one_controller(evaluator):
    env = VectorRewardJointActionEnv(evaluator=evaluator, actions="levels", horizon=3)
    parallel = steps(VectorRewardEnv(evaluator=evaluator, actions="levels", horizon=3), PLANS)
    env.reset(seed=0)
    assert env.reward_space == Box(-1, 1, (2,), np.float32)
    for plan, expected in zip(PLANS, parallel, strict=True):
        state, reward, terminated, truncated, info = env.step(np.array(list(plan.values())))
        assert (reward == expected[1]["conv_0"]).all()
        assert env.reward_space.contains(reward)
        assert state in env.observation_space
        assert objectives(info) == pytest.approx([info["accuracy"], 1 - info["relative_macs"]])
    assert (terminated, truncated) == (True, False)


def test_pickles_go_on_alike(tiny):
    env = VectorRewardEnv(task=tiny, actions="levels", horizon=2)
    one, other = steps(env, PLANS[:2]), steps(pickle.loads(pickle.dumps(env)), PLANS[:2])
    assert [step[1]["conv_0"].tolist() for step in one] == [step[1]["conv_0"].tolist() for step in other]
    controller = pickle.loads(pickle.dumps(VectorRewardJointActionEnv(task=tiny, actions="levels")))
    controller.reset(seed=0)
    assert controller.step(np.array([8, 1]))[1].tolist() == one[0][1]["conv_0"].tolist()


def test_an_environment_that_is_there_is_wrapped(evaluator):
    inner = dsfp_env.parallel_env(evaluator=evaluator, actions="levels")
    assert VectorRewardEnv(inner).unwrapped is inner
    assert VectorRewardJointActionEnv(inner).parallel_env.unwrapped is inner
    with pytest.raises(InputError, match="one or the other"):
        VectorRewardEnv(inner, horizon=2)


@pytest.mark.parametrize("make", [VectorRewardEnv, VectorRewardJointActionEnv])
def test_difference_credit_is_refused(evaluator, make):
    with pytest.raises(InputError, match="two objectives: expected credit='shared'"):
        make(evaluator=evaluator, credit="difference")


REGISTERED = "dsfp/MultiObjectiveLayerPruning-v0"


def test_mo_gymnasium(evaluator):
    mo_gymnasium = pytest.importorskip("mo_gymnasium")
    kwargs = {"evaluator": evaluator, "actions": "levels", "horizon": 3}
    env = mo_gymnasium.wrappers.LinearReward(mo_gymnasium.make(REGISTERED, **kwargs), weight=WEIGHTS)
    scalar = gymnasium.make("dsfp/LayerPruning-v0", reward=linear, **kwargs)
    env.reset(seed=0)
    scalar.reset(seed=0)
    for plan in PLANS:
        action = np.array(list(plan.values()))
        _, reward, *_, info = env.step(action)
        assert info["vector_reward"].shape == (2,)
        assert reward == pytest.approx(scalar.step(action)[1], abs=1e-6)


def test_mo_gymnasiums_vector_environment(evaluator):
    vector = pytest.importorskip("mo_gymnasium.wrappers.vector")
    kwargs = {"evaluator": evaluator, "actions": "levels"}
    envs = vector.MOSyncVectorEnv([lambda: gymnasium.make(REGISTERED, **kwargs)] * 2)
    envs.reset(seed=[0, 0])
    _, rewards, *_ = envs.step(np.array([[8, 1], [0, 0]]))
    alone = [steps(VectorRewardEnv(**kwargs), [plan])[0][1]["conv_0"] for plan in PLANS[:2]]
    assert rewards.tolist() == [reward.tolist() for reward in alone]
