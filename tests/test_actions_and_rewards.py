"""From actions to ratios, and from outcomes to scores."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from dsfp_env import InputError, Outcome
from dsfp_env.environment.actions import action_space, choices_of, decode
from dsfp_env.evaluation.plans import as_fractions
from dsfp_env.evaluation.rewards import reward_function
from dsfp_env.tasks.layer_control import Decider, LayerControl

DECIDERS = {"conv_0": Decider(("features.0",)), "conv_1": Decider(("features.3",))}
AGENTS, CONTROL = choices_of(DECIDERS, "levels"), LayerControl(DECIDERS)


def outcome(accuracy, relative_macs):
    return Outcome(accuracy, 100, relative_macs, 100, 0.5, 10, {}, {})


def test_spaces():
    assert action_space("box") == Box(10, 90, (1,), np.float32)
    assert action_space("levels") == Discrete(9)
    with pytest.raises(InputError, match="Unknown kind of actions 'boxes'. Did you mean 'box'"):
        action_space("boxes")


@pytest.mark.parametrize(
    ("kind", "actions", "ratios"),
    [
        ("levels", {"conv_0": 0, "conv_1": np.int64(8)}, [10, 90]),
        ("box", {"conv_0": np.array([12.5], np.float32), "conv_1": 90.0}, [12.5, 90]),
        ("box", {"conv_1": 30, "conv_0": np.float64(10)}, [10, 30]),
    ],
)
def test_decode(kind, actions, ratios):
    assert decode(actions, AGENTS, kind) == dict(zip(AGENTS, ratios, strict=True))


@pytest.mark.parametrize(
    ("kind", "action", "sentence"),
    [
        ("box", 9.99, r"The pruning ratio of conv_1 is 9.99: expected a percentage in \[10, 90\] \(clip it\)"),
        ("box", 0.5, r"fraction\? Multiply by 100"),
        ("box", np.array([np.nan], np.float32), "The pruning ratio of conv_1 is nan"),
        ("box", np.array([20, 30]), "expected one number"),
        ("box", "20", "expected one number"),
        ("box", None, "expected one number"),
        ("levels", 9, r"The action of conv_1 is 9: expected a level, an integer from 0 \(10 %\) to 8"),
        ("levels", 0.5, "expected a level"),
        ("levels", np.array([1, 2]), "expected a level"),
    ],
)
def test_a_bad_action_gets_a_sentence_that_names_the_agent(kind, action, sentence):
    fine = {"box": 50.0, "levels": 4}[kind]
    with pytest.raises(InputError, match=sentence):
        decode({"conv_0": fine, "conv_1": action}, AGENTS, kind)


def test_missing_and_unknown_agents_get_a_sentence():
    with pytest.raises(
        InputError, match="conv_1 missing.*expected one action for each of the agents conv_0, conv_1"
    ):
        decode({"conv_0": 50}, AGENTS, "box")
    with pytest.raises(InputError, match="'conv_2'. unknown"):
        as_fractions({"conv_0": 50, "conv_1": 50, "conv_2": 50}, CONTROL)


def test_percent_to_fractions():
    assert as_fractions({"conv_1": 25, "conv_0": 90}, CONTROL) == {"features.0": 0.9, "features.3": 0.25}


def test_rewards_by_hand():
    original = outcome(0.9, 1.0)
    saving = reward_function("accuracy_x_saving")
    assert saving(outcome(0.8, 0.25), original) == pytest.approx(0.6)
    assert saving(original, original) == 0
    budget = reward_function("budget", 0.3)
    assert budget(outcome(0.8, 0.2), original) == pytest.approx(0.8)
    assert budget(outcome(0.8, 0.6), original) == pytest.approx(0.4)
    assert reward_function(lambda o, original: o.accuracy / original.accuracy)(outcome(0.45, 1), original) == 0.5
    assert reward_function("test_actions_and_rewards:of_ones_own")(original, original) == 7


def of_ones_own(outcome, original):
    return 7


@pytest.mark.parametrize("budget", [1.5, 0.0, 1.0, -0.1, float("nan")])
def test_a_bad_budget_gets_a_sentence(budget):
    with pytest.raises(InputError, match=r"The MACs budget is .*expected a fraction"):
        reward_function("budget", budget)


def test_unknown_rewards_get_a_sentence():
    with pytest.raises(InputError, match="Unknown reward 'budgett'. Did you mean 'budget'"):
        reward_function("budgett", 0.3)
    with pytest.raises(InputError, match="needs a budget"):
        reward_function("budget")
