"""VDN, QMIX, the policy gradient and local search: mixtures by hand, longer episodes, spaces, many agents."""

import numpy as np
import pytest
import torch

import agents
from agents.learners.decomposed import Monotone, Sum, Utilities
from agents.learners.policy_gradient import softmax
from agents.registry import choose_agent
from dsfp_env import InputError
from dsfp_env.chain import ChainEnv
from dsfp_env.toy import ToyEnv


def test_a_sum_is_a_sum():
    mixture = Sum(3, 2, 4)
    with torch.no_grad():
        mixture.constant.fill_(0.5)
    assert mixture(torch.tensor([1.0, 2, 4]), torch.zeros(3, 2)).item() == 7.5


def test_a_monotone_mixture_rises_with_every_utility_in_every_state():
    torch.manual_seed(0)
    mixture, seen = Monotone(3, 2, 4), torch.rand(50, 3, 2)
    utilities = torch.randn(50, 3, requires_grad=True)
    mixture(utilities, seen).sum().backward()
    assert (utilities.grad >= 0).all()
    assert utilities.grad.max() > 0
    assert not torch.equal(
        mixture(utilities, seen), mixture(utilities, torch.zeros(50, 3, 2))
    )  # the state matters


def test_utilities_are_cosines_of_the_level():
    """With a first coefficient of 1 alone they are constant, with a second cos(pi (level + 1/2) / levels)."""
    network = Utilities(2, 1, 4, 8)
    assert network(torch.zeros(2, 1)).tolist() == [[0] * 4] * 2
    with torch.no_grad():
        network.layers[-1].bias[1] = 1
    expected = [np.cos(np.pi * (level + 0.5) / 4) for level in range(4)]
    assert network(torch.zeros(2, 1))[1].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["vdn", "qmix"])
def test_what_is_learned_is_the_return_to_come(name):
    """Two steps: the second is worth its reward, the first its own and the best that may follow."""
    env = ToyEnv(horizon=2)
    team = choose_agent(name).make(env, 0, 400)
    history = agents.train(env, team, 400, seed=0)
    assert agents.best(history).score > 0.97
    assert agents.play(env, team).score > 0.9
    seen, _ = env.reset()
    levels = torch.tensor([2, 6, 3])
    worth = float(team.network.worth(torch.from_numpy(team._seen(seen)), levels).detach())
    assert worth == pytest.approx(1, abs=0.15)  # from the start the best return is the last score, 1


def test_observations_of_one_shape_are_needed():
    env = ToyEnv()
    env._observation_spaces["conv_1"] = type(env._observation_spaces["conv_1"])(0, 1, (7,))
    with pytest.raises(InputError, match="QMIX got the observation spaces .* expected a Box of one shape"):
        agents.QMIX(env, 0)


@pytest.mark.parametrize("name", ["local_search", "policy_gradient", "vdn", "q_learning(explorers=1)"])
def test_many_agents_are_better_than_random_search(name):
    """Nineteen layers of a chain, 120 evaluations."""
    scores = [
        agents.best(agents.train(env, choose_agent(one).make(env, 1, 120), 120, seed=1)).score
        for one in (name, "random_search")
        for env in [ChainEnv(19, seed=1)]
    ]
    assert scores[0] > scores[1] + 0.02


def test_probabilities_by_hand():
    assert softmax(np.log([[1.0, 3.0], [2.0, 2.0]])) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]))


def test_a_policy_starts_at_the_levels_that_were_good_for_all():
    env = ToyEnv(best_ratios=dict.fromkeys("abcd", 30.0))
    team = agents.PolicyGradient(env, 0, trust=3)
    agents.train(env, team, 9, seed=0)
    observations, infos = env.reset()
    assert set(team.act(observations, infos, deterministic=True).values()) == {2}
    assert not team.own.any()


def test_local_search_plays_uniform_plans_then_neighbours():
    env = ToyEnv()
    history = agents.train(env, agents.LocalSearch(env, 0, pairs=0), 20, seed=0)
    joints = [tuple(one.actions.values()) for one in history]
    assert joints[:9] == [(level,) * 3 for level in range(9)]
    for number in range(9, 20):
        best = agents.best(history[:number]).actions
        assert sum(best[agent] != level for agent, level in history[number].actions.items()) == 1
    assert len(set(joints)) == 20
