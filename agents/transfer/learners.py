"""Who takes part: policies that learn on the training networks first, and searches that know nothing of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

import agents
from agents.base import MultiAgent
from agents.leaderboard.forms import Form
from agents.learners.independent import Independent
from agents.learners.random_search import RandomSearch
from agents.registry import choose_agent
from agents.transfer.carried_bandit import CarriedBandit, Prior, Seen
from agents.transfer.known import KnownNetwork
from agents.transfer.settings import CARRIED, FROM_SCRATCH
from agents.transfer.shared_policy import PolicyPlayer, train_policy
from dsfp_env.environment.env import LayerPruningEnv
from dsfp_env.evaluation.interface import AnyEvaluator
from dsfp_env.layer_pruning_v0 import parallel_env

OURS = (*CARRIED, FROM_SCRATCH)  # these have no entry in the registry


class Learned(NamedTuple):
    """What a learner brings to a new network."""

    actions: str  # the kind that it takes
    team: Callable[[LayerPruningEnv, int], MultiAgent]  # (environment, evaluations) -> a team for it


def learned(name: str, training: Sequence[AnyEvaluator], form: Form, seed: int, evaluations: int) -> Learned:
    """Let a learner learn on networks, if it is carried.

    Args:
        name: One of ours, or a learner of the registry.
        training: The networks.
        form: The reward.
        seed: Of all that is drawn.
        evaluations: Of each network.
    """
    if name == "carried_policy":
        model = train_policy(training, form, seed, evaluations)
        return Learned("box", lambda env, _: PolicyPlayer(model, env, seed))
    if name in OURS:
        prior = None if name == FROM_SCRATCH else learned_prior(training, seed, evaluations)
        return Learned("levels", lambda env, _: CarriedBandit(env, seed, prior=prior))
    entry = choose_agent(name)
    return Learned(entry.actions, lambda env, budget: entry.make(env, seed, budget))


def learned_prior(networks: Sequence[AnyEvaluator], seed: int, evaluations: int) -> Prior:
    """From joint actions of each network that are drawn at random."""
    return Prior.learned([_seen(one, seed, evaluations) for one in networks])


def _seen(network: AnyEvaluator, seed: int, evaluations: int) -> Seen:
    env = parallel_env(evaluator=network, actions="levels")
    history = agents.train(env, Independent(RandomSearch, env, seed), evaluations, seed=seed)
    known = KnownNetwork(env)
    joints = np.stack([known.joint_of(one.ratios) for one in history])
    accuracies = [next(iter(one.infos.values()))["accuracy"] for one in history]
    return Seen(known.features(joints), np.array([known.odds(accuracy) for accuracy in accuracies]))
