"""The environment: PettingZoo's and Gymnasium's own tests on the real digits task, and what they miss."""

import copy
import pickle
import sys

import gymnasium
import numpy as np
import pettingzoo
import pytest
import torch
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from pettingzoo.test import (
    api_test,
    max_cycles_test,
    parallel_api_test,
    parallel_seed_test,
    render_test,
    seed_test,
    state_test,
)
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from torch import nn

import dsfp_env
from dsfp_env import InputError, layer_pruning_v0
from dsfp_env.environment.observations import FEATURES

EVERY_KIND = pytest.mark.parametrize(
    "kwargs", [{"actions": kind, "horizon": horizon} for kind in ("box", "levels") for horizon in (1, 4)], ids=str
)
INFO_KEYS = {
    "accuracy", "relative_macs", "macs", "params", "score", "credit", "evaluations", "ratio", "applied_ratio",
    "coupled_set", "filters_kept",
}  # fmt: skip


@pytest.mark.usefixtures("digits")
@pytest.mark.filterwarnings("error")
class TestOfficial:
    @EVERY_KIND
    def test_pettingzoo(self, kwargs):
        def make_parallel(**more):
            return layer_pruning_v0.parallel_env(task="digits", **kwargs, **more)

        def make_aec(**more):
            return layer_pruning_v0.env(task="digits", **kwargs, **more)

        parallel_api_test(make_parallel())
        parallel_seed_test(make_parallel)
        api_test(make_aec())
        seed_test(make_aec)
        render_test(make_aec)
        state_test(make_aec(), make_parallel())

    def test_max_cycles(self):
        max_cycles_test(layer_pruning_v0)

    @EVERY_KIND
    def test_gymnasium_and_stable_baselines3(self, kwargs):
        for name in ("dsfp/LayerPruning-v0", "dsfp/LayerByLayer-v0"):
            env = gymnasium.make(name, task="digits", **kwargs)
            gymnasium_check_env(env.unwrapped)
            sb3_check_env(env.unwrapped)

    def test_registries(self):
        parallel = pettingzoo.make("parallel", "dsfp/layer_pruning-v0", task="digits", horizon=2)
        assert isinstance(parallel, dsfp_env.LayerPruningEnv)
        assert isinstance(pettingzoo.make("aec", "dsfp/layer_pruning-v0", task="digits"), pettingzoo.AECEnv)
        assert str(parallel) == "layer_pruning_v0"
        assert dsfp_env.env is layer_pruning_v0.env


def joint(env, action):
    return dict.fromkeys(env.possible_agents, action)


def test_an_episode_of_one_step(tiny):
    env = dsfp_env.parallel_env(task=tiny, actions="levels", seed=5)
    observations, infos = env.reset()
    assert env.agents == env.possible_agents == ["conv_0", "conv_1"]
    assert env.layer_names == {"conv_0": "conv1", "conv_1": "conv2"}
    assert all(set(info) == INFO_KEYS for info in infos.values())
    assert infos["conv_0"]["relative_macs"] == 1
    assert infos["conv_0"]["ratio"] == infos["conv_0"]["applied_ratio"] == 0

    observations, rewards, terminations, truncations, infos = env.step({"conv_0": 4, "conv_1": 0})
    outcome = dsfp_env.Evaluator(tiny).evaluate({"conv_0": 50, "conv_1": 10}, seed=5)
    expected = outcome.accuracy * (1 - outcome.relative_macs)
    assert rewards == joint(env, pytest.approx(expected))
    assert terminations == joint(env, True)
    assert truncations == joint(env, False)
    assert env.agents == []
    assert set(infos["conv_1"]) == INFO_KEYS
    assert (infos["conv_0"]["ratio"], infos["conv_0"]["applied_ratio"], infos["conv_0"]["filters_kept"]) == (
        50,
        50,
        2,
    )
    assert infos["conv_1"]["score"] == rewards["conv_1"]
    seen = dict(zip(FEATURES, observations["conv_0"], strict=True))
    assert seen["ratio"] == 0.5
    assert seen["accuracy"] == pytest.approx(outcome.accuracy)
    assert seen["relative_macs"] == pytest.approx(outcome.relative_macs)
    assert seen["time"] == 1
    assert all(type(value) in (int, float) for info in infos.values() for value in info.values())
    assert all(type(value) is float for value in rewards.values())
    assert all(type(value) is bool for value in terminations.values())
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_rewards_of_a_longer_episode_add_up_to_the_last_score(tiny):
    env = dsfp_env.parallel_env(task=tiny, horizon=3, reward="budget", macs_budget=0.5, seed=0)
    env.reset()
    total = 0.0
    for step, ratio in enumerate((80.0, 30.0, 60.0)):
        _, rewards, terminations, _, infos = env.step(joint(env, ratio))
        total += rewards["conv_0"]
        assert terminations == joint(env, step == 2)
    outcome = dsfp_env.Evaluator(tiny).evaluate(joint(env, 60.0), seed=0)
    assert (
        infos["conv_0"]["accuracy"] == outcome.accuracy
    )  # the last ratios prune the original, nothing is left over
    assert total == pytest.approx(outcome.accuracy * min(1, 0.5 / outcome.relative_macs))
    assert infos["conv_0"]["score"] == pytest.approx(total)


def test_seeds(tiny):
    env, other = dsfp_env.parallel_env(task=tiny, seed=0), dsfp_env.parallel_env(task=tiny)

    def accuracies(env, seed):
        env.reset(seed=seed)
        return [env.step(joint(env, ratio))[4]["conv_0"]["accuracy"] for ratio in (70.0,) if env.agents]

    assert [accuracies(env, seed) for seed in range(8)] == [accuracies(other, seed) for seed in range(8)]
    assert len({tuple(accuracies(env, seed)) for seed in range(8)}) > 1  # the seed matters
    env.reset(seed=3)
    env.reset()
    assert env.evaluation_seed == 3
    assert other.evaluation_seed == 7
    with pytest.raises(gymnasium.error.Error, match="(?i)seed"):
        env.reset(seed=-1)


def test_observations_and_state_lie_in_their_spaces_and_share_no_memory(tiny):
    env = dsfp_env.parallel_env(task=tiny, horizon=2)
    first, _ = env.reset(seed=0)
    first_state = env.state()
    kept = copy.deepcopy(first)
    second = env.step(joint(env, 90.0))[0]
    for agent in env.possible_agents:
        assert env.observation_space(agent).contains(first[agent])
        assert env.observation_space(agent).contains(second[agent])
        assert env.observation_space(agent) is env.observation_space(agent)
        assert np.array_equal(first[agent], kept[agent])
        assert not np.shares_memory(first[agent], second[agent])
    assert env.state_space.contains(first_state)
    assert env.state_space.contains(env.state())
    assert not np.array_equal(first_state, env.state())
    first["conv_0"][:] = 7
    assert env.reset()[0]["conv_0"].max() <= 1


def test_features_by_hand(tiny):
    env = dsfp_env.parallel_env(task=tiny, macs_budget=0.4, reward="budget")
    observations, _ = env.reset()
    seen = dict(zip(FEATURES, observations["conv_1"].tolist(), strict=True))
    macs = 64 * 9 * (4 + 4 * 6) + 6 * 3
    assert seen["position"] == 1
    assert seen["log_filters"] == pytest.approx(np.log2(6) / 12)
    assert seen["log_inputs"] == pytest.approx(np.log2(4) / 12)
    assert seen["macs_share"] == pytest.approx(64 * 9 * 24 / macs)
    assert seen["macs_budget"] == pytest.approx(0.4)
    assert seen["relative_macs"] == 1
    assert seen["ratio"] == seen["time"] == seen["coupled"] == 0
    assert sorted(observations[a][FEATURES.index("sensitivity")] for a in env.possible_agents) == [0, 1]


def test_the_papers_context(tiny):
    env = dsfp_env.parallel_env(task=tiny, observation="context", context=40)
    assert env.reset()[0]["conv_0"].tolist() == [40]
    observations, _ = env.reset(options={"context": 60})
    assert observations["conv_1"].tolist() == [60]
    assert env.observation_space("conv_0").contains(observations["conv_0"])
    with pytest.raises(InputError, match="The context is 5"):
        env.reset(options={"context": 5})


def test_a_reward_of_ones_own(tiny):
    env = dsfp_env.parallel_env(task=tiny, reward=lambda outcome, original: -outcome.macs / original.macs)
    env.reset(seed=0)
    _, rewards, _, _, infos = env.step(joint(env, 50.0))
    assert rewards["conv_0"] == -infos["conv_0"]["relative_macs"]
    env = dsfp_env.parallel_env(task=tiny, reward=lambda outcome, original: float("nan"))
    env.reset(seed=0)
    with pytest.raises(InputError, match="reward function gave nan"):
        env.step(joint(env, 50.0))


@pytest.mark.parametrize("actions", ["box", "levels"])
def test_a_refused_action_changes_nothing(tiny, actions):
    env = dsfp_env.parallel_env(task=tiny, actions=actions, horizon=2, seed=0)
    env.reset()
    env.step(joint(env, {"box": 50.0, "levels": 4}[actions]))
    before, state = env.render(), env.state()
    for wrong in ({}, {"conv_0": 10}, joint(env, 95.0), joint(env, float("nan")), joint(env, -1)):
        with pytest.raises(InputError):
            env.step(wrong)
    assert np.array_equal(env.state(), state)
    assert env.render() == before
    assert env.agents == env.possible_agents


def test_step_outside_an_episode_gets_a_sentence(tiny):
    env = dsfp_env.parallel_env(task=tiny)
    with pytest.raises(ResetNeeded, match="step was called before reset"):
        env.step(joint(env, 50.0))
    env.reset()
    env.step(joint(env, 50.0))
    with pytest.raises(ResetNeeded, match="is over: call env.reset"):
        env.step(joint(env, 50.0))


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"actions": "boxes"}, "Did you mean 'box'"),
        ({"reward": "accuracy"}, "Unknown reward 'accuracy'"),
        ({"reward": "budget"}, "needs a budget"),
        ({"macs_budget": 1.5}, "The MACs budget is 1.5"),
        ({"horizon": 0}, "The horizon is 0: expected a number of steps"),
        ({"horizon": 1.5}, "The horizon is 1.5"),
        ({"render_mode": "rgb_aray"}, "Did you mean 'rgb_array'"),
        ({"observation": "layer"}, "Did you mean 'layers'"),
        ({"context": 95, "observation": "context"}, "The context is 95"),
        ({"criterion": "dsf"}, "Did you mean 'dsfp'"),
        ({"task": "digit"}, "Did you mean 'digits'"),
        ({"max_cycles": 2, "horizon": 2}, "they mean the same"),
    ],
)
def test_bad_arguments_get_a_sentence(tiny, kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        dsfp_env.parallel_env(**{"task": tiny, **kwargs})


def test_rendering(tiny, capsys):
    env = dsfp_env.parallel_env(task=tiny, render_mode="ansi", seed=0)
    env.reset()
    env.step({"conv_0": 50.0, "conv_1": 90.0})
    text = env.render()
    assert "conv_0   conv1 ████████████░░░░░░░░░░░░    2 of 4    filters, 50.0 % pruned" in text
    assert "1 of 6    filters, 83.3 % pruned" in text
    assert capsys.readouterr().out == ""

    env = dsfp_env.parallel_env(task=tiny, render_mode="human", seed=0)
    env.reset()
    env.step({"conv_0": 50.0, "conv_1": 90.0})
    assert text in capsys.readouterr().out

    env = dsfp_env.parallel_env(task=tiny, render_mode="rgb_array")
    env.reset()
    before = env.render()
    env.step(joint(env, 90.0))
    assert before.dtype == np.uint8
    assert before.shape == env.render().shape == (480, 720, 3)
    assert (before != env.render()).any()
    assert dsfp_env.parallel_env(task=tiny).render() is None


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_behave_alike(tiny, copier):
    env = dsfp_env.parallel_env(task=tiny, actions="levels", seed=4, macs_budget=0.3, reward="budget")
    twin = copier(env)
    np.testing.assert_equal(twin.reset()[1], env.reset()[1])
    np.testing.assert_equal(twin.step(joint(env, 3))[4], env.step(joint(env, 3))[4])


def test_joint_action_view(tiny):
    env = gymnasium.make("dsfp/LayerPruning-v0", task=tiny)
    state, info = env.reset(seed=0)
    assert info["relative_macs"] == 1
    state, reward, terminated, truncated, info = env.step(np.array([-1.0, 1.0], np.float32))
    assert (info["conv_0"]["ratio"], info["conv_1"]["ratio"]) == (10, 90)
    assert reward == info["score"] == pytest.approx(info["accuracy"] * (1 - info["relative_macs"]))
    assert (terminated, truncated) == (True, False)
    assert env.observation_space.contains(state)
    levels = gymnasium.make("dsfp/LayerPruning-v0", task=tiny, actions="levels")
    levels.reset(seed=0)
    assert levels.step(np.array([0, 8]))[4]["conv_1"]["ratio"] == 90


def test_traps_of_other_libraries_are_avoided():
    assert not hasattr(dsfp_env.LayerPruningEnv, "max_cycles")  # parallel_api_test overwrites it
    assert not hasattr(dsfp_env.LayerPruningEnv, "compute_reward")  # Stable-Baselines3 would see a GoalEnv
    assert "dsfp_env.environment.env" in sys.modules


class Joined(nn.Module):
    """Three convolutions; the first and the last meet in a sum."""

    def __init__(self):
        super().__init__()
        self.first, self.between, self.last = (nn.Conv2d(*c, 3, padding=1) for c in ((1, 8), (8, 6), (6, 8)))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        return self.head((x + self.last(torch.relu(self.between(x)))).mean((2, 3)))


def test_coupled_layers_get_the_mean_ratio_and_everyone_can_see_it():
    rng = torch.Generator().manual_seed(0)
    splits = [
        (torch.randn(n, 1, 8, 8, generator=rng), torch.randint(3, (n,), generator=rng)) for n in (40, 20, 20)
    ]
    fidelity = dsfp_env.Fidelity(recalibration_images=8, batches=1, batch_size=8)
    task = dsfp_env.Task.from_network(Joined(), *splits, name="joined", device="cpu", fidelity=fidelity)
    assert task.coupled_agents == {"conv_0": ("conv_2",), "conv_1": (), "conv_2": ("conv_0",)}
    env = dsfp_env.parallel_env(task=task, render_mode="ansi", criterion="l1", seed=0)
    assert env.coupled_agents == task.coupled_agents
    observations, infos = env.reset()
    assert [infos[agent]["coupled_set"] for agent in env.agents] == [0, 1, 0]
    assert [observations[agent][FEATURES.index("coupled")] for agent in env.agents] == [1, 0, 1]
    infos = env.step({"conv_0": 25.0, "conv_1": 50.0, "conv_2": 75.0})[4]
    assert [info["ratio"] for info in infos.values()] == [25.0, 50.0, 75.0]
    assert [info["applied_ratio"] for info in infos.values()] == [50.0, 50.0, 50.0]
    rows = env.render().splitlines()[2:]
    assert ["coupled set 0" in row for row in rows] == [True, False, True]


def test_kept_filters_can_be_rounded_for_hardware(tiny):
    env = dsfp_env.parallel_env(task=tiny, round_to=2, min_filters=2, seed=0)
    env.reset()
    infos = env.step({"conv_0": 70.0, "conv_1": 60.0})[4]  # 4 - 3 = 1 -> 2; 6 - 4 = 2
    assert [info["filters_kept"] for info in infos.values()] == [2, 2]
    infos = dsfp_env.parallel_env(task=tiny, round_to=4, seed=0)
    infos.reset()
    assert [i["filters_kept"] for i in infos.step({"conv_0": 70.0, "conv_1": 60.0})[4].values()] == [4, 4]


def test_a_network_without_prunable_convolutions_is_refused():
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(1, 4), nn.Flatten(), nn.Linear(144, 3))
    split = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
    with pytest.raises(InputError, match=r"no convolution that can lose filters \(0: .* GroupNorm in '1'"):
        dsfp_env.Task.from_network(network, split, split, split, device="cpu")
