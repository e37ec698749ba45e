"""Learners: update rules by hand, and a cooperative toy whose optimum is known."""

from functools import partial

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import agents
import dsfp_env
from agents.learners.q_learning import td_error
from agents.learners.regression_bandit import features, fit, importance
from agents.registry import AGENTS, choose_agent
from agents.reporting.baselines import random_plans, random_plans_of, uniform_plan_of, uniform_plans
from agents.reporting.finals import choose_best, finalists_of, measuring_seeds
from dsfp_env import InputError
from dsfp_env.toy import BEST_RATIOS, ToyEnv


def solve(name, evaluations, seed, horizon=1):
    entry = AGENTS[name]
    env = ToyEnv(entry.actions, horizon)
    team = entry.make(env, seed, evaluations)
    return agents.train(env, team, evaluations), agents.play(env, team)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "evaluations", "regret"),
    [("q_learning", 300, 0.02), ("regression_bandit", 300, 0.1), ("random_search", 300, 0.05)],
)
def test_every_learner_finds_the_known_optimum(name, evaluations, regret, seed):
    history, greedy = solve(name, evaluations, seed)
    assert len(history) == evaluations
    assert agents.best(history).score > 1 - regret
    assert greedy.score > 1 - regret


def test_q_learning_beats_its_own_random_start():
    history, _ = solve("q_learning", 300, 0)
    assert np.mean([e.score for e in history[-50:]]) > np.mean([e.score for e in history[:50]]) + 0.15


def test_q_learning_in_longer_episodes():
    history, greedy = solve("q_learning", 1200, 0, horizon=3)
    assert [sum(e.rewards["conv_0"] for e in history[i : i + 3]) for i in (0, 3)] == pytest.approx(
        [history[2].score, history[5].score]
    )
    assert greedy.score > 0.9


def test_uniform_finds_the_best_common_ratio():
    """The best common ratio of the toy is near the middle of the targets."""
    history, greedy = solve("uniform", 129, 0)
    ratios = [e.infos["conv_0"]["ratio"] for e in history]
    assert all(len({info["ratio"] for info in e.infos.values()}) == 1 for e in history)
    assert ratios[:11] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 15, 25]
    grid = np.arange(10, 90.01, 0.1)
    worth = np.prod([1 - ((grid - target) / 100) ** 2 for target in BEST_RATIOS.values()], axis=0)
    assert greedy.infos["conv_0"]["ratio"] == pytest.approx(grid[worth.argmax()], abs=0.7)


@pytest.mark.parametrize(
    "name", [name for name, entry in AGENTS.items() if entry.options is not None]
)  # others: test_sb3
def test_equal_seeds_agree_and_others_do_not(name):
    def actions(seed):
        return [tuple(np.ravel(a).item() for a in e.actions.values()) for e in solve(name, 60, seed)[0]]

    assert actions(0) == actions(0)
    assert (actions(0) != actions(1)) == (name != "uniform")


def test_td_error_by_hand():
    """1 + 0.9 * 5 - 2 = 3.5; at the end of an episode 1 - 2 = -1."""
    q_values, next_q_values = np.array([4.0, 2.0]), np.array([3.0, 5.0])
    assert td_error(q_values, 1, 1.0, 0.9, next_q_values) == pytest.approx(3.5)
    assert td_error(q_values, 1, 1.0, 0.0, next_q_values) == pytest.approx(-1)


def transition(action, reward, terminated=True, observation=0.0, next_observation=1.0):
    def seen(value):
        return np.array([value, 0], np.float32)

    return agents.Transition(seen(observation), action, reward, seen(next_observation), terminated, False, {})


def make_learner(**kwargs):
    spaces = Box(0, 1, (2,), np.float32), Discrete(3)
    return agents.QLearning("conv_0", *spaces, np.random.default_rng(0), replays=0, **kwargs)


def test_q_table_by_hand():
    learner = make_learner(step_size=0.5, negative_step_size=0.1, discount=0.9)
    learner.update(transition(1, 1.0))  # 0 + 0.5 * (1 - 0)
    learner.update(transition(1, 0.0))  # 0.5 + 0.1 * (0 - 0.5): bad news count less
    learner.update(transition(2, 1.0, terminated=False, observation=1.0, next_observation=0.0))
    first, second = learner.q_values.values()
    assert first.tolist() == pytest.approx([0, 0.45, 0])
    assert second.tolist() == pytest.approx([0, 0, 0.5 * (1 + 0.9 * 0.45)])
    assert learner.act(np.zeros(2, np.float32), {}, deterministic=True) == 1


def test_an_optimistic_table_comes_down():
    """1 + 0.5 * (0.4 - 1) = 0.7, also where the command line gave the integer 1."""
    learner = make_learner(initial_value=1, negative_step_size=0.5)
    learner.update(transition(2, 0.4))
    assert next(iter(learner.q_values.values())).tolist() == pytest.approx([1, 1, 0.7])
    team = agents.SequentialQLearning(ToyEnv(), 0, initial_value=1)
    assert team.q_values.dtype == float


def test_nothing_is_expected_after_the_end():
    learner = make_learner(step_size=1.0, discount=1.0)
    learner.update(transition(0, 5.0, observation=1.0))  # so the next state below is worth 5
    learner.update(transition(0, 1.0, terminated=True, observation=0.0, next_observation=1.0))
    learner.update(transition(1, 1.0, terminated=False, observation=0.0, next_observation=1.0))
    assert learner.q_values[learner._state(np.zeros(2))].tolist() == [1, 6, 0]


def test_replay_learns_again_from_what_is_remembered():
    learner = make_learner(step_size=0.5)
    learner.replays = 3
    learner.update(transition(0, 1.0))
    learner.update(transition(1, 0.0))  # the only memory is the first transition: replayed three times
    assert next(iter(learner.q_values.values()))[0] == pytest.approx(1 - 0.5**4)


def test_regression_by_hand():
    """Three points on r = 1 - a^2 fix the parabola; the context does not matter."""
    actions = np.array([-1.0, 0, 1, 0.5])
    weights = fit(features(0.0, actions), 1 - actions**2, ridge=1e-9)
    assert weights == pytest.approx([1, 0, -1, 0, 0], abs=1e-6)
    bandit = make_bandit()
    for ratio in (10.0, 50, 90, 30):  # best at 60
        bandit.update(transition(np.array([ratio], np.float32), 1 - ((ratio - 60) / 40) ** 2))
    assert bandit.act(np.zeros(2, np.float32), {}, deterministic=True)[0] == pytest.approx(60, abs=0.5)


def make_bandit(**options):
    ratios = Box(10, 90, (1,), np.float32)
    return agents.RegressionBandit(
        "conv_0", Box(0, 1, (2,), np.float32), ratios, np.random.default_rng(0), **options
    )


def test_recent_tuples_weigh_more_by_hand():
    """The older of two rewards weighs half of the newer: their mean is (1 * 0 + 2 * 3) / 3."""
    twice = features(0.0, np.zeros(2))
    assert fit(twice, np.array([0.0, 3]), 1e-9, importance(2, recent=2))[0] == pytest.approx(2)
    assert fit(twice, np.array([0.0, 3]), 1e-9)[0] == pytest.approx(1.5)


def test_a_bandit_of_recent_tuples_follows_what_moved():
    """The best ratio was 20 and is 70 now, since the other layers moved on."""

    def best(**options):
        bandit = make_bandit(**options)
        for optimum in (20.0, 70.0):
            for ratio in np.tile(np.linspace(10, 90, 9), 10):
                bandit.update(transition(np.array([ratio], np.float32), 1 - ((ratio - optimum) / 80) ** 2))
        return bandit.act(np.zeros(2, np.float32), {}, deterministic=True)[0]

    assert best() == pytest.approx(45, abs=1)
    assert best(recent=15) == pytest.approx(70, abs=1)


def test_what_recent_tuples_suggest_is_near_their_mean():
    """It is (20 / 2 + 50) / (1 / 2 + 1) = 40, and the higher ratio was better: one window above it."""
    bandit = make_bandit(recent=2, window=5)
    for ratio in (20.0, 50.0):
        bandit.update(transition(np.array([ratio], np.float32), ratio / 100))
    assert bandit.act(np.zeros(2, np.float32), {}, deterministic=True)[0] == pytest.approx(45)


def test_perturbations_fall_to_their_last_window():
    bandit, widths = make_bandit(warm_up=1, epsilon=1, window=30, final_window=5, exploration_steps=50), []
    for _ in range(100):
        believed = bandit.act(np.zeros(2, np.float32), {}, deterministic=True)
        ratio = bandit.act(np.zeros(2, np.float32), {})
        widths.append(abs(float(ratio[0] - believed[0])))
        bandit.update(transition(ratio, 1 - ((float(ratio[0]) - 50) / 40) ** 2))
    assert 20 < max(widths[5:20]) <= 30
    assert max(widths[51:]) <= 5


def test_learners_refuse_spaces_they_cannot_use():
    env = ToyEnv("box")
    with pytest.raises(ValueError, match="actions='levels'"):
        agents.Independent(agents.QLearning, env)
    with pytest.raises(ValueError, match="actions='box'"):
        agents.Independent(agents.RegressionBandit, ToyEnv("levels"))


class MyAgent:
    """A learner of one's own, chosen by name."""

    actions = "box"

    def __init__(self, agent, observation_space, action_space, rng):
        self.action_space, self.rng = action_space, rng

    def act(self, observation, info, *, deterministic=False):
        return self.action_space.high

    def update(self, transition):
        return {"reward": transition.reward}


def test_a_learner_of_ones_own():
    entry = choose_agent("test_agents:MyAgent")
    env = ToyEnv(entry.actions)
    team = entry.make(env, 0, 3)
    history = agents.train(env, team, 3)
    assert history[2].infos["conv_1"]["ratio"] == 90
    assert team.update(agents.JointTransition(*({"conv_0": x} for x in (0, 0, 1.5, 0, True, False, {})))) == {
        "conv_0/reward": 1.5
    }
    with pytest.raises(dsfp_env.InputError, match="Did you mean 'q_learning'"):
        choose_agent("q_learn")


def test_baseline_plans(digits):
    evaluator = dsfp_env.Evaluator(digits, "l1")
    assert [plan["conv_2"] for plan in uniform_plans(evaluator, 10)] == [10, 20, 30, 40, 50, 60, 70, 80, 90]
    rng = np.random.default_rng(0)
    assert {r for plan in random_plans(evaluator, 50, "levels", rng) for r in plan.values()} == set(
        range(10, 91, 10)
    )
    wanted = evaluator.costs({"conv_0": 30.0, "conv_1": 70.0, "conv_2": 40.0, "conv_3": 60.0}).macs
    assert abs(evaluator.costs(uniform_plan_of(evaluator, wanted)).macs / wanted - 1) < 0.03
    plans = random_plans_of(evaluator, 20, wanted, rng)
    relative = np.array([evaluator.costs(plan).macs / wanted for plan in plans])
    assert (relative <= 1).all()
    assert np.median(relative) > 0.95
    assert len({tuple(plan.values()) for plan in plans}) == 20


def test_the_best_of_a_search_is_chosen_with_fresh_seeds(tiny):
    evaluator = dsfp_env.Evaluator(tiny)
    plans = [{"conv_0": float(a), "conv_1": float(b)} for a in (10, 50, 90) for b in (10, 50, 90)]
    found = [evaluator.evaluate(plan, 0).accuracy for plan in plans]

    def worth(outcome):  # fresh seeds say that the least of the finalists is the best
        return -outcome.accuracy

    seeds = []

    def start_many(plans, seed):
        seeds.append(seed)
        return evaluator.start_many(plans, seed, workers=1)

    chosen = choose_best(plans * 2, found * 2, worth, start_many, 0, evaluator.keep)
    assert len({0, *seeds, *measuring_seeds(0)}) == 1 + 2 + 3  # no seed is used twice
    assert chosen in plans
    assert chosen != plans[int(np.argmax(found))]


def test_no_network_is_a_finalist_twice(tiny):
    """Ratios that differ may leave the same filters: of plans that do, the one that was worth most is taken."""
    keep = dsfp_env.Evaluator(tiny).keep
    plans = [{"conv_0": 50.0, "conv_1": ratio} for ratio in (10.0, 50.0, 50.001, 90.0)]
    assert finalists_of(plans, [0.1, 0.3, 0.4, 0.2], keep) == [plans[2], plans[3], plans[0]]
    told = [{"conv_0": 50.001, "conv_1": 90.0}, {"conv_0": 90.0, "conv_1": 90.0}]
    assert finalists_of(plans[:1] * 20, [0.5] * 20, keep, told) == [plans[0], *told]


def test_protocol_is_duck_typed():
    """No base class: a function of (agent, spaces, rng) that returns an object is a maker, too."""
    env = ToyEnv("levels")
    team = agents.Independent(partial(agents.QLearning, exploration_steps=5), env, seed=1)
    assert set(team.act(*env.reset())) == set(BEST_RATIOS)


@pytest.mark.parametrize(
    ("maker", "sentence"),
    [
        ("q_learning", "is 'q_learning': expected a class or function"),
        (agents.CoordinateSearch, r"CoordinateSearch cannot be called as .* needs no Independent"),
    ],
)
def test_what_makes_no_learner_of_one_layer_is_refused(maker, sentence):
    with pytest.raises(InputError, match=sentence):
        agents.Independent(maker, ToyEnv(), seed=0)
