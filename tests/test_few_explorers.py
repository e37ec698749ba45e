"""Few agents explore at a time: by hand, with many agents, masks, batches; and levels that share what comes."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import agents
from agents.learners.few_explorers import FewExplorers
from agents.registry import choose_agent, describe
from dsfp_env import InputError
from dsfp_env.chain import ChainEnv
from dsfp_env.environment.transitions import Transition
from dsfp_env.testing import check_agent, check_env
from dsfp_env.toy import ToyEnv

FEW = "q_learning(explorers=1, uniform_first=1)"
MANY = {f"conv_{number}": 20.0 + 10 * (number % 6) for number in range(13)}


def learn(text, env, evaluations=60, batch=1):
    team = choose_agent(text).make(env, 0, evaluations)
    return agents.train(env, team, evaluations, batch=batch, seed=0), agents.play(env, team)


def test_all_of_one_ratio_come_first_then_one_layer_changes_at_a_time():
    history, _ = learn(FEW, ToyEnv())
    joints = [tuple(one.actions.values()) for one in history]
    assert joints[:9] == [(level,) * 3 for level in range(9)]
    best = max(history[:9], key=lambda one: one.score)
    for one in history[9:20]:
        changed = sum(one.actions[agent] != best.actions[agent] for agent in one.actions)
        assert changed == 1
        best = max(best, one, key=lambda evaluation: evaluation.score)
    assert len(set(joints)) == len(joints)


@pytest.mark.parametrize("batch", [1, 4])
def test_thirteen_agents_come_near_the_known_optimum(batch):
    def shortfall(text):
        return 1 - agents.best(learn(text, ToyEnv(best_ratios=MANY), 300, batch)[0]).score

    assert shortfall(FEW) < 1e-9 < 0.02 < shortfall("q_learning")


def test_the_regression_bandit_explores_in_its_own_range():
    history, _ = learn("regression_bandit(explorers=2, uniform_first=1, warm_up=0)", ToyEnv("box"), 40)
    assert [one.infos["conv_0"]["ratio"] for one in history[:3]] == pytest.approx([10, 20, 30])
    assert agents.best(history).score > 0.95


def test_defaults_change_nothing():
    env = ToyEnv(macs_budget=0.4)
    plain, few = (kind(agents.QLearning, env, 3) for kind in (agents.Independent, FewExplorers))
    told = [[one.actions for one in agents.train(env, team, 20, seed=1)] for team in (plain, few)]
    assert told[0] == told[1]


@pytest.mark.parametrize("text", [FEW, "ucb1(explorers=2)", "regression_bandit(explorers=1, uniform_first=2)"])
def test_they_keep_the_protocol(text):
    entry = choose_agent(text)

    def make(env, seed):
        return entry.make(env, seed, 30)

    make.team = True
    check_agent(make, actions=entry.actions, masks=True)


def test_options_are_told_and_checked():
    assert "explorers: whole number 0 or more, default 0" in describe("regression_bandit")
    with pytest.raises(InputError, match=r"explorers = -1 cannot be used: expected a whole number 0 or more"):
        choose_agent("q_learning(explorers=-1)")
    with pytest.raises(InputError, match="explorers"):
        choose_agent("random_search(explorers=1)")


def test_neighbours_share_what_comes():
    """At distance 1 a width of 1 leaves exp(-1/2) = 0.607 of an update, at distance 2 exp(-2) = 0.135."""
    space = Box(0, 1, (1,))
    learner = agents.QLearning("a", space, Discrete(4), np.random.default_rng(0), replays=0, smoothing=1)
    nothing = np.zeros(1, np.float32)
    learner.update(Transition(nothing, 1, 1.0, nothing, True, False, {}))
    (values,) = learner.q_values.values()
    assert values == pytest.approx([0.6065, 1, 0.6065, 0.1353], abs=1e-4)
    learner.update(Transition(nothing, 0, 0.0, nothing, True, False, {}))  # worse: 2 % of it, and shares of that
    assert values == pytest.approx([0.5944, 0.9879, 0.6049, 0.1353], abs=1e-4)


def test_a_chain_by_hand():
    """Widths 16, 32, 64 on images of 1, 1/4, 1/16: MACs 48, 128, 128 of 304. All by half: 24, 32, 32 are left."""
    env = ChainEnv(3, seed=1, noise=0, interaction=0)
    half = dict.fromkeys(env.possible_agents, 50.0)
    assert env.relative_macs(half) == pytest.approx(88 / 304)
    accuracy = 0.1 + 0.82 * np.exp(-1.2)  # the sensitivities sum to 1.2
    assert env.score(half) == env.expected(np.full(3, 50.0)) == pytest.approx(accuracy * (1 - 88 / 304))
    assert env.relative_macs({**half, "conv_1": 0.0}) == pytest.approx((24 + 64 + 64) / 304)
    noisy = ChainEnv(3, seed=1, interaction=0)
    assert noisy.score(half) == noisy.score(half) != env.score(half)
    check_env(ChainEnv)


def test_in_the_end_the_best_joint_action_known_is_played():
    history, played = learn(FEW, ToyEnv())
    assert played.actions == agents.best(history).actions
