"""Learners side by side: resumable runs, tables, and learners found by name."""

import json
from dataclasses import replace
from importlib.metadata import EntryPoint

import matplotlib.image
import numpy as np
import pytest

import agents
import agents.registry
from agents.compare import runs as compare
from agents.compare.report import accuracies_within, table
from agents.registry import AGENTS, choose_agent, expanded
from agents.reporting.fronts import front_of, volume_of
from agents.reporting.statistics import iqm
from dsfp_env import InputError
from dsfp_env.toy import ToyEnv


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits):
    """A small real comparison."""
    folder = tmp_path_factory.mktemp("compare")
    names = "random_search", "q_learning(step_size=0.5)", "q_learning@difference"
    settings = compare.ComparisonSettings(names, budgets=(3, 6), seeds="0", workers=1, out=str(folder))
    compare.compare(settings)
    return settings, folder


def test_every_run_leaves_a_file_of_what_it_did(finished):
    _, folder = finished
    assert (
        len(list((folder / "runs").iterdir())) == 2 + 2 + 1
    )  # three evaluations are not enough for difference credit
    run = json.loads((folder / "runs" / "q_learning@difference-6-seed0.json").read_text())
    assert (run["agent"], run["budget"], run["seed"]) == ("q_learning@difference", 6, 0)
    assert len(run["scores"]) == 1  # a step of four agents can take five evaluations
    assert run["evaluations"][-1] <= 6
    run = json.loads((folder / "runs" / "random_search-6-seed0.json").read_text())
    best = int(np.argmax(run["scores"]))
    assert run["best"]["relative_macs"] == run["relative_macs"][best]
    assert run["scores"][best] == run["accuracies"][best] * (1 - run["relative_macs"][best])
    assert run["hypervolume"] == volume_of(run["accuracies"], run["relative_macs"])
    for name in ("comparison.png", "fronts.png"):
        assert matplotlib.image.imread(folder / name).std() > 0.01


def test_it_goes_on_where_it_was(finished, monkeypatch):
    settings, folder = finished
    again = folder / "runs" / "random_search-3-seed0.json"
    before, text = again.read_bytes(), (folder / "comparison.md").read_text()
    again.unlink()
    made = []
    original = compare.make_run
    monkeypatch.setattr(compare, "make_run", lambda *given: made.append(given[2:]) or original(*given))
    compare.compare(replace(settings, workers=1))  # in this process
    assert made == [("random_search", 3, 0), ("q_learning@difference", 3, 0)]
    assert again.read_bytes() == before
    assert (folder / "comparison.md").read_text() == text


def test_a_folder_of_something_else_is_refused(finished):
    _, folder = finished
    sentence = (
        "holds a comparison with other settings: --reward is accuracy_x_saving there, and budget came; "
        "--macs-budget is not given there, and 0.5 came. Give the same, or choose another with --out."
    )
    with pytest.raises(InputError, match=sentence):
        compare.compare(compare.ComparisonSettings(reward="budget", macs_budget=0.5, out=str(folder)))
    (other := folder / "other").mkdir()
    (other / "file").touch()
    with pytest.raises(InputError, match="is not empty"):
        compare.compare(compare.ComparisonSettings(out=str(other)))
    with pytest.raises(InputError, match="Did you mean 'q_learning'"):
        compare.compare(compare.ComparisonSettings(("q_lerning",), out=str(folder)))
    with pytest.raises(InputError, match="Did you mean 'difference'"):
        compare.compare(compare.ComparisonSettings(("q_learning@diference",), out=str(folder)))


def test_all_stands_for_every_learner():
    assert expanded(["uniform", "all", "ucb1@difference"]) == [
        "uniform", *(name for name in AGENTS if name != "uniform"), "ucb1@difference"
    ]  # fmt: skip


def test_the_table_has_interquartile_means():
    def run(agent, seed, reward):
        entry = {"reward": reward, "test_accuracy": 0.5, "relative_macs": 0.25}
        return {"agent": agent, "budget": 9, "seed": seed, "best": entry, "greedy": entry, "hypervolume": 0.5}

    worth = {"a": [0.1, 0.5, 0.6, 0.7], "b": [0.9, 0.9, 0.9, 0.9]}
    text = table([run(agent, seed, r) for agent, rewards in worth.items() for seed, r in enumerate(rewards)])
    rows = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ")]
    assert rows[2:4] == ["b", "a"]  # below the heading and its dashes, the best first
    assert f"| a | {iqm(worth['a']):.3f} [" in text
    assert "| b | 0.900 [0.900, 0.900] |" in text
    assert iqm(worth["a"]) == pytest.approx(0.55)


def test_differences_are_paired_by_seeds():
    def run(agent, seed, reward):
        entry = {"reward": reward, "test_accuracy": 0.5, "relative_macs": 0.25}
        return {"agent": agent, "budget": 9, "seed": seed, "best": entry, "greedy": entry, "hypervolume": 0.5}

    runs = [run("random_search", seed, 0.2 * seed) for seed in range(4)]
    text = table(runs + [run("better", seed, 0.2 * seed + 0.1) for seed in range(4)])
    assert "| better | +0.100 [+0.100, +0.100] |" in text
    assert "| random_search |  | 50.0%" in text


def test_front_and_volume_by_hand():
    tried = [(0.9, 0.5), (0.8, 0.6), (0.5, 0.2), (0.9, 0.7)]  # the first beats the second and the fourth
    lines = [{"validation_accuracy": a, "relative_macs": f} for a, f in tried]
    assert front_of(lines) == [lines[2], lines[0]]
    assert volume_of(*zip(*tried, strict=True)) == pytest.approx(0.9 * 0.5 + 0.5 * 0.3)


def test_the_best_accuracy_within_so_many_macs():
    run = {"relative_macs": [0.5, 0.2, 0.4], "accuracies": [0.9, 0.5, 0.8]}
    found = accuracies_within(run, np.array([0.1, 0.2, 0.39, 0.4, 1.0]))
    np.testing.assert_equal(found, [np.nan, 0.5, 0.5, 0.8, 0.9])


class Lowest:
    """A team of one's own: prunes as little as it may."""

    team = True

    def __init__(self, env, seed, *, level=0):
        self.env, self.level = env, level

    def act(self, observations, infos, *, deterministic=False):
        return dict.fromkeys(observations, self.level)

    def update(self, transition):
        pass


def played(text):
    env = ToyEnv()
    return agents.train(env, choose_agent(text).make(env, 0, 1), 1)[0].infos["conv_0"]["ratio"]


def test_a_team_of_ones_own_by_name_and_as_an_entry_point(monkeypatch):
    assert played("test_compare:Lowest") == 10
    assert played("test_compare:Lowest(level=3)") == 40
    with pytest.raises(InputError, match=r"Did you mean 'level'\? Expected one of: level"):
        choose_agent("test_compare:Lowest(levl=3)")
    points = [
        EntryPoint("lowest", "test_compare:Lowest", "dsfp_env.agents"),
        EntryPoint("gone", "no_such_package:Agent", "dsfp_env.agents"),
    ]
    monkeypatch.setattr(
        agents.registry, "entry_points", lambda group: points if group == "dsfp_env.agents" else []
    )
    assert played("lowest(level=8)") == 90
    with pytest.raises(InputError, match="Could not load the agent 'gone' that an installed package offers"):
        choose_agent("gone")
    with pytest.raises(InputError, match="Expected one of: .*lowest"):
        choose_agent("nobody")


def test_options_are_passed_on():
    learner = (
        choose_agent("q_learning(step_size=0.5, exploration_steps=7)").make(ToyEnv(), 0, 300).learners["conv_0"]
    )
    assert (learner.step_size, learner.exploration_steps) == (0.5, 7)
    assert choose_agent("q_learning").make(ToyEnv(), 0, 300).learners["conv_0"].exploration_steps == 200
    with pytest.raises(InputError, match="Did you mean 'step_size'"):
        choose_agent("q_learning(stepsize=0.5)")
    assert "step_size" in AGENTS["q_learning"].options
