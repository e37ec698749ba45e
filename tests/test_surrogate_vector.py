"""Many environments over one surrogate: everything is as with Gymnasium's loop over them."""

import copy
import itertools
import pickle
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from surrogates import make_surrogate
from test_table_vector import MODES, NUMBER, assert_equal, weigh
from torch import nn

import dsfp_env
from dsfp_env import InputError
from dsfp_env.surrogates.drawn import normal_numbers
from dsfp_env.surrogates.surrogate import Surrogate
from dsfp_env.wrappers import JointActionEnv, SurrogateVectorEnv


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory):
    """Four layers, two of them coupled."""
    return Surrogate(make_surrogate(tmp_path_factory.mktemp("surrogates") / "residual"))


def pair(surrogate, mode=AutoresetMode.NEXT_STEP, **kwargs):
    kwargs = {"task": surrogate, **kwargs}
    theirs = SyncVectorEnv([lambda: JointActionEnv(backend="surrogate", **kwargs)] * NUMBER, autoreset_mode=mode)
    return SurrogateVectorEnv(NUMBER, autoreset_mode=mode, distances=True, **kwargs), theirs


def without_distances(told):
    """What was told, of the team and of each agent."""
    return {
        key: without_distances(value) if isinstance(value, dict) else value
        for key, value in told.items()
        if key not in ("distance", "_distance")
    }


@pytest.mark.parametrize("reward", ["accuracy_x_saving", "budget", weigh])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize("mode", MODES)
def test_it_is_as_gymnasiums_own(surrogate, mode, actions, horizon, reward):
    budget = 0.4 if reward == "budget" else None
    ours, theirs = pair(surrogate, mode, actions=actions, horizon=horizon, reward=reward, macs_budget=budget)
    for name in ("num_envs", "observation_space", "single_observation_space", "action_space", "metadata"):
        assert getattr(ours, name) == getattr(theirs, name)
    ours.action_space.seed(0)
    for seed in (5, [3, 0, 2**70, 7, None], None):
        if seed is not None:
            assert_equal(ours.reset(seed=seed), theirs.reset(seed=seed))
        for _ in range(20):
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
        for _ in range(10):
            joint = ours.action_space.sample()
            assert_equal(ours.step(joint), theirs.step(joint))


CONTROLS = [
    {"layers": {"conv_1": 30, "conv_3": (20, 60)}},
    {"tie": [["conv_1", "conv_3"]]},
    {"agents_per": "set"},
]


@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize("control", CONTROLS)
def test_layers_of_agents(surrogate, control, actions):
    ours, theirs = pair(surrogate, actions=actions, horizon=2, params_budget=0.5, reward="budget", **control)
    assert ours.single_action_space == theirs.single_action_space
    assert_equal(ours.reset(seed=1), theirs.reset(seed=1))
    for _ in range(8):
        joint = ours.action_space.sample()
        assert_equal(ours.step(joint), theirs.step(joint))


@pytest.mark.parametrize("budget", [{"macs_budget": 0.05}, {"macs_budget": 0.2}, {"params_budget": 0.6}])
def test_masks_are_those_of_the_loop(surrogate, budget):
    ours, theirs = pair(surrogate, actions="levels", **budget)
    for seed in range(20):
        assert_equal(ours.reset(seed=seed * NUMBER), theirs.reset(seed=seed * NUMBER))
    assert np.unique(ours.reset()[1]["conv_0"]["action_mask"]).tolist() == [0, 1]
    ((what, allowed),) = budget.items()
    *_, infos = ours.step(np.full((NUMBER, 4), 8, np.int8))
    whole = getattr(surrogate.original(), what.removesuffix("_budget"))
    assert (infos[what.removesuffix("_budget")] <= allowed * whole).all()


def test_distances_are_left_out_unless_asked_for(surrogate):
    full, _ = pair(surrogate, horizon=2)
    lean = SurrogateVectorEnv(NUMBER, surrogate, horizon=2)
    team = SurrogateVectorEnv(NUMBER, surrogate, horizon=2, agent_infos=False)
    for result in (full.reset(seed=0), full.step(joint := full.action_space.sample())):
        *first, infos = result
        others = [env.step(joint) if len(first) > 1 else env.reset(seed=0) for env in (lean, team)]
        assert_equal(others[0], (*first, without_distances(infos)))
        of_the_team = {key: value for key, value in without_distances(infos).items() if "conv" not in key}
        assert_equal(others[1], (*first, of_the_team))
    ratios = np.stack([infos[agent]["ratio"] for agent in surrogate.agents], axis=1)
    np.testing.assert_array_equal(infos["distance"], surrogate.distance(ratios))


def test_ratios_are_not_rounded_to_levels(surrogate):
    env = SurrogateVectorEnv(2, surrogate)
    env.reset(seed=0)
    *_, infos = env.step(np.array([[0.0] * 4, [0.2] * 4], np.float32))  # 50 and 58 %, of 8, 6, 8 and 10 filters
    assert [infos[agent]["filters_kept"].tolist() for agent in env.agents] == [[4, 3], [3, 3], [4, 3], [5, 4]]


def test_bad_actions_get_a_sentence_and_change_nothing(surrogate):
    env, twin = (SurrogateVectorEnv(NUMBER, surrogate, horizon=1) for _ in range(2))
    joint = np.zeros((NUMBER, 4), np.float32)
    assert_equal(env.reset(seed=0), twin.reset(seed=0))
    wrong = joint.copy()
    wrong[3, 2] = np.nan
    with pytest.raises(InputError, match="The action of conv_2 in environment 3 is nan"):
        env.step(wrong)
    assert_equal(env.step(joint), twin.step(joint))
    only = {"reset_mask": np.arange(NUMBER) != 3}
    assert_equal(env.reset(options=only), twin.reset(options=only))
    assert_equal(env.step(wrong), twin.step(joint))  # not looked at, as this episode was over


def test_make_vec_chooses(surrogate):
    env = gymnasium.make_vec(
        "dsfp/LayerPruning-v0", num_envs=3, task=str(surrogate.folder), backend="surrogate", workers=2
    )
    assert type(env) is SurrogateVectorEnv
    made = SurrogateVectorEnv(3, evaluator=dsfp_env.SurrogateEvaluator(surrogate))
    assert_equal(made.reset(seed=0), env.reset(seed=0))
    with pytest.raises(InputError, match="expected a SurrogateEvaluator, or none"):
        SurrogateVectorEnv(3, evaluator=dsfp_env.TableEvaluator(dsfp_env.load_table("digits")))
    with pytest.raises(InputError, match="backend='surrogate' only"):
        SurrogateVectorEnv(3, surrogate, backend="table")


def test_a_pickled_one_goes_on(surrogate):
    env = SurrogateVectorEnv(NUMBER, surrogate, "levels", "budget", 0.5, horizon=3)
    env.reset(seed=1)
    env.step(env.action_space.sample())
    twin = pickle.loads(pickle.dumps(env))
    for _ in range(4):
        joint = env.action_space.sample()
        assert_equal(env.step(joint), twin.step(joint))


def test_equal_questions_have_equal_answers_however_many_are_asked(surrogate):
    rng = np.random.default_rng(0)
    lost = surrogate.classes_lost(rng.uniform(10, 90, (3000, 4)))
    seeds = rng.integers(2**63, size=3000)
    together = surrogate.accuracy_lost(lost, seeds)
    alone = [surrogate.accuracy_lost(lost[row : row + 1], seeds[row : row + 1])[0] for row in range(3000)]
    assert together.tolist() == alone
    exact = surrogate._ensemble.predict(1 - lost / surrogate.cost_tables.sizes, exactly=True).accuracy
    quick = surrogate._ensemble.predict(1 - lost / surrogate.cost_tables.sizes).accuracy
    assert 0 < np.abs(exact - quick).max() < 1e-6  # well below what is thought unsure


@pytest.mark.parametrize("widths", [(8, 6, 10), (97, 101, 103, 107, 109)])
def test_distances_are_those_of_what_is_kept(tmp_path, widths):
    """The smallest unit of the first is a 120th; the second have none that many together could be counted in."""
    layers = [nn.Conv2d(*ends, 3, padding=1) for ends in itertools.pairwise((1, *widths))]
    chain = nn.Sequential(*layers, nn.Flatten(), nn.Linear(36 * widths[-1], 3))
    surrogate = dsfp_env.load_surrogate(make_surrogate(tmp_path / "chain", chain))
    asked = np.random.default_rng(1).uniform(10, 90, (20, len(widths)))
    measured, kept = surrogate._kept(surrogate._data["lost"]), surrogate._kept(surrogate.classes_lost(asked))
    nearest = 100 * np.abs(kept[:, None] - measured).mean(2).min(1)
    assert nearest.max() > 1
    assert surrogate.distance(asked) == pytest.approx(nearest, rel=1e-5)


def test_the_benchmark_runs(surrogate):
    script = Path(__file__).parent.parent / "benchmarks" / "surrogate.py"
    command = [sys.executable, str(script), "--quick", "--surrogate", str(surrogate.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for row in ("| 1,000 | query, with a seed |", "| 64 | SurrogateVectorEnv |", "| 64 | parallel_env |"):
        assert f"\n{row} " in done.stdout


def test_one_question_is_answered_as_among_many():
    rng = np.random.default_rng(0)
    whole, seeds = rng.integers(0, 600, (40, 13)), rng.integers(0, 2**62, 40)
    seeds[:3] = 0, -1, 2**63 - 1
    many = normal_numbers(whole, seeds)
    assert many.tolist() == [normal_numbers(whole[[row]], seeds[[row]])[0] for row in range(40)]
    assert abs(normal_numbers(rng.integers(0, 600, (20_000, 5)), np.zeros(20_000)).std() - 1) < 0.03
