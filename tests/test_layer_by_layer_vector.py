"""Many environments that decide layer by layer over one table or surrogate: all is as with a loop over them."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from surrogates import make_surrogate
from test_table_vector import MODES, NUMBER, assert_equal

import dsfp_env
from dsfp_env import InputError
from dsfp_env.surrogates.surrogate import Surrogate
from dsfp_env.wrappers import LayerByLayerEnv, LayerByLayerVecEnv, LayerByLayerVectorEnv

LEVELS = {"actions": "levels"}
GAMES = {
    "box": {"horizon": 3},
    "levels": {**LEVELS, "horizon": 2, "reward": "budget", "macs_budget": 0.3},
    "parameters": {**LEVELS, "params_budget": 0.3, "order": "reverse"},
    "bounded": {**LEVELS, "layers": {"first": (20, 60)}, "macs_budget": 0.4},
    "a set": {"agents_per": "set", "macs_budget": 0.4},
}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A table, and a surrogate of four layers of which two are coupled, by backend."""
    surrogate = Surrogate(make_surrogate(tmp_path_factory.mktemp("surrogates") / "residual"))
    return {"table": dsfp_env.load_table("digits"), "surrogate": surrogate}


def pair(known, backend, mode, **game):
    kwargs = {"task": known[backend], "backend": backend, **game}
    theirs = SyncVectorEnv([lambda: LayerByLayerEnv(**kwargs)] * NUMBER, autoreset_mode=mode)
    more = {"distances": True} if backend == "surrogate" else {}
    return LayerByLayerVectorEnv(NUMBER, autoreset_mode=mode, **more, **kwargs), theirs


@pytest.mark.parametrize("game", GAMES.values(), ids=GAMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backend", ["table", "surrogate"])
def test_it_is_as_gymnasiums_own(known, backend, mode, game):
    ours, theirs = pair(known, backend, mode, **game)
    for name in ("num_envs", "observation_space", "single_observation_space", "action_space", "metadata"):
        assert getattr(ours, name) == getattr(theirs, name)
    ours.action_space.seed(0)
    for seed in (5, [3, 0, 2**70, 7, None], None):
        if seed is not None:
            assert_equal(ours.reset(seed=seed), theirs.reset(seed=seed))
        for _ in range(20):
            actions = ours.action_space.sample()
            assert_equal(ours.step(actions), theirs.step(copy.deepcopy(actions)))


def test_copies_go_on_alike(known):
    env, _ = pair(known, "table", AutoresetMode.NEXT_STEP, **GAMES["levels"])
    env.reset(seed=0)
    env.step(np.full(NUMBER, 4))
    twins = copy.deepcopy(env), pickle.loads(pickle.dumps(env))
    for _ in range(12):
        actions = env.action_space.sample()
        told = env.step(actions)
        for twin in twins:
            assert_equal(told, twin.step(actions))


def test_whoever_chooses_under_the_masks_keeps_the_budget(known):
    env, _ = pair(known, "table", AutoresetMode.SAME_STEP, **GAMES["bounded"])
    rng, costs = np.random.default_rng(0), set()
    env.reset(seed=0)
    for step in range(40):
        masks = env.action_masks()
        assert masks.shape == (NUMBER, 9)
        *_, infos = env.step(np.array([rng.choice(np.flatnonzero(mask)) for mask in masks]))
        costs |= set(infos["final_info"]["relative_macs"].tolist()) if step % 4 == 3 else set()
    assert max(costs) <= 0.4
    assert len(costs) > 20


def test_make_vec_chooses(known, tiny):
    made = gymnasium.make_vec("dsfp/LayerByLayer-v0", num_envs=3, task="digits", backend="table", horizon=2)
    assert type(made) is LayerByLayerVectorEnv
    live = gymnasium.make_vec("dsfp/LayerByLayer-v0", num_envs=2, task=tiny, seed=1)
    assert type(live) is SyncVectorEnv
    first, second = (env.unwrapped.parallel_env for env in live.envs)
    assert first.evaluator is second.evaluator
    with pytest.raises(InputError, match="Did you mean 'horizon'"):
        gymnasium.make_vec("dsfp/LayerByLayer-v0", num_envs=2, backend="table", horizn=2)


def test_it_refuses(known):
    env, _ = pair(known, "surrogate", AutoresetMode.NEXT_STEP, **LEVELS)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(NUMBER, int))
    env.reset()
    for wrong in (np.full(NUMBER, 9), np.full(NUMBER, 0.5), np.zeros(NUMBER - 1, int), "none", None):
        with pytest.raises(InputError, match="The actions of conv_0 are"):
            env.step(wrong)
    with pytest.raises(InputError, match="without reset_mask"):
        env.reset(options={"reset_mask": np.ones(NUMBER, bool)})
    with pytest.raises(InputError, match="expected observation='layers'"):
        LayerByLayerVectorEnv(2, observation="context")
    box = LayerByLayerVectorEnv(2)
    box.reset()
    for wrong in (1.5, np.nan):
        with pytest.raises(InputError, match="The actions of conv_0 are"):
            box.step(np.full((2, 1), wrong, np.float32))
    with pytest.raises(InputError, match="Masks are for levels"):
        box.action_masks()


def test_as_stable_baselines3_sees_it(known):
    game = {"task": known["table"], **GAMES["levels"]}
    env, ours = (
        LayerByLayerVecEnv(NUMBER, **game),
        LayerByLayerVectorEnv(NUMBER, autoreset_mode="SameStep", **game),
    )
    env.seed(3)
    np.testing.assert_array_equal(env.reset(), ours.reset(seed=3)[0])
    for step in range(16):
        actions = np.full(NUMBER, step % 9)
        observations, rewards, dones, infos = env.step(actions)
        seen, earned, over, _, told = ours.step(actions)
        np.testing.assert_array_equal(observations, seen)
        np.testing.assert_array_equal(rewards, earned.astype(np.float32))
        assert dones.tolist() == over.tolist() == [step % 8 == 7] * NUMBER
        assert ["accuracy" in info for info in infos] == [step % 4 == 3] * NUMBER
        if dones.all():
            assert infos[2]["relative_macs"] == told["final_info"]["relative_macs"][2]
            np.testing.assert_array_equal(infos[2]["terminal_observation"], told["final_obs"][2])
        np.testing.assert_array_equal(env.env_method("action_masks", indices=[1])[0], ours.action_masks()[1])
    with pytest.raises(InputError, match="expected 'action_masks'"):
        env.env_method("render")


def test_ppo_learns_in_turn_within_the_budget(known):
    sb3_contrib = pytest.importorskip("sb3_contrib")
    game = {**LEVELS, "task": known["table"], "reward": "budget", "macs_budget": 0.1}
    env, costs = LayerByLayerVecEnv(8, **game), []

    def note(told, _):
        costs.extend(info["relative_macs"] for info in told["infos"] if "relative_macs" in info)
        return True

    model = sb3_contrib.MaskablePPO("MlpPolicy", env, n_steps=16, batch_size=32, n_epochs=1, seed=0)
    model.learn(256, callback=note)
    assert len(costs) == 64
    assert max(costs) <= 0.1


def test_there_is_one_way_to_begin_the_next_episode_for_stable_baselines():
    with pytest.raises(InputError, match="Stable-Baselines3 expects that of the same step"):
        LayerByLayerVecEnv(2, autoreset_mode="next_step")
