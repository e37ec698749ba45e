"""Many environments over one table: everything is as with Gymnasium's loop over them."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from tables import make_table

import dsfp_env
from dsfp_env import Fidelity, InputError, Table
from dsfp_env.wrappers import JointActionEnv, TableVectorEnv, VectorJointActionEnv

MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]
NUMBER = 5
NINE = tuple(range(10, 100, 10))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Four agents, nine levels; seeds that are not their own places."""
    folder = tmp_path_factory.mktemp("tables") / "four"
    return Table(make_table(folder, agents=4, levels=NINE, seeds=(7, 0, 4)))


def pair(table, mode=AutoresetMode.NEXT_STEP, **kwargs):
    kwargs = {"task": table, **kwargs}
    theirs = SyncVectorEnv([lambda: JointActionEnv(backend="table", **kwargs)] * NUMBER, autoreset_mode=mode)
    return TableVectorEnv(NUMBER, autoreset_mode=mode, **kwargs), theirs


def assert_equal(first, second):
    """Deeply, types and all."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, (tuple, list)):
        assert len(first) == len(second)
        for both in zip(first, second, strict=True):
            assert_equal(*both)
    elif isinstance(first, np.ndarray) and first.dtype != object:
        assert (first.dtype, first.shape) == (second.dtype, second.shape)
        assert first.tobytes() == second.tobytes()  # to the last bit
    elif isinstance(first, np.ndarray):
        assert_equal(first.tolist(), second.tolist())
    else:
        assert first == second


def weigh(outcome, original):
    """A reward of one's own, in which everything that was measured counts."""
    kept = sum(outcome.filters_kept.values()) / original.filters
    return outcome.accuracy - 0.3 * kept - outcome.relative_params**2


@pytest.mark.parametrize("reward", ["accuracy_x_saving", "budget", weigh])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize("mode", MODES)
def test_it_is_as_gymnasiums_own(table, mode, actions, horizon, reward):
    budget = 0.4 if reward == "budget" else None
    ours, theirs = pair(table, mode, actions=actions, horizon=horizon, reward=reward, macs_budget=budget)
    for name in ("num_envs", "observation_space", "single_observation_space", "action_space", "metadata"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert (ours.single_action_space, ours.render_mode) == (theirs.single_action_space, theirs.render_mode)
    ours.action_space.seed(0)
    for seed in (5, [3, 0, 2**70, 7, None], None):
        if seed is not None:
            assert_equal(ours.reset(seed=seed), theirs.reset(seed=seed))
        for _ in range(70):
            joint = ours.action_space.sample()
            result = ours.step(joint)
            assert_equal(result, theirs.step(copy.deepcopy(joint)))
            assert result[0] in ours.observation_space
        assert_equal(ours.reset(), theirs.reset())
    # From here on some are elsewhere in their episodes than others.
    for seed in (9, None):
        assert_equal(ours.step(joint), theirs.step(joint))
        only = {"reset_mask": np.array([False, True, False, False, True])}
        assert_equal(ours.reset(seed=seed, options=dict(only)), theirs.reset(seed=seed, options=dict(only)))
        for _ in range(20):
            joint = ours.action_space.sample()
            assert_equal(ours.step(joint), theirs.step(joint))
    ours.close()


@pytest.mark.parametrize("actions", ["box", "levels"])
def test_what_a_step_gave_stays_as_it_was(table, actions):
    env = TableVectorEnv(NUMBER, table, actions=actions, reward="budget", macs_budget=0.5, horizon=2)
    given = [env.reset(seed=0)]
    given += [env.step(env.action_space.sample()) for _ in range(2)]
    kept = copy.deepcopy(given)
    for _ in range(5):
        env.step(env.action_space.sample())
    env.reset(seed=1)
    assert_equal(given, kept)


def test_ratios_between_levels_and_at_the_bounds(table):
    ours, theirs = pair(table, horizon=1000)
    assert_equal(ours.reset(seed=0), theirs.reset(seed=0))
    middles = np.linspace(-1, 1, 17, dtype=np.float32)  # levels, and midway between them
    around = np.concatenate([middles, np.nextafter(middles, np.float32(-1)), np.nextafter(middles, np.float32(1))])
    rng = np.random.default_rng(0)
    for _ in range(50):
        joint = rng.choice(around, (NUMBER, 4))
        assert_equal(ours.step(joint), theirs.step(joint))
    joint = np.linspace(-1, 1, 20).reshape(NUMBER, 4)  # float64
    assert_equal(ours.step(joint), theirs.step(joint))
    assert_equal(ours.step(joint.tolist()), theirs.step(joint))


@pytest.mark.parametrize("budget", [0.05, 0.2, 0.7])
def test_masks_are_those_of_the_loop(table, budget):
    ours, theirs = pair(table, actions="levels", macs_budget=budget)
    for seed in range(30):
        assert_equal(ours.reset(seed=seed * NUMBER), theirs.reset(seed=seed * NUMBER))
    assert np.unique(ours.reset()[1]["conv_0"]["action_mask"]).tolist() == [0, 1]
    _, _, _, _, infos = ours.step(np.full((NUMBER, 4), 8, np.int8))
    assert (infos["relative_macs"] <= budget).all()


def test_lean_infos_are_the_teams(table):
    kwargs = {"actions": "levels", "reward": "budget", "macs_budget": 0.5}
    _, theirs = pair(table, AutoresetMode.SAME_STEP, **kwargs)
    lean = TableVectorEnv(NUMBER, table, autoreset_mode="SameStep", agent_infos=False, **kwargs)

    def of_the_team(infos):
        infos = {key: value for key, value in infos.items() if "conv" not in key}
        if "final_info" in infos:
            infos["final_info"] = of_the_team(infos["final_info"])
        return infos

    observations, infos = theirs.reset(seed=2)
    assert_equal(lean.reset(seed=2), (observations, of_the_team(infos)))
    for _ in range(5):
        joint = lean.action_space.sample()
        *first, infos = theirs.step(joint)
        assert_equal(lean.step(joint), (*first, of_the_team(infos)))


def test_seeds(table):
    ours, theirs = pair(table, seed=11)
    assert_equal(ours.reset(), theirs.reset())
    joint = np.zeros((NUMBER, 4), np.float32)
    assert_equal(ours.step(joint), theirs.step(joint))
    assert ours.evaluation_seeds.tolist() == [11] * NUMBER
    ours.reset(seed=2**63 - 2)
    theirs.reset(seed=2**63 - 2)
    assert ours.evaluation_seeds.tolist() == [e.parallel_env.evaluation_seed for e in theirs.envs]
    answering = [theirs.envs[0].parallel_env.evaluator.measured_seed(seed) for seed in range(NUMBER)]
    assert answering == [0, 0, 4, 7, 4]
    assert_equal(ours.reset(seed=0), theirs.reset(seed=0))
    rewards = ours.step(joint)[1]
    row = table.rows([[4, 4, 4, 4]])[0]
    assert rewards.tolist() == [table.scores(seed=seed)[row] for seed in answering]
    first, second = TableVectorEnv(3, table), TableVectorEnv(3, table)
    assert len({*first.evaluation_seeds.tolist(), *second.evaluation_seeds.tolist()}) == 6  # drawn anew
    before = first.evaluation_seeds.tolist()
    first.reset()
    assert first.evaluation_seeds.tolist() == before


def test_the_other_fidelity(table):
    short = Fidelity(**table.meta["fidelities"]["recalibrated"])
    ours, theirs = pair(table, fidelity=short, horizon=2)
    full, _ = pair(table, horizon=2)
    ours.action_space.seed(0)
    assert_equal(ours.reset(seed=0), theirs.reset(seed=0))
    full.reset(seed=0)
    joint = ours.action_space.sample()
    result = ours.step(joint)
    assert_equal(result, theirs.step(joint))
    assert (result[1] != full.step(joint)[1]).any()


@pytest.mark.parametrize(
    ("actions", "good", "bad", "sentence"),
    [
        ("box", 0.0, 1.5, "The action of conv_2 in environment 3 is 1.5: expected numbers from -1 .10 %. to 1 "),
        ("box", 0.0, np.nan, "The action of conv_2 in environment 3 is nan"),
        ("box", 0.0, np.inf, "The action of conv_2 in environment 3 is inf"),
        (
            "levels",
            4,
            9,
            "The action of conv_2 in environment 3 is 9: expected integers from 0 .10 %. to 8 .90 %.",
        ),
        ("levels", 4, -1, "The action of conv_2 in environment 3 is -1"),
    ],
)
def test_bad_actions_get_a_sentence_and_change_nothing(table, actions, good, bad, sentence):
    env = TableVectorEnv(NUMBER, table, actions, horizon=2)
    twin = TableVectorEnv(NUMBER, table, actions, horizon=2)
    joint = np.full((NUMBER, 4), good)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(joint)
    env.reset(seed=0)
    twin.reset(seed=0)
    wrong = joint.copy()
    wrong[3, 2] = bad
    others = [joint[:2], joint[:, :3], joint[0], np.full(joint.shape, "a"), None]
    others += [joint.astype(float)] if actions == "levels" else []
    for _ in range(2):  # two steps, then a reset
        with pytest.raises(InputError, match=sentence):
            env.step(wrong)
        for other in others:
            with pytest.raises(InputError, match=r"The actions .* expected .* in an array \[5, 4\]"):
                env.step(other)
        assert_equal(env.step(joint), twin.step(joint))
    assert_equal(env.step(wrong), twin.step(joint))  # not looked at, as episodes were over
    assert_equal(env.step(joint), twin.step(joint))


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"autoreset_mode": AutoresetMode.DISABLED}, "autoreset mode is .*: expected 'NextStep' or 'SameStep'"),
        ({"autoreset_mode": "never"}, "autoreset mode is 'never'"),
        ({"render_mode": "ansi"}, "render_mode=None only"),
        ({"backend": "live"}, "backend='table' only"),
        ({"credit": "difference"}, "The credit is 'difference'"),
        ({"criterion": "l1"}, "criterion='dsfp'"),
        ({"horizon": 0}, "The horizon is 0"),
        ({"actions": "boxes"}, "Did you mean 'box'"),
        ({"reward": "budget"}, "needs a budget"),
        ({"reward": "accuracy_x_speed"}, "needs measured times"),
        ({"reward": lambda outcome, original: float("nan")}, "no finite number"),
        ({"macs_budget": 0.001}, "every layer pruned by 90 %"),
        ({"task": "digitz"}, "no table 'digitz'"),
    ],
)
def test_bad_arguments_get_a_sentence(table, kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        TableVectorEnv(**{"task": table, **kwargs})


def test_an_evaluator_that_is_there_already(table, tiny):
    env = TableVectorEnv(NUMBER, evaluator=dsfp_env.TableEvaluator(table), horizon=2)
    twin = TableVectorEnv(NUMBER, table, horizon=2)
    assert_equal(env.reset(seed=3), twin.reset(seed=3))
    with pytest.raises(InputError, match="The evaluator is of type Evaluator: expected a TableEvaluator"):
        TableVectorEnv(NUMBER, evaluator=dsfp_env.Evaluator(tiny))


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"seed": -1}, "The seed of environment 0 is -1"),
        ({"seed": [0, 1, -1]}, "The seed of environment 2 is -1"),
        ({"seed": [0, 1.5, 1]}, "The seed of environment 1 is 1.5"),
        ({"seed": [0]}, "1 seeds came for 3 environments"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "True somewhere"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, r"an array \[3\] of bool"),
        ({"options": {"reset_mask": np.ones(3)}}, r"an array \[3\] of bool"),
    ],
)
def test_bad_resets_get_a_sentence(table, kwargs, sentence):
    with pytest.raises(InputError, match=sentence):
        TableVectorEnv(3, table).reset(**kwargs)


def test_make_vec_chooses(table, tiny):
    env = gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=3, task=table, backend="table", workers=2, horizon=2)
    assert type(env) is TableVectorEnv
    assert env.spec.kwargs["num_envs"] == env.num_envs == 3
    by_folder = gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=3, task=str(table.folder), backend="table")
    assert type(by_folder) is TableVectorEnv
    live = gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=2, task=tiny)
    assert type(live) is VectorJointActionEnv
    with pytest.raises(InputError, match="Unknown backend 'tables'. Did you mean 'table'"):
        gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=2, task=tiny, backend="tables")
    sync = gymnasium.make_vec(
        "dsfp/LayerPruning-v0", 3, vectorization_mode="sync", task=table, backend="table", horizon=2
    )
    assert_equal(env.reset(seed=0), sync.reset(seed=0))
    joint = env.action_space.sample()
    assert_equal(env.step(joint), sync.step(joint))


@pytest.mark.parametrize("mode", MODES)
def test_gymnasiums_wrappers(table, mode):
    ours, theirs = (RecordEpisodeStatistics(env) for env in pair(table, mode, horizon=3))
    ours.reset(seed=0)
    theirs.reset(seed=0)
    for _ in range(8):
        joint = ours.action_space.sample()
        first, second = ours.step(joint)[-1], theirs.step(joint)[-1]
        for infos in (first, second):
            infos.get("episode", {}).pop("t", None)  # seconds
        assert_equal(first, second)
    assert ours.episode_count == theirs.episode_count == 2 * NUMBER
    listed = DictInfoToList(TableVectorEnv(2, table)).reset(seed=0)[1]
    assert [one["conv_3"]["filters_kept"] for one in listed] == [10, 10]


def test_a_pickled_one_goes_on(table):
    env = TableVectorEnv(NUMBER, table, "levels", "budget", 0.5, horizon=3)
    env.reset(seed=1)
    env.step(env.action_space.sample())
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(4):
        joint = env.action_space.sample()
        assert_equal(env.step(joint), twin.step(joint))


def test_the_benchmark_runs(table):
    script = Path(__file__).parent.parent / "benchmarks" / "table.py"
    command = [sys.executable, str(script), "--quick", "--table", str(table.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for row in (
        "| 1,000 | query, int8 |",
        "| 1,000 | dictionary |",
        "| 64 | TableVectorEnv |",
        "| 64 | parallel_env |",
    ):
        assert f"\n{row} " in done.stdout


def test_it_is_the_table(table):
    env = dsfp_env.wrappers.TableVectorEnv(len(table), table, "levels")
    env.reset(seed=0)
    every = table.levels_of(np.arange(len(table))).astype(np.uint8)
    seeds = [env.evaluation_seeds == seed for seed in table.seeds]
    _, rewards, ends, _, infos = env.step(every)
    assert ends.all()
    assert_equal(rewards, infos["score"])
    for seed, which in zip(table.seeds, seeds, strict=True):
        np.testing.assert_array_equal(rewards[which], table.scores(seed=seed)[which])
