"""Several networks as one environment: on hand-made tables, and the suite that comes with the package."""

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test
from tables import make_table

import dsfp_env
from dsfp_env import InputError, suite
from dsfp_env.environment.observations import FEATURES
from dsfp_env.networks.digits_family import DigitsRelative
from dsfp_env.tasks import digits_family
from dsfp_env.wrappers import ComparableEnv, MultiTaskEnv, ParallelVecEnv, SideBySideVecEnv


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Folders of a network with two layers and of one with three."""
    folder = tmp_path_factory.mktemp("networks")
    return [str(make_table(folder / "two", agents=2)), str(make_table(folder / "three", agents=3))]


def played(env, **how):
    """One episode with 50 % everywhere: what a step told."""
    env.reset(**how)
    return env.step({agent: np.array([50.0], np.float32) for agent in env.agents})


@pytest.mark.filterwarnings(
    "ignore:No agents present but not all possible_agents"
)  # of the API test; those of others
def test_an_episode_has_the_agents_of_its_network(two):
    env = suite.multi_task_env(two)
    assert env.possible_agents == ["conv_0", "conv_1", "conv_2"]
    for task, agents in (("two", 2), ("three", 3)):
        observations, infos = env.reset(seed=0, options={"task": task})
        assert env.agents == list(observations) == list(infos) == env.possible_agents[:agents]
        assert env.task == task == infos["conv_0"]["task"]
        assert played(env, options={"task": task})[-1]["conv_0"]["task"] == task
        assert env.agents == []
    parallel_api_test(env, num_cycles=20)


def test_networks_are_drawn_and_equal_seeds_draw_alike(two):
    def drawn(seed):
        env = suite.multi_task_env(two)
        env.reset(seed=seed)
        tasks = [env.task]
        for _ in range(20):
            env.reset()
            tasks.append(env.task)
        return tasks

    assert drawn(3) == drawn(3) != drawn(4)
    assert set(drawn(3)) == {"two", "three"}


def test_what_cannot_be_played_is_refused(two, tmp_path):
    env = suite.multi_task_env(two)
    with pytest.raises(InputError, match="Unknown network 'four'. Expected one of: three, two"):
        env.reset(options={"task": "four"})
    other = str(make_table(tmp_path / "other", levels=(10, 90)))
    with pytest.raises(InputError, match=r"in 'other' is Discrete\(2\).*in 'two' is Discrete\(3\)"):
        suite.multi_task_env([two[0], other], actions="levels")
    with pytest.raises(InputError, match="There are no environments"):
        MultiTaskEnv({})
    with pytest.raises(InputError, match="expected 'training', 'held_out', 'large', or some of them"):
        suite.multi_task_env([])


def test_comparable_features_and_rewards():
    plain = suite.network_env("small-vgg-16px")
    env, original = ComparableEnv(plain), plain.evaluator.original.accuracy
    seen = np.stack(list(env.reset(seed=0)[0].values()))
    assert 0.7 < original < 0.8
    highest = dict(zip(FEATURES, seen.max(0).tolist(), strict=True))
    assert [highest[name] for name in ("accuracy", "macs_share", "params_share")] == pytest.approx([1, 1, 1])
    observations, rewards, *_, infos = played(env)
    assert rewards["conv_0"] == pytest.approx(infos["conv_0"]["score"] / original)
    accuracy = observations["conv_0"][FEATURES.index("accuracy")]
    assert accuracy == pytest.approx(infos["conv_0"]["accuracy"] / original)
    with pytest.raises(InputError, match="observation='layers'"):
        ComparableEnv(suite.network_env("digits", observation="context"))


def test_slots_of_networks_side_by_side(two):
    parts = [ParallelVecEnv(suite.network_env(one), agent_ids=False) for one in two]
    envs = SideBySideVecEnv(parts)
    assert envs.num_envs == 5
    envs.seed(0)
    assert envs.reset().shape == (5, len(FEATURES))
    observations, rewards, dones, infos = envs.step(np.array([[0.0]] * 2 + [[1.0]] * 3, np.float32))
    own = [suite.network_env(one, seed=0) for one in two]
    alone = [
        played(own[0], seed=0)[1]["conv_0"],
        own[1].score(own[1].evaluator.evaluate(dict.fromkeys(own[1].possible_agents, 90.0), 2)),
    ]
    np.testing.assert_allclose(rewards, [alone[0]] * 2 + [alone[1]] * 3, rtol=1e-6)
    assert dones.all()
    assert observations.shape == (5, len(FEATURES))
    assert [info["ratio"] for info in infos] == [50.0] * 2 + [90.0] * 3
    assert envs.get_attr("possible_agents", [1, 4]) == [own[0].possible_agents, own[1].possible_agents]
    with pytest.raises(InputError, match="agent_ids=False"):
        SideBySideVecEnv([ParallelVecEnv(suite.network_env(one)) for one in two])


@pytest.mark.parametrize("name", [*suite.TRAINING, *suite.HELD_OUT])
def test_the_suite_is_there(name):
    table = dsfp_env.load_table(name)
    assert suite.network_env(name).possible_agents == table.agents
    if name.startswith("digits-"):  # of the family, and made by the command that docs/transfer.md tells
        widths = getattr(digits_family, name.removeprefix("digits-").replace("-", "_")).args[1]
        filters = [agent["filters"] for agent in table.meta["agents"].values()]
        assert filters == [width for width in widths if isinstance(width, int)]


def test_the_large_ones_are_played_on_as_the_others_are():
    env = suite.multi_task_env(["digits", *suite.LARGE])
    for name, agents in (("digits", 4), ("vgg16-bn", 13), ("resnet20", 19)):
        observations, rewards, *_, infos = played(env, seed=0, options={"task": name})
        assert len(observations) == len(rewards) == agents
        assert ("distance" in infos["conv_0"]) == (name in suite.LARGE)
    assert len({*suite.TRAINING, *suite.HELD_OUT, *suite.LARGE}) == 12


def test_held_out_networks_are_of_other_shapes():
    def shape(name):
        return tuple(agent["filters"] for agent in dsfp_env.load_table(name).meta["agents"].values())

    assert not {*map(shape, suite.TRAINING)} & {*map(shape, suite.HELD_OUT)}


def test_a_relative_of_the_digits_network():
    network = DigitsRelative((4, "M", 6), kernel_size=5, norm=False)
    parameters = sum(one.numel() for one in network.parameters())
    assert parameters == (4 * 1 * 25 + 4) + (6 * 4 * 25 + 6) + (6 * 10 + 10)
