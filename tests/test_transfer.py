"""Policies that are carried to other networks: features by hand, the bandit on hand-made tables, the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from surrogates import make_surrogate
from tables import make_table

import agents
import dsfp_env
from agents.leaderboard.boards import TableBoard
from agents.leaderboard.forms import parse_form
from agents.transfer import runs as study
from agents.transfer.carried_bandit import CarriedBandit, Prior, Seen
from agents.transfer.joint_features import LAYER, RATIO, SIZE, of_joint_actions, of_layers
from agents.transfer.known import KnownNetwork, shares_of
from agents.transfer.learners import learned, learned_prior
from agents.transfer.settings import TransferSettings
from dsfp_env import InputError
from dsfp_env.suite import network_env

SAVING = parse_form("accuracy_x_saving")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Folders of networks with two, three and four layers, of five levels."""
    folder = tmp_path_factory.mktemp("networks")
    levels = (10, 30, 50, 70, 90)
    return [str(make_table(folder / f"layers{n}", levels=levels, agents=n)) for n in (2, 3, 4)]


def regrets(folder, history):
    table = dsfp_env.load_table(folder)
    return [TableBoard(table).of_all(SAVING, 0)[table.row_of(one.ratios)] for one in history]


def evaluators(networks):
    return [dsfp_env.TableEvaluator(dsfp_env.load_table(one)) for one in networks]


def test_features_of_a_joint_action_by_hand():
    # position, log filters (16 and 64), inputs, shares of MACs and parameters, sensitivity, spread, coupled
    seen = {
        "conv_0": np.array([0, 4, 0, 3, 9, 12, 0.6, 0]) / 12,
        "conv_1": np.array([12, 6, 4, 9, 3, 0, 1.2, 0]) / 12,
    }
    layers, filters = of_layers(seen)
    np.testing.assert_allclose(layers[0], [1, 0, 4 - 4.5, 1, 0.25, -0.5, 0.5, 1, 0])
    np.testing.assert_allclose(filters, [4, 6])
    features = of_joint_actions(layers, filters, np.array([[50.0, 75.0]]), np.array([0.125]))[0]
    assert features.shape == (SIZE,)
    by_layer = features[: LAYER * RATIO].reshape(LAYER, RATIO)
    np.testing.assert_allclose(
        by_layer[0], [1.25, 0.25 + 0.5625, 0.0625 + 0.31640625, 1 / 3 + 2 / 3, 2 / 8 + 2 / 16]
    )
    np.testing.assert_allclose(
        by_layer[1], [0.75, 0.5625, 0.31640625, 2 / 3, 2 / 16]
    )  # position: of the last only
    np.testing.assert_allclose(features[LAYER * RATIO :], [1, 3 / 4, 0.75, 0.625**2, 0.375, np.log(0.125)])


def test_log_odds_and_back(networks):
    known = KnownNetwork(network_env(networks[0], actions="levels"))
    accuracies = np.array([0.0, 0.3, 0.97, 1.0])
    np.testing.assert_allclose(shares_of(np.array([known.odds(a) for a in accuracies])), accuracies, atol=1e-9)


def test_scores_of_known_networks_are_the_rewards_of_the_environment(networks):
    env = network_env(networks[0], actions="levels", reward="budget", macs_budget=0.3, seed=0)
    known, joint = KnownNetwork(env), np.array([1, 3])
    outcome = env.evaluator.evaluate({"conv_0": 30.0, "conv_1": 70.0}, 0)
    scores = known.scores(joint[None], np.array([known.odds(outcome.accuracy)]))
    assert scores[0] == pytest.approx(env.score(outcome))
    assert (known.joint_of({"conv_0": 30.0, "conv_1": 70.0}) == joint).all()


def test_a_prior_predicts_what_it_was_learned_from():
    rng = np.random.default_rng(0)
    features, weights = rng.normal(size=(2000, SIZE)), rng.normal(size=SIZE)
    prior = Prior.learned(
        [Seen(features[:1000], features[:1000] @ weights), Seen(features[1000:], features[1000:] @ weights)]
    )
    np.testing.assert_allclose(prior.mean / prior.scale, weights, atol=0.1)
    before, after = Prior.ignorant().covariance(10, 0.3), prior.covariance(10, 0.3)
    np.testing.assert_allclose(before, np.eye(SIZE) / 10)
    assert np.trace(after) < np.trace(before) / 5


def test_the_bandit_tries_nothing_twice_and_finds_the_optimum(networks):
    env = network_env(networks[0], actions="levels", seed=0)
    team = CarriedBandit(env, seed=0)
    history = agents.train(env, team, 25, seed=0)
    assert len({tuple(one.ratios.values()) for one in history}) == 25
    assert min(regrets(networks[0], history)) == 0 == regrets(networks[0], [agents.play(env, team)])[0]


def test_the_bandit_stays_within_a_budget(networks):
    env = network_env(networks[1], actions="levels", reward="budget", macs_budget=0.2, seed=0)
    history = agents.train(
        env, CarriedBandit(env, seed=0, prior=learned_prior(evaluators(networks[:1]), 0, 25)), 10, seed=0
    )
    assert max(one.infos["conv_0"]["relative_macs"] for one in history) <= 0.2


def test_what_was_learned_on_smaller_networks_helps_on_a_larger_one(networks):
    def first(prior):
        env = network_env(networks[2], actions="levels", seed=0)
        return regrets(networks[2], agents.train(env, CarriedBandit(env, seed=0, prior=prior), 1, seed=0))[0]

    assert first(learned_prior(evaluators(networks[:2]), 0, 100)) < 0.1 < first(None)


def test_a_policy_plays_its_best_first_then_draws_and_keeps_the_best(networks):
    made = learned("carried_policy", evaluators(networks[:2]), SAVING, seed=0, evaluations=32)
    env = network_env(networks[2], seed=0)
    team = made.team(env, 6)
    history = agents.train(env, team, 6, seed=0)
    again = made.team(env, 6)
    assert agents.play(env, again).ratios == history[0].ratios
    assert len({tuple(one.ratios.values()) for one in history}) == 6
    assert agents.play(env, team).score == max(one.score for one in history)


def settings(networks, out, **kwargs):
    few = {"agents": ("carried_bandit", "random_search"), "seeds": "0-1", "budgets": (1, 3), "search_budget": 5}
    where = {"training": tuple(networks[:2]), "held_out": tuple(networks[2:])}
    return TransferSettings(
        **where,
        rewards=("accuracy_x_saving",),
        training_evaluations=20,
        workers=1,
        out=str(out),
        **{**few, **kwargs},
    )


def test_the_command(networks, tmp_path, monkeypatch, capsys):
    asked = settings(networks, tmp_path / "study")
    study.transfer(asked)
    result = json.loads((tmp_path / "study" / "transfer.json").read_text())
    (form,) = result["forms"]
    assert list(form["learners"]["carried_bandit"]) == ["1", "3"]  # the search gets more
    assert list(form["learners"]["random_search"]) == ["1", "3", "5"]
    table, rows = dsfp_env.load_table(networks[2]), []
    for seed in (0, 1):
        piece = json.loads(
            (tmp_path / "study" / "runs" / f"accuracy_x_saving--random_search--seed{seed}.json").read_text()
        )
        rows.append(piece["layers4"]["5"]["rows"])
        assert len(rows[-1]) == 5
    by_hand = np.mean(
        [TableBoard(table).of_all(SAVING, seed)[np.array(one)].min() for seed, one in enumerate(rows)]
    )
    assert form["learners"]["random_search"]["5"]["validation"]["mean"] == pytest.approx(by_hand, abs=1e-6)
    text = (tmp_path / "study" / "transfer.md").read_text()
    assert "carried_bandit, 3, less random_search, 5" in text
    assert "intervals are of 2 seeds" in text
    assert (tmp_path / "study" / "transfer.png").exists()

    made = []
    monkeypatch.setattr(
        study, "run", lambda *given, original=study.run: made.append(given[-1].seed) or original(*given)
    )
    study.transfer(replace(asked, seeds="0-2", executor="serial"))
    assert made == [2, 2]  # of both learners; the others are there
    with pytest.raises(InputError, match="choose another with --out"):
        study.transfer(replace(asked, search_budget=6))


def test_surrogates_are_judged_on_beside_tables(networks, tmp_path):
    predicted = str(make_surrogate(tmp_path / "predicted"))
    asked = settings([*networks, predicted], tmp_path / "study", agents=("carried_bandit",))
    study.transfer(asked)
    result = json.loads((tmp_path / "study" / "transfer.json").read_text())
    (form,) = result["forms"]
    told = form["learners"]["carried_bandit"]["3"]["networks"]
    assert list(told) == ["layers4", "predicted"]
    run = json.loads((tmp_path / "study" / "runs" / "accuracy_x_saving--carried_bandit--seed0.json").read_text())
    assert list(run["predicted"]["3"]["best"]) == ["conv_0", "conv_1", "conv_2", "conv_3"]


def test_parts_of_the_suite_are_networks_by_name():
    assert study.asked_for(("large", "mine")) == ["vgg16-bn", "resnet20", "mine"]
    assert study.asked_for(("training", "held_out", "large")) == [
        *dsfp_env.suite.TRAINING,
        *dsfp_env.suite.HELD_OUT,
        *dsfp_env.suite.LARGE,
    ]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"budgets": (3, 1)}, "budgets rising"),
        ({"search_budget": 0}, "1 or more"),
        ({"agents": ("carried_bandits",)}, "carried_bandits"),
        ({"agents": ()}, "No learner or no reward is named"),
        ({"held_out": ("lrage",)}, "Unknown network 'lrage'. Did you mean 'large'.* held_out, .*resnet20"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(networks, tmp_path, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        study.transfer(replace(settings(networks, tmp_path / "study"), **wrong))
    assert not (tmp_path / "study").exists()
