"""Ratios in [-1, 1]: a parallel environment for policies that draw around 0."""

import numpy as np
import pytest
from gymnasium.spaces import Box
from pettingzoo.test import parallel_api_test

import dsfp_env
from dsfp_env import InputError
from dsfp_env.testing import check_env
from dsfp_env.toy import ToyEnv
from dsfp_env.wrappers import CentredActionsEnv


def centred(**kwargs):
    env = CentredActionsEnv(ToyEnv(actions="box", **kwargs))
    env.reset(seed=0)
    return env


def ratios(env, *actions):
    joint = {agent: np.array([action], np.float32) for agent, action in zip(env.agents, actions, strict=True)}
    *_, infos = env.step(joint)
    return [info["ratio"] for info in infos.values()]


def test_the_ends_and_the_middle():
    assert ratios(centred(), -1, 0, 1) == [10, 50, 90]


def test_a_number_alone_will_do_as_in_the_environment():
    env = centred()
    *_, infos = env.step({"conv_0": 1, "conv_1": -1.0, "conv_2": np.float64(0.5)})
    assert [info["ratio"] for info in infos.values()] == [90, 10, 70]


def test_an_agent_of_other_bounds_has_its_own_ends():
    assert ratios(centred(bounds={"conv_1": (20, 60)}), 0.5, -1, 1) == [70, 20, 90]
    assert ratios(centred(bounds={"conv_1": (20, 60)}), 0.5, 0.5, 1) == [70, 50, 90]


def test_what_a_policy_draws_around_0_is_drawn_around_50_percent():
    drawn = np.random.default_rng(0).normal(size=(1000, 3)).clip(-1, 1)
    played = np.concatenate([ratios(centred(), *actions) for actions in drawn])
    assert 48 < played.mean() < 52
    assert (played == 10).mean() < 0.2  # the tail beyond one standard deviation, 16 %; without the wrapper all


def test_spaces_are_those_of_the_environment_but_for_actions():
    env = centred()
    assert env.action_space("conv_0") == Box(-1, 1, (1,), np.float32)
    assert env.action_space("conv_0") is env.action_space("conv_0")
    assert env.observation_space("conv_0") is env.env.observation_space("conv_0")
    assert env.state_space is env.env.state_space


def test_it_measures_what_the_environment_measures(tiny):
    plain = dsfp_env.parallel_env(task=tiny, seed=0)
    env = CentredActionsEnv(dsfp_env.parallel_env(evaluator=plain.evaluator, seed=0))
    env.reset(seed=0), plain.reset(seed=0)
    known = plain.step({"conv_0": [70.0], "conv_1": [30.0]})
    came = env.step({"conv_0": [0.5], "conv_1": [-0.5]})
    assert came[1] == known[1]
    assert came[4]["conv_0"]["applied_ratio"] == known[4]["conv_0"]["applied_ratio"]


def test_the_usual_checks():
    check_env(lambda: CentredActionsEnv(ToyEnv(actions="box", horizon=3)))
    parallel_api_test(CentredActionsEnv(ToyEnv(actions="box")), num_cycles=50)


@pytest.mark.parametrize("action", [[50.0], [np.nan], [0.0, 0.0], "0", [None], {}])
def test_bad_actions(action):
    with pytest.raises(InputError, match=r"The action of conv_1 .* in \[-1, 1\]"):
        centred().step({"conv_0": [0.0], "conv_1": action, "conv_2": [0.0]})


def test_agents_that_are_missing_or_strangers():
    with pytest.raises(InputError, match="conv_2"):
        centred().step({"conv_0": [0.0], "conv_1": [0.0]})
    with pytest.raises(InputError, match="joint action"):
        centred().step([0.0, 0.0, 0.0])
    with pytest.raises(InputError, match="somebody"):
        centred().step({"conv_0": [0.0], "conv_1": [0.0], "conv_2": [0.0], "somebody": [0.0]})


def test_bad_environments():
    with pytest.raises(InputError, match=r"conv_0 is Discrete\(9\): expected a Box"):
        CentredActionsEnv(ToyEnv(actions="levels"))
    with pytest.raises(InputError, match="expected one of PettingZoo's parallel kind"):
        CentredActionsEnv(dsfp_env.parallel_env)
