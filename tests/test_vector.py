"""Several environments at once: everything is as with one after another."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import dsfp_env
from dsfp_env import InputError
from dsfp_env.wrappers import JointActionEnv, VectorJointActionEnv, step_together


def assert_equal(first, second):
    """Deeply, types and all."""
    assert type(first) is type(second)
    if isinstance(first, dict):
        assert list(first) == list(second)
        for key in first:
            assert_equal(first[key], second[key])
    elif isinstance(first, (tuple, list)):
        assert len(first) == len(second)
        for pair in zip(first, second, strict=True):
            assert_equal(*pair)
    elif isinstance(first, np.ndarray) and first.dtype != object:
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    elif isinstance(first, np.ndarray):
        assert_equal(first.tolist(), second.tolist())
    else:
        assert first == second


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("actions", ["box", "levels"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_it_is_as_gymnasiums_own(tiny, horizon, actions, mode):
    kwargs = {"task": tiny, "horizon": horizon, "actions": actions}
    ours = VectorJointActionEnv(num_envs=3, autoreset_mode=mode, workers=1, **kwargs)
    theirs = SyncVectorEnv([lambda: JointActionEnv(**kwargs)] * 3, autoreset_mode=mode)
    for name in ("num_envs", "observation_space", "action_space", "single_observation_space"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.single_action_space == theirs.single_action_space
    assert ours.metadata == theirs.metadata
    assert ours.metadata["autoreset_mode"] is mode
    ours.action_space.seed(0)
    for seed in (5, [3, 3, 7], None):
        if seed is not None:
            assert_equal(ours.reset(seed=seed), theirs.reset(seed=seed))
        for _ in range(7):
            joint = ours.action_space.sample()
            assert_equal(ours.step(joint), theirs.step(copy.deepcopy(joint)))
    only = {"reset_mask": np.array([False, True, False])}
    assert_equal(ours.reset(seed=9, options=dict(only)), theirs.reset(seed=9, options=dict(only)))
    assert_equal(ours.step(joint), theirs.step(joint))
    ours.close()


def test_a_step_is_evaluated_at_once(tiny, built):
    env = gymnasium.make_vec(
        "dsfp/LayerPruning-v0", num_envs=4, vectorization_mode="vector_entry_point", task=tiny, workers=2
    )
    assert isinstance(env, VectorJointActionEnv)
    assert isinstance(gymnasium.make_vec("dsfp/LayerPruning-v0", num_envs=2, task=tiny), VectorJointActionEnv)
    assert len({id(one.parallel_env.evaluator) for one in env.envs}) == 1
    env.reset(seed=1)
    observations, rewards, ends, _, infos = env.step(np.zeros((4, 2), np.float32))
    assert not built  # in this process
    assert observations.shape == (4, *env.single_observation_space.shape)
    np.testing.assert_array_equal(infos["score"], rewards)
    assert ends.all()
    env.close()


def test_parallel_environments_step_together(tiny):
    def envs():
        first = dsfp_env.parallel_env(task=tiny, actions="levels", horizon=2)
        yield first
        for horizon in (1, 3):
            yield dsfp_env.parallel_env(evaluator=first.evaluator, actions="levels", horizon=horizon)

    ours, theirs = list(envs()), list(envs())
    for seed, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        one.reset(seed=seed)
        other.reset(seed=seed)
    rng = np.random.default_rng(0)
    for _ in range(3):
        actions = [{agent: int(rng.integers(9)) for agent in env.agents} for env in ours]
        together = step_together(ours, actions, workers=1)
        assert_equal(together, [env.step(one) for env, one in zip(theirs, actions, strict=True)])
    assert [env.agents for env in ours] == [[], [], []]
    twin = pickle.loads(pickle.dumps(ours[2]))
    assert_equal(twin.reset(seed=2)[1], theirs[2].reset(seed=2)[1])
    assert_equal(twin.step({"conv_0": 1, "conv_1": 2}), theirs[2].step({"conv_0": 1, "conv_1": 2}))
    assert together[1] == ({}, {}, {}, {}, {})


def test_bad_input_gets_a_sentence_and_changes_nothing(tiny):
    first = dsfp_env.parallel_env(task=tiny, horizon=2, seed=0)
    second = dsfp_env.parallel_env(evaluator=first.evaluator, seed=0)
    good, bad = {"conv_0": 50.0, "conv_1": 50.0}, {"conv_0": 50.0, "conv_1": 5.0}
    with pytest.raises(gymnasium.error.ResetNeeded):
        step_together([first, second], [good, good])
    before = first.reset()[1]
    second.reset()
    with pytest.raises(InputError, match="The pruning ratio of conv_1 is 5"):
        step_together([first, second], [good, bad])
    assert first._infos() == before
    with pytest.raises(InputError, match="1 joint actions came for 2 environments"):
        step_together([first, second], [good])
    with pytest.raises(InputError, match="several evaluators: expected one for all"):
        step_together([first, dsfp_env.parallel_env(task=tiny)], [good, {}])
    with pytest.raises(InputError, match="num_envs is 0"):
        VectorJointActionEnv(num_envs=0, task=tiny)
