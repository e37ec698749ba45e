"""Every mistake that `check_env` promises to find, made on purpose; and our environments, without any."""

import functools
import random
import time

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from pettingzoo.utils.wrappers import BaseParallelWrapper

import dsfp_env
from dsfp_env import InputError
from dsfp_env.testing import CheckError, check_env
from dsfp_env.toy import ToyEnv


def global_states():
    return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002


# Environments


class Clipping(ToyEnv):
    """Levels outside are taken for the nearest; that is allowed."""

    def step(self, actions):
        return super().step({agent: np.clip(action, 0, 8) for agent, action in actions.items()})


class Truncating(ToyEnv):
    def step(self, actions):
        observations, rewards, terminations, truncations, infos = super().step(actions)
        return observations, rewards, truncations, terminations, infos


class Counting(ToyEnv):
    steps = []  # noqa: RUF012 - of all environments together

    def score(self, ratios):
        self.steps.append(ratios)
        return super().score(ratios)


class CountingAndClipping(Clipping, Counting):
    pass


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("kwargs", [{}, {"actions": "box"}, {"macs_budget": 0.3}], ids=str)
def test_the_toy_is_without_mistakes(kwargs, horizon):
    check_env(lambda: ToyEnv(horizon=horizon, **kwargs))
    check_env(ToyEnv(horizon=horizon, **kwargs))
    check_env(BaseParallelWrapper(ToyEnv(horizon=horizon, **kwargs)))


@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize(
    "kwargs",
    [
        {"actions": "box"},
        {"actions": "levels"},
        {"actions": "levels", "macs_budget": 0.3, "reward": "budget"},
        {"actions": "levels", "credit": "difference"},
        {"observation": "context"},
    ],
    ids=str,
)
def test_the_environment_is_without_mistakes(tiny, monkeypatch, kwargs, horizon):
    monkeypatch.setattr("dsfp_env.evaluation.evaluator.available_cores", lambda: 1)  # no processes
    check_env(lambda: dsfp_env.parallel_env(task=tiny, horizon=horizon, **kwargs), episodes=2)
    check_env(BaseParallelWrapper(dsfp_env.parallel_env(task=tiny, horizon=horizon, **kwargs)), episodes=1)


@pytest.mark.parametrize(
    "kwargs", [{"actions": "box"}, {"actions": "levels", "macs_budget": 0.1, "horizon": 4}], ids=str
)
def test_the_real_task_is_without_mistakes(digits, kwargs):
    check_env(lambda: dsfp_env.parallel_env(task=digits, **kwargs), episodes=1)


def test_what_is_allowed():
    check_env(Clipping)
    check_env(Truncating, may_truncate=True)


def test_what_it_costs(tiny, built):
    for made, expected in ((Counting, (2 * 3 + 2) * 2), (CountingAndClipping, (2 * 3 + 2) * 2 + 4)):
        Counting.steps.clear()
        check_env(functools.partial(made, horizon=2), episodes=3)
        assert len(Counting.steps) == expected

    check_env(lambda: dsfp_env.parallel_env(task=tiny), episodes=2)
    assert len(built) == 2 * 2 + 1


def test_checking_leaves_global_randomness_as_it_is():
    before = global_states()
    check_env(ToyEnv)
    assert global_states() == before


def in_step(change, base=ToyEnv, **kwargs):
    """Makes an environment with a mistake: what a step returns is changed."""

    class Env(base):
        def step(self, actions):
            told = super().step(actions)
            return change(self, *told) if told[1] else told

    return functools.partial(Env, **kwargs)


def in_reset(change, **kwargs):
    class Env(ToyEnv):
        def reset(self, seed=None, options=None):
            return change(self, *super().reset(seed=seed))

    return functools.partial(Env, **kwargs)


def in_both(change, base=ToyEnv, **kwargs):
    """The same, in the observations and infos of resets and steps."""

    class Env(base):
        def _observe(self):
            return change(self, super()._observe(), "observation")

        def _infos(self):
            return change(self, super()._infos(), "info")

    return functools.partial(Env, **kwargs)


def observed(change, **kwargs):
    def of_all(env, told, kind):
        return {agent: change(env, seen) for agent, seen in told.items()} if kind == "observation" else told

    return in_both(of_all, **kwargs)


def informed(base=ToyEnv, **more):
    """Infos with more in them; functions are called with the environment."""

    def of_all(env, told, kind):
        added = {key: value(env) if callable(value) else value for key, value in more.items()}
        return {agent: {**info, **added} for agent, info in told.items()} if kind == "info" else told

    return in_both(of_all, base, macs_budget=0.3)


def rewarded(change, **kwargs):
    return in_step(
        lambda env, o, r, *rest: (o, {agent: change(env, x) for agent, x in r.items()}, *rest), **kwargs
    )


def with_attributes(**attributes):
    return type("Env", (ToyEnv,), attributes)


def refused(change):
    """Makes an environment which does something before it refuses an action."""

    class Env(ToyEnv):
        def step(self, actions):
            try:
                return super().step(actions)
            except InputError as error:
                change(self, error)
                raise

    return Env


def raise_(error):
    raise error


def drawn():
    return float(np.random.random())  # noqa: NPY002


def from_fork():
    """A number that depends on PyTorch's global generator, and leaves it alone."""
    with torch.random.fork_rng(devices=[]):
        return torch.rand(1).item()


class FreshSpaces(ToyEnv):
    def action_space(self, agent):
        return Discrete(9)


class FreshBox(ToyEnv):
    def observation_space(self, agent):
        return Box(0, 1, (4,), np.float32)


class Unseeded(ToyEnv):
    """A generator of its own, which reset does not make anew, as from the second step on."""

    def __init__(self):
        super().__init__(horizon=2)
        self._noise = np.random.default_rng()

    def score(self, ratios):
        return super().score(ratios) * (self._noise.random() if self._time == 1 else 1)


class LateRandom(ToyEnv):
    """Draws from NumPy's global generator from the second episode on."""

    episodes = 0

    def reset(self, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed)

    def score(self, ratios):
        return super().score(ratios) + (drawn() if self.episodes > 1 else 0)


class NotEmptied(ToyEnv):
    def step(self, actions):
        told = super().step(actions)
        self.agents = list(self.possible_agents)
        return told


class Endless(ToyEnv):
    def __init__(self):
        super().__init__(horizon=10**9)


class Buffered(ToyEnv):
    """Two arrays in turn, so that an observation and the next one share nothing."""

    def _observe(self):
        if not hasattr(self, "_buffers"):
            self._buffers = [super()._observe(), super()._observe()]
        self._buffers.reverse()
        for agent, seen in super()._observe().items():
            self._buffers[0][agent][:] = seen
        return dict(self._buffers[0])


class OneArray(ToyEnv):
    def _observe(self):
        self._seen = getattr(self, "_seen", super()._observe())
        return dict(self._seen)


class OneInfo(ToyEnv):
    def _infos(self):
        self._told = getattr(self, "_told", {agent: {} for agent in self.possible_agents})
        for agent, info in super()._infos().items():
            self._told[agent].update(info)
        return dict(self._told)


class NoResetNeeded(ToyEnv):
    def step(self, actions):
        self._was_reset = True
        if not self.agents:
            return {}, {}, {}, {}, {}
        return super().step(actions)


class AssertsReset(ToyEnv):
    def step(self, actions):
        assert self._was_reset, "reset first"
        return super().step(actions)


class RaisesAtTheEnd(ToyEnv):
    def step(self, actions):
        return super().step(actions if actions else dict.fromkeys(self.possible_agents, 0))


class ClosedAtTheEnd(ToyEnv):
    def step(self, actions):
        return ({},) * 4 if self._was_reset and not actions and not self.agents else super().step(actions)


class PlaysOn(ToyEnv):
    """Forgets that the episode is over."""

    def step(self, actions):
        if self._was_reset and actions:
            self.agents = list(self.possible_agents)
        return super().step(actions)


class NegativeLevels(ToyEnv):
    """As Python's lists: -1 is the last."""

    def step(self, actions):
        return super().step({agent: action % 9 if action < 0 else action for agent, action in actions.items()})


class NanIsFifty(ToyEnv):
    def __init__(self):
        super().__init__("box")

    def step(self, actions):
        return super().step({agent: np.clip(np.nan_to_num(a, nan=50), 10, 90) for agent, a in actions.items()})


class ClipsInPlace(ToyEnv):
    def __init__(self):
        super().__init__("box")

    def step(self, actions):
        for action in actions.values():
            np.round(action, out=action)
        return super().step(actions)


class TimeInState(ToyEnv):
    def state(self):
        return np.append(super().state()[:-1], np.float32(time.perf_counter() % 1))


class NoState(ToyEnv):
    """Counts refused actions too, where only the end of the episode shows it."""

    def __init__(self):
        super().__init__(horizon=3)
        del self.state_space

    def _observe(self):
        return {agent: np.ones(4, np.float32) for agent in self.possible_agents}

    def step(self, actions):
        try:
            return super().step(actions)
        except InputError:
            self._time += 1
            raise


class HasLambda(ToyEnv):
    def __init__(self):
        super().__init__()
        self.schedule = lambda step: step


class ForgetsHorizon(ToyEnv):
    def __init__(self):
        super().__init__(horizon=2)

    def __setstate__(self, state):
        self.__dict__.update(state, _horizon=1)


class NoOptions(ToyEnv):
    def reset(self, seed=None):
        return super().reset(seed)


class SharedList(ToyEnv):
    """`agents` is the list of possible agents itself, and is emptied."""

    def step(self, actions):
        told = super().step(actions)
        self.possible_agents.clear()
        return told


class OneWorse(ToyEnv):
    credit = "shared"

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, {**rewards, **({"conv_1": 0.5} if rewards else {})}, *rest


MISTAKES = {
    "terminations and truncations swapped": (
        Truncating,
        "step 1 of episode 1 truncated conv_0 (terminated: False): expected termination",
    ),
    "both at once": (
        in_step(lambda env, o, r, te, tr, i: (o, r, te, te, i)),
        "truncated conv_0 (terminated: True): expected termination",
    ),
    "observation outside its space": (
        observed(lambda env, seen: seen * 3),
        "reset of episode 1: the observation of conv_1 is array([2., 0., 0., 0.], dtype=float32): expected "
        "numbers within Box(0.0, 1.0, (4,), float32), so clip or rescale it (env.observation_space('conv_1'))",
    ),
    "float64": (
        observed(lambda env, seen: seen.astype(float)),
        "observation of conv_0 is an array of float64: expected float32, so convert it with .astype(np.float32)",
    ),
    "NaN in an observation": (observed(lambda env, seen: seen * np.float32("nan")), "made NaN"),
    "another shape": (observed(lambda env, seen: seen[:3]), "of shape (3,): expected an array"),
    "a list": (observed(lambda env, seen: seen.tolist()), "of type list: expected an array, np.array([...]"),
    "all zeros": (observed(lambda env, seen: seen * 0), "the observation of conv_0 is all zeros"),
    "new action spaces": (FreshSpaces, "action_space('conv_0') gave another object after reset of episode 1"),
    "new observation spaces": (FreshBox, "observation_space('conv_0') gave another object"),
    "no space": (with_attributes(action_space=lambda self, agent: 9), "action_space('conv_0') returned 9"),
    "NumPy's global generator from the second step on": (
        rewarded(lambda env, x: x + (drawn() if env._time == 2 else 0), horizon=2),
        "step 2 of episode 1 used the global random generator of numpy.random",
    ),
    "NumPy's global generator in the second episode": (
        LateRandom,
        "step 1 of episode 2 used the global random generator of numpy.random",
    ),
    "Python's global generator in a reset": (
        in_reset(lambda env, o, i: ({agent: np.full(4, random.random(), np.float32) for agent in o}, i)),
        "reset of episode 1 used the global random generator of random: expected that it is left alone",
    ),
    "PyTorch's global generator is seeded": (
        in_reset(lambda env, o, i: (torch.manual_seed(7), (o, i))[1]),
        "reset of episode 1 used the global random generator of torch: expected that it is left alone",
    ),
    "PyTorch's global generator is read": (
        rewarded(lambda env, x: x + from_fork()),
        "step 1 of episode 1: rewards['conv_0'] was",
    ),
    "a generator that is not seeded": (Unseeded, "step 2 of episode 1: observations['conv_0'] was"),
    "a clock in infos": (
        informed(seconds=lambda env: time.perf_counter()),
        "reset of episode 1: infos['conv_0']['seconds'] was",
    ),
    "IndexError": (
        refused(lambda env, error: raise_(IndexError("list index out of range"))),
        "step with the action 9 of conv_2, outside Discrete(9), raised IndexError (list index out of range): "
        "expected that it is clipped, or a ValueError whose message names conv_2",
    ),
    "refused without a name": (
        refused(lambda env, error: raise_(ValueError("bad action"))),
        "Discrete(9), raised ValueError (bad action): expected that it is clipped, or a ValueError whose message",
    ),
    "refused, and the episode is over": (
        refused(lambda env, error: env.agents.clear()),
        "was refused, but env.agents was ['conv_0', 'conv_1', 'conv_2'] and then []",
    ),
    "refused, and the state is another": (
        refused(lambda env, error: setattr(env, "_score", 0.5)),
        "step with the action 9 of conv_2, outside Discrete(9), was refused, but env.state() was array(",
    ),
    "refused, and time goes on": (
        NoState,
        "step 1 of episode 1: agents was ['conv_0', 'conv_1', 'conv_2'] and then [] in the same episode after a "
        "refused action: expected the same; check all actions",
    ),
    "-1 is the last level": (
        NegativeLevels,
        "step with the action -1 of conv_2, outside Discrete(9), was neither clipped to 0 nor refused: expected a",
    ),
    "NaN is a ratio": (NanIsFifty, "was not refused: expected a ValueError that names conv_2"),
    "actions are changed": (ClipsInPlace, "step 1 of episode 1 changed its argument: actions['conv_0'] was"),
    "NaN as reward": (rewarded(lambda env, x: float("nan")), "the reward of conv_0 is nan: expected a finite"),
    "infinite reward": (rewarded(lambda env, x: -float("inf")), "the reward of conv_0 is -inf"),
    "float32 as reward": (
        rewarded(lambda env, x: np.float32(x)),
        "of type numpy.float32: expected a Python float, which other libraries ask for; convert it with",
    ),
    "np.bool": (
        in_step(lambda env, o, r, te, *rest: (o, r, {agent: np.bool_(x) for agent, x in te.items()}, *rest)),
        "terminations['conv_0'] is np.True_, of type numpy.bool: expected Python's True or False",
    ),
    "agents are not emptied": (
        NotEmptied,
        "step 1 of episode 1 left env.agents = ['conv_0', 'conv_1', 'conv_2'], and ended conv_0, conv_1, conv_2: "
        "expected []",
    ),
    "possible agents are emptied": (SharedList, "env.possible_agents is []: expected a list of names"),
    "never ends": (Endless, "Episode 1 has not ended after 1000 steps: expected an end"),
    "a common info": (
        in_step(lambda env, o, r, te, tr, i: (o, r, te, tr, {**i, "common": {}})),
        "step 1 of episode 1: in infos, none missing and common unknown: expected the agents that were live "
        "before, conv_0, conv_1, conv_2, and no other key",
    ),
    "a missing reward": (
        in_step(lambda env, o, r, *rest: (o, {"conv_0": 0.0, "conv_1": 0.0}, *rest)),
        "in rewards, conv_2 missing",
    ),
    "max_cycles": (with_attributes(max_cycles=1), "has an attribute max_cycles: expected another name"),
    "compute_reward": (with_attributes(compute_reward=lambda self: 0), "has an attribute compute_reward"),
    "infos of the reset lack a key": (
        in_reset(lambda env, o, i: (o, {agent: {"score": 0.0} for agent in i})),
        "step 1 of episode 1: infos['conv_0'] has the keys ratio, relative_macs, score, and in reset it had "
        "score: expected the same ones",
    ),
    "names of modules": (
        functools.partial(ToyEnv, best_ratios={"features.0": 50.0}),
        "An agent is named 'features.0': expected a word and a number, as in conv_0",
    ),
    "the array of the last observation": (OneArray, "the observation of conv_0 shares memory with the one before"),
    "an array of an earlier observation": (
        functools.partial(Buffered, horizon=3),
        "By step 3 of episode 1, what reset of episode 1 returned has changed: observations['conv_0'] was",
    ),
    "the dictionary of the last info": (
        OneInfo,
        "By step 1 of episode 1, what reset of episode 1 returned has changed: infos['conv_0']['score'] was 0.0",
    ),
    "step before reset": (
        NoResetNeeded,
        "step before the first reset returned: expected gymnasium.error.ResetNeeded",
    ),
    "assert before reset": (AssertsReset, "step before the first reset raised AssertionError (reset first"),
    "step({}) raises": (RaisesAtTheEnd, "step({}) after the end of an episode raised ResetNeeded"),
    "step({}) returns four": (ClosedAtTheEnd, "returned ({}, {}, {}, {}): expected five empty dictionaries"),
    "plays on after the end": (PlaysOn, "step with actions after the end of an episode returned: expected"),
    "state outside its space": (
        with_attributes(state=lambda self: np.full(5, 2, np.float32)),
        "state() after reset of episode 1 is array([2., 2., 2., 2., 2.], dtype=float32): expected numbers within",
    ),
    "state of zeros": (
        with_attributes(state=lambda self: np.zeros(5, np.float32)),
        "state() after reset of episode 1 is all zeros",
    ),
    "state by the clock": (TimeInState, "reset of episode 1: state was array("),
    "a mask of floats": (informed(action_mask=np.ones(9)), "the action_mask of conv_0 is array([1., 1."),
    "an empty mask": (informed(action_mask=np.zeros(9, np.int8)), "every action that may be chosen, at least one"),
    "a short mask": (informed(action_mask=np.ones(8, np.int8)), "int8 array that Discrete(9).sample(mask) takes"),
    "a mask that allows too much": (
        informed(action_mask=lambda env: np.ones(9, np.int8)),
        "step 1 of episode 1: infos['conv_0']['relative_macs'] is 0.9000, and env.macs_budget is 0.3, though",
    ),
    "float32 in infos": (
        informed(loss=np.float32(1)),
        "infos['conv_0']['loss'] is np.float32(1.0), of type numpy.float32: expected a finite Python number",
    ),
    "NaN in infos": (informed(loss=float("nan")), "infos['conv_0']['loss'] is nan, of type float: expected"),
    "an infinite array in infos": (informed(loss=np.array([np.inf])), "infos['conv_0']['loss'] is array([inf])"),
    "text in infos": (informed(layer="features.0"), "infos['conv_0']['layer'] is 'features.0', of type str"),
    "infos are no dictionaries": (in_reset(lambda env, o, i: (o, dict.fromkeys(i))), "infos['conv_0'] is None"),
    "evaluations in a reset": (
        informed(evaluations=1),
        "reset of episode 1: infos['conv_0']['evaluations'] is 1: expected 0, the same",
    ),
    "no evaluations in a step": (
        informed(evaluations=0),
        "step 1 of episode 1: infos['conv_0']['evaluations'] is 0: expected 1, the same for all agents",
    ),
    "too many evaluations": (
        informed(evaluations=lambda env: 5 * env._time, base=with_attributes(evaluations_per_step=4)),
        "infos['conv_0']['evaluations'] is 5: expected from 1 to 4",
    ),
    "rewards differ": (OneWorse, "'conv_1': 0.5"),
    "cannot be pickled": (HasLambda, "Pickling the environment raised"),
    "copies differ": (ForgetsHorizon, "in a pickled copy: expected the same; inherit from gymnasium.utils"),
    "reset without options": (NoOptions, "reset of episode 1 raised TypeError"),
    "reset returns observations only": (
        with_attributes(reset=lambda self, seed=None, options=None: self._observe()),
        "expected dictionaries by agent, return observations, infos",
    ),
    "reset leaves nobody": (
        in_reset(lambda env, o, i: (env.agents.clear(), (o, i))[1]),
        "reset of episode 1 left env.agents = []: expected some of env.possible_agents",
    ),
    "agents are a tuple": (
        in_reset(lambda env, o, i: (setattr(env, "agents", tuple(o)), (o, i))[1]),
        "env.agents is ('conv_0', 'conv_1', 'conv_2'): expected a list",
    ),
    "step returns four": (
        in_step(lambda env, o, r, te, tr, i: (o, r, te, i)),
        "expected dictionaries by agent, return observations, rewards, terminations, truncations, infos",
    ),
    "step raises": (rewarded(lambda env, x: x / 0), "step 1 of episode 1 raised ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_of_an_environment_gets_its_sentence(mistake):
    make_env, sentence = MISTAKES[mistake]
    with pytest.raises(CheckError) as caught:
        check_env(make_env)
    message = str(caught.value)
    assert sentence in message
    assert "expected" in message
    assert "\n" not in message


NO_ENVIRONMENTS = {
    "turn-based": (
        dsfp_env.raw_env,
        "make_env() is <",
        "this one is turn-based (AEC): check the parallel environment",
    ),
    "an id": (
        "dsfp/layer_pruning-v0",
        "make_env is 'dsfp/layer_pruning-v0'",
        "lambda: pettingzoo.make('parallel', 'd",
    ),
    "a number": (7, "make_env is 7", "inherit from pettingzoo.ParallelEnv"),
    "not what was meant": (dict, "make_env() is {}", "inherit from pettingzoo.ParallelEnv"),
    "of Gymnasium": (
        lambda: gymnasium.make("CartPole-v1"),
        "make_env() is <",
        "with one controller: use gymnasium.utils.env_checker.check_env",
    ),
    "a function with arguments": (
        lambda horizon: ToyEnv(horizon),
        "make_env() raised TypeError",
        "without arguments",
    ),
}


@pytest.mark.parametrize("kind", NO_ENVIRONMENTS)
def test_what_is_no_parallel_environment_is_told_so(tiny, kind):
    given, came, advice = NO_ENVIRONMENTS[kind]
    given = functools.partial(given, task=tiny) if kind == "turn-based" else given
    with pytest.raises(CheckError, match="expected") as caught:
        check_env(given)
    assert str(caught.value).startswith(came)
    assert advice in str(caught.value)


def test_bad_arguments_get_a_sentence():
    with pytest.raises(InputError, match="episodes is 0: expected 1 or more"):
        check_env(ToyEnv, episodes=0)


def test_rewards_may_be_vectors_where_a_reward_space_says_so():
    space = Box(-1, 1, (2,), np.float32)
    base = with_attributes(reward_space=lambda self, agent: space)
    check_env(Vectors)
    with pytest.raises(
        CheckError, match=r"the reward of conv_0 is array\(\[2., 2.\].*env.reward_space\('conv_0'\)"
    ):
        check_env(rewarded(lambda env, x: np.full(2, 2, np.float32), base=base))


class Vectors(ToyEnv):
    """As in multi-objective libraries."""

    def __init__(self):
        super().__init__()
        self._reward_space = Box(-1, 1, (2,), np.float32)

    def reward_space(self, agent):
        return self._reward_space

    def step(self, actions):
        observations, rewards, *rest = super().step(actions)
        return observations, {agent: np.array([x, -x], np.float32) for agent, x in rewards.items()}, *rest
