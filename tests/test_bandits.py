"""Learners of levels for small budgets: update rules by hand, a known optimum, masks, the lock-step of UCB1."""

import itertools

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

import agents
from agents.learners.coordinate_search import CoordinateSearch
from agents.learners.gaussian_process import GaussianProcess, _Kernel
from agents.learners.in_turn import InTurn
from agents.learners.linear_model import LinearModel
from agents.registry import choose_agent
from dsfp_env import InputError
from dsfp_env.environment.transitions import JointTransition, Transition
from dsfp_env.toy import ToyEnv

LEARNERS = {  # regret of the best and of the greedy joint action on the toy after 300 evaluations, for all seeds
    "epsilon_greedy": (0.02, 0.02),
    "ucb1": (0.02, 0.03),
    "thompson": (0.02, 0.02),
    "linucb": (0.005, 0.005),
    "joint_thompson": (0.005, 0.005),
    "coordinate_search": (1e-9, 1e-9),
    "sequential_q_learning": (0.02, 0.02),
    "local_search": (1e-9, 1e-9),
    "gp_search": (1e-9, 1e-9),
    "policy_gradient": (0.02, 0.04),
    "vdn": (0.02, 0.05),
    "qmix": (0.02, 0.05),
}


def learn(name, seed=0, evaluations=300, **kwargs):
    env = ToyEnv(**kwargs)
    team = choose_agent(name).make(env, seed, evaluations)
    return agents.train(env, team, evaluations, seed=seed), agents.play(env, team)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", LEARNERS)
def test_it_finds_the_known_optimum(name, seed):
    history, greedy = learn(name, seed)
    best_regret, greedy_regret = LEARNERS[name]
    assert agents.best(history).score >= 1 - best_regret
    assert greedy.score >= 1 - greedy_regret


@pytest.mark.parametrize("name", LEARNERS)
def test_equal_seeds_agree_and_others_do_not(name):
    def actions(seed):
        return [tuple(e.actions.values()) for e in learn(name, seed, 40)[0]]

    assert actions(0) == actions(0) != actions(1)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_stays_within_a_budget(name):
    history, greedy = learn(name, evaluations=80, macs_budget=0.3)
    for evaluation in (*history, greedy):
        assert evaluation.infos["conv_0"]["relative_macs"] <= 0.3
    assert agents.best(history).infos["conv_0"]["ratio"] < 90


@pytest.mark.parametrize("name", LEARNERS)
def test_levels_are_needed(name):
    with pytest.raises(InputError, match=r"the action space Box.* expected .*Discrete.* actions='levels'"):
        choose_agent(name).make(ToyEnv("box"), 0, 10)


def test_two_agents_change_together_at_the_edge_of_a_budget():
    """Prices times levels within a mean of 50 % pruned: who has the lowest price gives most.

    From any joint action at the edge no level can come down alone. With worths -5, -3, -1 of a level and 12 of
    them to be given away, the third agent takes 8, the second 4 and the first none.
    """
    env = ToyEnv(macs_budget=0.5)
    _, infos = env.reset(seed=0)
    turns, prices = InTurn(env, "A test"), np.array([-5.0, -3, -1])
    for seed in range(10):
        rng = np.random.default_rng(seed)
        start = rng.integers(9, size=3)
        assert turns.climb(infos, start, lambda joints: joints @ prices, rng).tolist() == [0, 4, 8]


def test_levels_are_raised_together_to_meet_a_budget():
    """12 levels are needed and 3 wished: three more for each, and none is left to be given back."""
    env = ToyEnv(macs_budget=0.5)
    _, infos = env.reset(seed=0)
    raised = InTurn(env, "A test").raised(infos, np.array([0, 1, 2]), np.random.default_rng(0))
    assert raised.tolist() == [3, 4, 5]
    free = ToyEnv()
    raised = InTurn(free, "A test").raised(free.reset()[1], np.array([0, 1, 2]), np.random.default_rng(0))
    assert raised.tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["joint_thompson", "linucb"])
def test_what_is_played_under_masks_is_as_good_as_the_best_seen(name):
    """The toy's best with 60 % of the MACs taken: no level can be chosen alone."""
    history, greedy = learn(name, 0, 120, macs_budget=0.4)
    assert greedy.score >= agents.best(history).score - 0.02


def bandit(kind, levels=3, **options):
    return kind("conv_0", Box(0, 1, (1,)), Discrete(levels), np.random.default_rng(0), **options)


def told(learner, *credits):
    """Levels and their credits."""
    for level, credit in credits:
        learner.update(Transition(None, level, 0.0, None, True, False, {"score": 9.0, "credit": credit}))


def test_means_by_hand():
    learner = bandit(agents.UCB1)
    told(learner, (1, 0.2), (1, 0.6), (2, 0.5))
    assert learner.counts.tolist() == [0, 2, 1]
    assert learner.means == pytest.approx([0, 0.4, 0.5])
    assert learner.act(None, {}, deterministic=True) == 2
    assert learner.act(None, {"action_mask": np.array([1, 1, 0])}, deterministic=True) == 1
    hopeful = bandit(agents.EpsilonGreedy, step_size=0.75)
    told(hopeful, (1, 0.2), (1, 0.6))  # 0.2 + 0.75 * (0.6 - 0.2)
    assert hopeful.means[1] == pytest.approx(0.5)
    told(hopeful, (1, 0.2))  # 0.5 + (0.2 - 0.5) / 3: bad news weigh no more than in a plain mean
    assert hopeful.means[1] == pytest.approx(0.4)


def test_the_upper_bound_by_hand():
    """After 8 plays of level 0 and 2 of level 1: sqrt(2 ln 10 / 8) = 0.759, sqrt(2 ln 10 / 2) = 1.517."""
    told(learner := bandit(agents.UCB1, 2, exploration=0.2, epsilon=0), *[(0, 0.6)] * 8, *[(1, 0.5)] * 2)
    assert learner.act(None, {}) == 1  # 0.5 + 0.303 against 0.6 + 0.152
    told(learner := bandit(agents.UCB1, 2, exploration=0.1, epsilon=0), *[(0, 0.6)] * 8, *[(1, 0.5)] * 2)
    assert learner.act(None, {}) == 0  # 0.5 + 0.152 against 0.6 + 0.076


def test_the_posterior_by_hand():
    """Prior N(0.5, 0.5^2), noise 0.5: after 3 credits of 0.9 the precision is 4 + 12, the mean (2 + 10.8) / 16."""
    told(learner := bandit(agents.GaussianThompson, noise=0.5, step_size=0), *[(1, 0.9)] * 3)
    mean, deviation = learner.posterior()
    assert mean == pytest.approx([0.5, 0.8, 0.5])
    assert deviation == pytest.approx([0.5, 0.25, 0.5])


def test_regression_by_hand():
    """Weights N(0, 1), noise 1: a score of 1 at x = (1, 0) halves mean and variance of the first weight."""
    model = LinearModel(np.zeros(2), np.eye(2), 1.0)
    assert model.deviations(np.array([[1.0, 0], [1, 1]])) == pytest.approx([1, 2**0.5])
    assert model.update(np.array([1.0, 0]), 1.0) == 1.0
    assert model.mean == pytest.approx([0.5, 0])
    assert model.covariance == pytest.approx(np.diag([0.5, 1]))


def test_regression_is_the_same_as_all_at_once():
    rng = np.random.default_rng(0)
    inputs, scores = rng.normal(size=(20, 3)), rng.normal(size=20)
    model = LinearModel(np.ones(3), 0.5 * np.eye(3), 0.3)
    for features, score in zip(inputs, scores, strict=True):
        model.update(features, score)
    precision = np.eye(3) / 0.5 + inputs.T @ inputs / 0.3**2
    assert model.covariance == pytest.approx(np.linalg.inv(precision))
    assert model.mean == pytest.approx(np.linalg.solve(precision, np.ones(3) / 0.5 + inputs.T @ scores / 0.3**2))
    drawn = np.stack([model.sample(rng) for _ in range(4000)])
    assert drawn.mean(0) == pytest.approx(model.mean, abs=0.01)
    assert np.cov(drawn.T) == pytest.approx(model.covariance, abs=0.001)


def test_ucb1_learners_do_not_move_in_lock_step():
    """Alike, deterministic and with a shared reward, they would try nine joint actions and no other."""
    history, _ = learn("ucb1", evaluations=100)
    assert len({tuple(e.actions.values()) for e in history}) > 40
    assert len({tuple(e.actions.values()) for e in history[:9]}) == 9


@pytest.mark.parametrize(
    ("trace", "values"), [(0.0, [0.125, 0.25, 0.5]), (1.0, [0.5] * 3), (0.5, [0.28125, 0.375, 0.5])]
)
def test_a_score_reaches_all_layers_at_once(trace, values):
    """Three layers choose 8, 0, 4 and score 1: the tables along the way, of states 1 (nothing yet), 2, 1.

    With a trace of 0.5 the targets are 1, (1 + 0.5) / 2 = 0.75 and (0.75 + 0.375) / 2 = 0.5625; half is learned.
    """
    env = ToyEnv()
    team = agents.SequentialQLearning(env, 0, step_size=0.5, trace=trace, bins=3)
    empty = dict.fromkeys(env.possible_agents)
    actions, infos = dict(zip(empty, (8, 0, 4), strict=True)), {agent: {"score": 1.0} for agent in empty}
    team.update(JointTransition(empty, actions, empty, empty, empty, empty, infos))
    assert np.argwhere(team.q_values).tolist() == [[0, 1, 8], [1, 2, 0], [2, 1, 4]]
    assert team.q_values[team.q_values > 0].tolist() == values


def test_coordinate_search_tries_neighbours_and_moves_to_what_is_better():
    env = ToyEnv(best_ratios={"conv_0": 80.0, "conv_1": 50.0})
    team = CoordinateSearch(env, 0)
    history = agents.train(env, team, 12)
    joints = [tuple(e.actions.values()) for e in history]
    assert joints[0] == (4, 4)
    best = joints[0]
    for joint, evaluation in zip(joints[1:], history[1:], strict=True):
        assert sorted(abs(a - b) for a, b in zip(joint, best, strict=True))[0] == 0  # one layer differs
        before = env.score(
            {agent: 10.0 + 10 * level for agent, level in zip(env.possible_agents, best, strict=True)}
        )
        if evaluation.score > before:
            best = joint
    assert best == (7, 4)
    assert len(set(joints)) == len(joints)


def test_coordinate_search_seldom_repeats_itself_under_a_budget():
    """Of 729 joint actions many are beyond the budget, and the nearest within it may have been tried."""
    history, _ = learn("coordinate_search", evaluations=80, macs_budget=0.5)
    assert len({tuple(e.actions.values()) for e in history}) > 75


def test_climbing_finds_the_best_joint_action_within_the_budget():
    env, rng = ToyEnv(macs_budget=0.4), np.random.default_rng(0)
    infos = env.reset(seed=0)[1]
    turns = InTurn(env, "test")
    values = rng.normal(size=(3, 9))

    def worth(joints):
        return values[np.arange(3), joints].sum(-1)

    within = [joint for joint in itertools.product(range(9), repeat=3) if sum(joint) * 10 + 30 >= 180]
    climbed = [turns.climb(infos, rng.integers(9, size=3), worth, rng) for _ in range(30)]
    assert all(tuple(joint) in within for joint in climbed)
    assert max(float(worth(joint)) for joint in climbed) == max(float(worth(np.array(joint))) for joint in within)


def test_a_gaussian_process_learns_one_after_another_as_all_at_once():
    rng = np.random.default_rng(0)
    joints = np.unique(rng.integers(9, size=(40, 5)), axis=0)
    scores, asked = np.sin(joints.mean(1)) + 0.1 * joints[:, 2], rng.integers(9, size=(20, 5))
    process = GaussianProcess(9)
    process.learn(joints[:30], scores[:30])
    for joint, score in zip(joints[30:], scores[30:], strict=True):  # too few for another kernel
        process.learn(joint[None], np.array([score]))
    kernel, apart = process._kernel, process._apart(joints, joints)
    covariance = kernel.of(apart) + kernel.noise * np.eye(len(joints))
    between = kernel.of(process._apart(joints, asked))  # the formulas as books have them
    solved = np.linalg.solve(covariance, np.column_stack([scores - scores.mean(), between]))
    scale = (scores - scores.mean()) @ solved[:, 0] / len(joints)
    expected, deviations = process.believed(asked)
    assert np.allclose(expected, scores.mean() + between.T @ solved[:, 0])
    assert np.allclose(deviations**2, scale * (1 - (between * solved[:, 1:]).sum(0)))
    assert np.abs(process.expected(joints) - scores).mean() < 0.05


def test_the_kernel_is_that_of_its_formula():
    one, two = np.array([[0, 4, 8]]), np.array([[0, 8, 8]])
    apart = GaussianProcess(9)._apart(one, two)
    assert apart.squares.item() == pytest.approx(0.5**2 / 3)
    assert apart.of_means.item() == pytest.approx(np.exp(-((0.5 / 3) ** 2) / (2 * 0.3**2)))
    assert apart.of_layers.item() == pytest.approx((2 + np.exp(-(0.5**2) / (2 * 0.4**2))) / 3)
    assert _Kernel((1.0, 1.0, 1.0), 0.2, 0.1).of(GaussianProcess(9)._apart(one, one)).item() == pytest.approx(1)


def test_a_gaussian_process_is_asked_for_more_than_there_are_levels():
    env = ToyEnv()
    history = agents.train(env, agents.GPSearch(env, 0), 24, batch=12, seed=0)
    assert len({tuple(one.actions.values()) for one in history}) >= 20


def test_a_gaussian_process_chooses_alike_whatever_the_unit():
    rng = np.random.default_rng(0)
    joints, asked = rng.integers(9, size=(30, 4)), rng.integers(9, size=(10, 4))
    scores, found = np.sin(joints.sum(1)), []
    for unit in (1.0, 1e-8):
        process = GaussianProcess(9)
        process.learn(joints, scores * unit)
        found.append(np.array(process.believed(asked)) / unit)
    assert np.allclose(*found)
