"""A copy of an environment goes on in the middle of an episode, and changes nothing for the original."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest

import dsfp_env
from dsfp_env import Evaluator
from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.wrappers.vec_env import ParallelVecEnv

COPIERS = {"deepcopy": copy.deepcopy, "copy": copy.copy, "pickle": lambda env: pickle.loads(pickle.dumps(env))}
KINDS = {
    "box": {"horizon": 3},
    "levels": {"horizon": 3, "actions": "levels", "macs_budget": 0.3, "reward": "budget"},
    "context": {"horizon": 3, "observation": "context", "context": 30},
    "difference": {"horizon": 3, "credit": "difference"},
}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(Evaluator, "workers", 1)


def joint(env, number):
    """A joint action of an environment."""
    levels = isinstance(env.action_space("conv_0"), gymnasium.spaces.Discrete)
    return dict.fromkeys(env.possible_agents, number if levels else 10.0 + 10 * number)


def lived(env, *numbers):
    """What steps and the end of an episode tell, and what is drawn in the next."""
    steps = [(env.step(joint(env, number)), env.state(), env.agents) for number in numbers]
    drawn = {agent: env.action_space(agent).sample() for agent in env.possible_agents}
    return steps, drawn, env.reset()


@pytest.mark.parametrize("copier", COPIERS.values(), ids=COPIERS)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_copy_goes_on_where_it_was(tiny, kind, copier):
    env, same = (dsfp_env.parallel_env(task=tiny, **kind) for _ in range(2))
    for one in (env, same):
        one.reset(seed=7)
        one.step(joint(one, 8))
        [one.action_space(agent).seed(1) for agent in one.possible_agents]
    twin = copier(env)
    assert (twin.agents, twin.evaluation_seed, twin.render()) == (env.agents, 7, env.render())
    np.testing.assert_equal(twin.state(), env.state())
    first = lived(twin, 7, 6)
    np.testing.assert_equal(lived(env, 7, 6), first)  # which the steps of the copy have not changed
    np.testing.assert_equal(lived(same, 7, 6), first)  # as if there had been no copy
    twin.reset()
    twin.step(joint(twin, 8))
    assert (len(env.agents), env.state()[-1]) == (2, 0)  # the time


@pytest.mark.parametrize("copier", COPIERS.values(), ids=COPIERS)
def test_a_seed_that_was_drawn_stays(tiny, copier):
    env = dsfp_env.parallel_env(task=tiny)
    assert copier(env).evaluation_seed == env.evaluation_seed
    with pytest.raises(gymnasium.error.ResetNeeded):
        copier(env).step(joint(env, 1))


def test_a_deep_copy_shares_what_is_known(tiny, monkeypatch):
    env = dsfp_env.parallel_env(task=tiny, horizon=5)
    env.reset(seed=0)
    copies = [copy.deepcopy(env) for _ in range(3)]
    assert all(one.evaluator is env.evaluator for one in copies)
    copies[0].step(joint(env, 4))
    monkeypatch.setattr(Measurement, "build", None)
    for one in (env, *copies[1:], copy.deepcopy(copies[0])):
        one.step(joint(env, 4))
    assert copy.deepcopy(tiny) is tiny


def test_a_pickle_takes_the_given_evaluator_along_and_makes_a_made_one(tiny):
    given = Evaluator(tiny, "l1", round_to=2)
    given.evaluate({"conv_0": 50.0, "conv_1": 50.0})
    env = dsfp_env.parallel_env(evaluator=given)
    assert pickle.loads(pickle.dumps(env)).evaluator._memo.known == given._memo.known
    named = dsfp_env.parallel_env(task="digits", backend="table")
    assert len(pickle.dumps(named)) < 20_000  # no table in it


def test_a_function_that_does_not_pickle_is_named(tiny):
    env = dsfp_env.parallel_env(task=tiny, reward=lambda outcome, original: 1.0)
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(env)
    assert copy.deepcopy(env)._rules is env._rules


@pytest.mark.parametrize("make", [dsfp_env.env, dsfp_env.raw_env])
@pytest.mark.parametrize("copier", [COPIERS["deepcopy"], COPIERS["pickle"]], ids=["deepcopy", "pickle"])
def test_turn_by_turn(tiny, make, copier):
    """In the middle of a step: one agent has acted, the other has not."""
    env = make(task=tiny, horizon=2)
    env.reset(seed=3)
    env.step(np.float32([50]))
    twin = copier(env)
    seen = []
    for one in (twin, env):
        for ratio in (30, 20, 70):
            one.step(np.float32([ratio]))
        seen.append((one.last(), one.agent_selection, dict(one.rewards), one.infos))
    np.testing.assert_equal(*seen)


@pytest.mark.parametrize("copier", [COPIERS["deepcopy"], COPIERS["pickle"]], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("kind", ["joint", "layer by layer", "vector", "slots", "table"])
def test_other_clothes(tiny, kind, copier):
    if kind == "layer by layer":
        env = gymnasium.make("dsfp/LayerByLayer-v0", task=tiny, horizon=3)
        actions = np.float32([-0.5])
    elif kind == "joint":
        env = gymnasium.make("dsfp/LayerPruning-v0", task=tiny, horizon=3)
        actions = np.float32([-0.5, 0.5])
    elif kind == "slots":
        evaluator = Evaluator(tiny)
        env = ParallelVecEnv([dsfp_env.parallel_env(evaluator=evaluator, horizon=3) for _ in range(2)], workers=1)
        env.seed(0)
        actions = np.float32([[-1], [0], [1], [0.5]])
    else:
        env = gymnasium.make_vec(
            "dsfp/LayerPruning-v0",
            num_envs=2,
            horizon=3,
            **({"task": tiny, "workers": 1} if kind == "vector" else {"task": "digits", "backend": "table"}),
        )
        actions = np.linspace(-1, 1, int(np.prod(env.action_space.shape)), dtype=np.float32)
        actions = actions.reshape(env.action_space.shape)
    env.reset() if kind == "slots" else env.reset(seed=0)
    env.step(actions)
    twin = copier(env)
    first = [twin.step(actions / 2), twin.step(actions / 3)]
    np.testing.assert_equal([env.step(actions / 2), env.step(actions / 3)], first)
