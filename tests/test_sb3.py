"""Stable-Baselines3's algorithms as teams: budgets of evaluations, equal seeds, warnings, trained models."""

import json

import numpy as np
import pytest
import torch

import agents
import dsfp_env
import train_agents
from agents.libraries.recording import BudgetSpent, Ledger, Recorded
from agents.libraries.sb3 import ALGORITHMS, VIEWS, StableBaselines3, as_seen, from_sb3
from agents.registry import choose_agent
from dsfp_env import InputError
from dsfp_env.toy import ToyEnv

SHARED = [(name, "shared") for name in ALGORITHMS]
JOINT = [(name, "joint") for name in ALGORITHMS if name != "dqn"]  # which knows Discrete only
IN_TURN = [(name, "in_turn") for name in ("ppo", "sac", "dqn", "maskable_ppo")]


def make_team(name, view, evaluations, seed=0, macs_budget=None, **hyperparameters):
    if ALGORITHMS[name].module == "sb3_contrib":
        pytest.importorskip("sb3_contrib")
    env = ToyEnv("levels" if name in ("dqn", "maskable_ppo") else "box", macs_budget=macs_budget)
    return env, StableBaselines3(env, seed, evaluations, name, view, **hyperparameters)


def parameters(team):
    return torch.cat([tensor.flatten() for tensor in team.model.policy.state_dict().values()])


@pytest.mark.parametrize(("name", "view"), SHARED + JOINT + IN_TURN)
def test_every_algorithm_spends_its_budget_and_equal_seeds_agree(name, view):
    def learn(seed):
        env, team = make_team(name, view, 12, seed)
        before = parameters(team)
        history = agents.train(env, team, 12, seed=seed)
        assert (parameters(team) != before).any()
        return [tuple(e.infos[a]["ratio"] for a in e.infos) for e in history], parameters(team)

    (first, weights), (again, same), (other, _) = learn(0), learn(0), learn(1)
    assert len(first) == 12
    assert first == again != other
    assert torch.equal(weights, same)


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("ppo", "shared"),
        ("ppo", "joint"),
        ("ppo", "in_turn"),
        ("maskable_ppo", "shared"),
        ("maskable_ppo", "in_turn"),
    ],
)
def test_it_learns_the_known_optimum(name, view):
    """The middle of the range, where a policy starts, is worth 0.865; the optimum 1."""
    env, team = make_team(name, view, 300)
    history = agents.train(env, team, 300, seed=0)
    assert agents.play(env, team).score > 0.95
    assert np.mean([e.score for e in history[-50:]]) > np.mean([e.score for e in history[:50]]) + 0.05


def test_a_rollout_that_ends_with_the_budget_is_learned_from():
    env, team = make_team("ppo", "shared", 16, n_steps=8)
    agents.train(env, team, 16)
    assert team.model._n_updates == 2 * team.model.n_epochs
    env, team = make_team("ppo", "in_turn", 16, n_steps=24)
    agents.train(env, team, 16)
    assert team.model._n_updates == 2 * team.model.n_epochs
    env, team = make_team("ppo", "shared", 15, n_steps=8)
    assert len(agents.train(env, team, 15)) == 15
    assert team.model._n_updates == team.model.n_epochs


@pytest.mark.parametrize(
    ("name", "view", "options", "needed"),
    [
        ("ppo", "shared", {"n_steps": 32}, 32),
        ("ppo", "in_turn", {"n_steps": 64}, 22),  # of three turns
        ("sac", "shared", {"learning_starts": 60}, 21),
        ("sac", "in_turn", {"learning_starts": 60}, 21),
    ],
)
def test_a_budget_that_allows_no_update_is_warned_of(name, view, options, needed):
    env, team = make_team(name, view, 20, **options)
    with pytest.warns(UserWarning, match=f"learns nothing in 20 .* first update comes after {needed}"):
        agents.train(env, team, 20)


def test_masks_are_respected():
    for view in VIEWS:
        env, team = make_team("maskable_ppo", view, 60, macs_budget=0.3)
        history = agents.train(env, team, 60, seed=0)
        history.append(agents.play(env, team))
        assert max(e.infos["conv_0"]["relative_macs"] for e in history) <= 0.3


@pytest.mark.parametrize("view", VIEWS)
def test_a_trained_model_plays(tmp_path, view):
    from stable_baselines3 import PPO

    env = ToyEnv("box", horizon=2)
    model = PPO("MlpPolicy", as_seen(env, view), n_steps=8, batch_size=8)
    model.save(tmp_path / "model.zip")
    team = from_sb3(PPO.load(tmp_path / "model.zip"), env)
    played = agents.play(env, team)
    observations, infos = env.reset()
    joint = team.act(observations, infos, deterministic=True)
    assert set(joint) == set(env.agents)
    assert env.action_space("conv_0").contains(joint["conv_0"])
    assert played.score > 0.8
    with pytest.raises(InputError, match=r"expected the spaces of ParallelVecEnv.env., of JointActionEnv"):
        from_sb3(model, ToyEnv("levels"))


def test_recording_stops_before_the_budget_is_exceeded(tiny):
    env = dsfp_env.parallel_env(task=tiny, credit="difference", seed=0)  # up to 3 evaluations a step
    ledger = Ledger(7)
    recorded = Recorded(env, ledger)
    for _ in range(2):
        recorded.reset()
        recorded.step({"conv_0": 20.0, "conv_1": 80.0})
    recorded.reset()
    with pytest.raises(BudgetSpent):
        recorded.step({"conv_0": 20.0, "conv_1": 80.0})
    assert [evaluation.number for evaluation in ledger.history] == [3, 6]


def test_bad_input_gets_a_sentence():
    with pytest.raises(InputError, match="Did you mean 'learning_rate'"):
        make_team("ppo", "shared", 20, learning_rat=1)
    with pytest.raises(InputError, match="Did you mean 'shared'"):
        make_team("ppo", "share", 20)
    with pytest.raises(InputError, match="dqn cannot be used here, with the view 'joint'"):
        make_team("dqn", "joint", 20)


def test_from_the_command_line(tmp_path, digits):
    out = tmp_path / "out"
    settings = train_agents.RunSettings(
        agent="ppo(n_steps=4)", evaluations=8, kd_batches=1, criterion="l1", store=False, workers=1, out=str(out)
    )
    assert train_agents.train(settings) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["agent"] == "ppo(n_steps=4)"
    assert len((out / "evaluations.jsonl").read_text().splitlines()) == 8
    with pytest.raises(InputError, match="Did you mean 'n_steps'"):
        choose_agent("ppo(n_step=4)").make(ToyEnv("box"), 0, 8)
