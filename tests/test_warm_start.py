"""Teams that begin with joint actions they are given: by hand, with every learner, in batches, under masks."""

import numpy as np
import pytest

import agents
import dsfp_env
from agents.contests import held_contest
from agents.learners.warm_start import WarmStart
from agents.registry import AGENTS, choose_agent
from dsfp_env import InputError
from dsfp_env.toy import ToyEnv

BEST = {"conv_0": 1, "conv_1": 6, "conv_2": 3}  # the toy's: 20, 70 and 40 %
OTHER = {"conv_0": 8, "conv_1": 0, "conv_2": 8}
TOLD = [name for name, entry in AGENTS.items() if entry.find_made is None and not entry.needs]


def warm(text, env, first, evaluations=30, seed=0):
    return WarmStart(choose_agent(text).make(env, seed, evaluations), env, first)


class Recorder:
    """A team that always plays the first levels, and keeps what it was told."""

    def __init__(self):
        self.told = []

    def act(self, observations, infos, *, deterministic=False):
        return dict.fromkeys(observations, 0)

    def update(self, transition):
        self.told.append((transition.actions, transition.score))
        return {"seen": len(self.told)}


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_what_is_given_comes_first_and_is_learned_from(batch):
    env, recorder = ToyEnv(), Recorder()
    history = agents.train(env, WarmStart(recorder, env, [OTHER, BEST]), 5, batch=batch, seed=0)
    joints = [OTHER, BEST, *[dict.fromkeys(BEST, 0)] * 3]
    assert [one.actions for one in history] == joints
    assert recorder.told == [(joint, one.score) for joint, one in zip(joints, history, strict=True)]
    assert history[1].score == 1.0
    team = WarmStart(Recorder(), env, [BEST])
    assert team.act(*env.reset(), deterministic=True) == dict.fromkeys(BEST, 0)


@pytest.mark.parametrize("name", TOLD)
def test_every_learner_that_is_told_can_begin_with_the_best(name):
    entry = choose_agent(name)
    env = ToyEnv(entry.actions)
    best = BEST if entry.actions == "levels" else {
        agent: np.array([ratio], np.float32) for agent, ratio in env.best_ratios.items()
    }  # fmt: skip
    history = agents.train(env, warm(name, env, [best]), 30, seed=0)
    assert history[0].score == 1.0
    assert len({str(one.actions) for one in history}) > 5  # it goes on by itself
    assert history[1:][0].actions == agents.train(env, warm(name, env, [best]), 2, seed=0)[1].actions


def test_who_explores_around_the_best_known_begins_there():
    """No joint action is better than the first, so each that follows differs from it in one layer, or in two."""
    env = ToyEnv()
    history = agents.train(env, warm("q_learning(explorers=1)", env, [BEST]), 12, seed=0)
    for one in history[1:]:
        assert 1 <= sum(one.actions[agent] != BEST[agent] for agent in BEST) <= 2


def test_masks_hold():
    env = ToyEnv(macs_budget=0.4)
    lightest = dict.fromkeys(BEST, 0)  # 10 % of every layer: beyond the budget
    (first, *_) = agents.train(env, warm("random_search", env, [lightest]), 3, seed=0)
    assert first.actions != lightest
    assert next(iter(first.infos.values()))["relative_macs"] <= 0.4


def test_what_cannot_be_begun_with_gets_a_sentence():
    env = ToyEnv()
    for first, sentence in (
        ([{"conv_0": 1}], r"is \{'conv_0': 1\}: expected a dict with one action for each of .*conv_2"),
        ([{**BEST, "conv_1": 9}], r"has 9 for conv_1: expected one of Discrete\(9\)"),
        ([{**BEST, "conv_1": True}], r"has True for conv_1"),
        ([None], "is None: expected a dict"),
        (BEST, "are .*conv_0.*: expected a list of them"),
        (None, "are None: expected a list of them"),
        ("abc", "are 'abc': expected a list of them"),
    ):
        with pytest.raises(InputError, match=sentence):
            WarmStart(Recorder(), env, first)

    class OwnLoop(Recorder):
        def learn(self, env, evaluations, *, seed=None, on_evaluation=None):
            return []

    class NoUpdate:
        act = Recorder.act

    for team, sentence in (
        (OwnLoop(), "OwnLoop has a loop of its own"),
        (NoUpdate(), "NoUpdate.* update"),
        (None, "The team is None"),
        (Recorder, "The team is the class Recorder"),
    ):
        with pytest.raises(InputError, match=sentence):
            WarmStart(team, env, [BEST])
    with pytest.raises(InputError, match="The environment is None"):
        WarmStart(Recorder(), None, [BEST])


def test_it_must_leave_steps_for_the_learner(digits):
    """Where a step takes five evaluations, two plans are more than nine of them."""

    def env_of(**asked):
        return dsfp_env.parallel_env(digits, **asked)

    plans = [dict.fromkeys(digits.agents, ratio) for ratio in (40.0, 60.0)]
    with pytest.raises(InputError, match=r"9 evaluations, a step takes 5, and 2 joint action\(s\)"):
        held_contest("q_learning@difference", env_of, 9, 0, first=plans)


def test_what_was_given_is_not_taken_for_a_plan_of_one_level():
    """The policy gradient starts from the scores of such plans, which it played itself."""
    env = ToyEnv()
    team = warm("policy_gradient", env, [BEST, BEST])
    agents.train(env, team, 11, seed=0)
    scores = [one.score for one in agents.train(env, warm("policy_gradient", env, []), 9, seed=0)]
    assert team.learners._uniform == scores


@pytest.mark.parametrize("name", ["cma_es", "tpe", "nsga2"])
def test_what_was_given_is_not_taken_for_what_an_optimiser_asked_for(name):
    """In a batch both come: it is told of each of its own as of its own, and asks for others next."""
    entry = choose_agent(name)
    pytest.importorskip(entry.needs)
    env = ToyEnv(entry.actions)
    first = dict.fromkeys(BEST, 0 if entry.actions == "levels" else np.array([15], np.float32))
    team = warm(name, env, [first], evaluations=24)
    played = [str(one.actions) for one in agents.train(env, team, 24, batch=4, seed=0)]
    assert played[1:4] != played[4:7]
    cold = [str(one.actions) for one in agents.train(env, entry.make(env, 0, 24), 3, batch=3, seed=0)]
    assert played[1:4] == cold
    if name == "cma_es":  # learns from a generation, so it was told of seven of its own
        assert team.learners.optimiser._strategy.countiter >= 1


@pytest.mark.parametrize("actions", ["levels", "box"])
def test_actions_of_a_plan(digits, actions):
    """Those of the levels and ratios that there are mean them again; others, the nearest."""
    env = dsfp_env.parallel_env(digits, actions=actions)
    plan = dict(zip(env.possible_agents, (10.0, 30.0, 90.0, 50.0), strict=True))
    assert env.ratios_of(env.actions_of(plan)) == plan
    between = dict(zip(env.possible_agents, (0.0, 34.0, 99.0, 57.5), strict=True))
    nearest = (10.0, 30.0, 90.0, 60.0) if actions == "levels" else (10.0, 34.0, 90.0, 57.5)
    assert tuple(env.ratios_of(env.actions_of(between)).values()) == nearest
    for wrong, sentence in (
        ({"conv_0": 10.0}, "expected one action for each of the agents"),
        ({**plan, env.possible_agents[0]: float("nan")}, "nan"),
        ({**plan, env.possible_agents[0]: "many"}, "many"),
        ({**plan, env.possible_agents[0]: True}, "is True"),  # between 0 and 100, and no number
    ):
        with pytest.raises(InputError, match=sentence):
            env.actions_of(wrong)
