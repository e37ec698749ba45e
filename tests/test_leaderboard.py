"""Learners on a hand-made table: regrets by hand, runs that are not made twice, and the command."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from surrogates import make_surrogate
from tables import make_table

import dsfp_env
import train_agents
from agents.leaderboard import regret, report
from agents.leaderboard import runs as leaderboard
from agents.leaderboard.boards import SurrogateBoard, TableBoard
from agents.leaderboard.forms import Form, parse_form
from agents.leaderboard.regret import after_each, judge
from agents.leaderboard.report import tables
from agents.leaderboard.runs import piece
from agents.registry import AGENTS
from agents.reporting.statistics import interval, mean
from dsfp_env import InputError

ROOT = Path(__file__).parents[1]
SAVING = parse_form("accuracy_x_saving")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of nine joint actions: two layers, three levels."""
    return make_table(tmp_path_factory.mktemp("tables") / "small")


def settings(folder, out, **kwargs):
    few = {"agents": ("uniform", "random_search"), "seeds": "0-3", "evaluations": 6, "workers": 1}
    return leaderboard.LeaderboardSettings(table=str(folder), out=str(out), **{**few, **kwargs})


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A small leaderboard with both rewards."""
    out = tmp_path_factory.mktemp("boards") / "first"
    leaderboard.leaderboard(settings(folder, out))
    return out


@pytest.fixture
def made(monkeypatch):
    """The learner, the reward and the seed of every run that is made from now on."""
    runs, original = [], leaderboard.make_run
    monkeypatch.setattr(
        leaderboard,
        "make_run",
        lambda evaluator, agent, form, seed, evaluations: (
            runs.append((agent, form.reward, seed)) or original(evaluator, agent, form, seed, evaluations)
        ),
    )
    return runs


def result(out):
    return json.loads((out / "leaderboard.json").read_text())


def learners(out, place=0):
    return {learner["agent"]: learner for learner in result(out)["forms"][place]["learners"]}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One layer with three levels and two seeds: the scores are accuracy * (1 - relative MACs) = a * p.

    Kept filters are 9, 5, 1 of 10, so MACs are 0.9, 0.5, 0.1 of the original's.
    """
    validation = [[100, 90], [80, 50], [40, 10]]  # [levels, seeds]: scores 0.10 0.09, 0.40 0.25, 0.36 0.09
    test = [[100, 80], [60, 60], [20, 60]]  # scores 0.10 0.08, 0.30 0.30, 0.18 0.54; means 0.09, 0.30, 0.36
    correct = np.stack([validation, test], axis=-1)[:, None].repeat(2, 1)  # [levels, fidelities, seeds, splits]
    folder = tmp_path_factory.mktemp("tables") / "tiny"
    return dsfp_env.load_table(make_table(folder, agents=1, seeds=(0, 1), correct=correct))


def test_regrets_by_hand(tiny):
    # seed 0: regrets 0.30, 0, 0.04, mean 0.34 / 3; seed 1: 0.16, 0, 0.16, mean 0.32 / 3
    runs = [
        {"seed": 0, "rows": [0, 2], "evaluations": [1, 2], "greedy": 0},
        {"seed": 3, "rows": [0, 1], "evaluations": [1, 2], "greedy": 1},  # answered by seed 1
    ]
    found = judge(TableBoard(tiny), SAVING, "somebody", runs, evaluations=3)
    regrets = {0: [0.30 * 3 / 0.34, 0, 0.04 * 3 / 0.34], 1: [1.5, 0, 1.5]}
    first, second = (regrets[0][0] + regrets[1][0]) / 2, (regrets[0][2] + 0) / 2
    assert found["best"]["mean"] == pytest.approx([first, second, second], abs=1e-6)
    assert found["best"]["low"] == pytest.approx([1.5, 0, 0], abs=1e-6)  # of two runs, both may be the same
    assert found["best"]["high"] == pytest.approx([regrets[0][0], regrets[0][2], regrets[0][2]], abs=1e-6)
    assert found["greedy"]["mean"] == pytest.approx(regrets[0][0] / 2, abs=1e-6)
    assert found["found"] == 0.5
    # test: the first run's best is row 2, the best of all; the second's is row 1
    worst, middle = 0.36 - 0.09, 0.36 - 0.30
    assert found["test"]["mean"] == pytest.approx((0 + middle / ((worst + middle) / 3)) / 2, abs=1e-6)
    assert found["seeds"] == 2


def test_regrets_are_those_of_the_table(folder):
    table = dsfp_env.load_table(folder)
    form = parse_form("budget(macs_budget=0.1)")
    levels = np.array([[i, j] for i in range(3) for j in range(3)])
    for seed, split in ((None, "test"), (1, "validation")):
        expected = table.regret(levels, "budget", 0.1, seed, split, normalised=True)
        np.testing.assert_allclose(TableBoard(table).of_all(form, seed, split), expected)


def test_what_is_known_after_each_evaluation_by_hand():
    # three steps, which ended after 2, 4 and 7 evaluations
    curve = after_each(np.array([0.5, 0.4, 0.1]), [2, 4, 7], evaluations=8)
    np.testing.assert_equal(curve, [np.nan, 0.5, 0.5, 0.4, 0.4, 0.4, 0.1, 0.1])


def test_on_a_surrogate_the_best_is_the_one_that_looked_best(tmp_path):
    board = SurrogateBoard(dsfp_env.load_surrogate(make_surrogate(tmp_path / "surrogate")))
    best, chance = board.surrogate.best_and_chance()
    half = (best + chance) / 2  # a regret of 0.5
    run = {"seed": 0, "seen": [0.3, 0.5, 0.4], "worth": [half, chance, best], "evaluations": [1, 2, 3]}
    regrets = board.regrets(SAVING, {**run, "greedy": best, "test": 0.0})
    assert regrets.best == pytest.approx([0.5, 1.0, 1.0])  # the second looked best, and is worth what chance is
    assert regrets.greedy == pytest.approx(0)


def test_a_leaderboard_on_a_surrogate(tmp_path):
    folder = make_surrogate(tmp_path / "surrogate")
    asked = leaderboard.LeaderboardSettings(
        ("random_search", "uniform"), surrogate=str(folder), seeds="0-1", evaluations=5, out=str(tmp_path / "out")
    )
    leaderboard.leaderboard(asked)
    found = result(tmp_path / "out")
    assert (found["board"]["kind"], found["live_seconds"]) == ("surrogate", None)
    assert (
        "best joint action of levels that a long search has found" in (tmp_path / "out/leaderboard.md").read_text()
    )
    before = (tmp_path / "out/runs").glob("*")
    assert len(list(before)) == 4  # two learners, two rewards
    with pytest.raises(InputError, match="expected one of them"):
        leaderboard.check(replace(asked, table="small-vgg-16px"))


def test_intervals_are_those_of_the_statistics():
    values = np.random.default_rng(1).random((7, 3))
    for point, (value, low, high) in enumerate(zip(*regret.bands(values), strict=True)):
        expected = interval(values[:, point], statistic=mean, rng=np.random.default_rng(0))
        assert (value, low, high) == pytest.approx(tuple(expected))
    assert [float(one[0]) for one in regret.bands(values[:1])] == [values[0, 0]] * 3  # of one run


def test_the_best_so_far_never_rises_and_all_files_are_there(finished, folder):
    for form in result(finished)["forms"]:
        for learner in form["learners"]:
            for curve in (learner["best"][name] for name in ("mean", "low", "high")):
                assert len(curve) == 6
                assert curve == sorted(curve, reverse=True)
    assert [form["reward"] for form in result(finished)["forms"]] == list(leaderboard.FORMS)
    assert result(finished)["board"]["checksum"] == dsfp_env.load_table(folder).meta["checksum"]
    text = (finished / "leaderboard.md").read_text()
    assert text == tables(result(finished))
    assert "|  | best, 6 | optimum found | greedy | best, test | seeds |" in text
    assert re.search(r"would have taken \d+(\.\d minutes| seconds) on one core. This call took \d+ seconds", text)
    assert matplotlib.image.imread(finished / "leaderboard.png").std() > 0.01


def test_the_tables_judge_after_as_many_evaluations_as_asked(folder, tmp_path):
    leaderboard.leaderboard(settings(folder, tmp_path / "out", at=(4, 2, 99)))
    assert "| best, 2 | best, 4 | best, 6 | optimum found |" in (tmp_path / "out" / "leaderboard.md").read_text()


def test_what_a_run_leaves(finished, folder):
    table = dsfp_env.load_table(folder)
    lines = piece(finished, SAVING, "uniform").read_text().splitlines()
    runs = [json.loads(line) for line in lines]
    assert [run["seed"] for run in runs] == [0, 1, 2, 3]
    assert runs[0]["evaluations"] == [1, 2, 3, 4, 5, 6]
    # 10, 20, 30, ... %: the nearest of 10, 50, 90 %, the lower of two; both layers the same
    assert runs[0]["rows"] == [0, 0, 0, 4, 4, 4]
    scores = table.scores("accuracy_x_saving", seed=0)
    assert runs[0]["greedy"] == runs[3]["greedy"] == (4 if scores[4] > scores[0] else 0)
    assert result(finished)["live_seconds"] == sum(
        table.live_seconds(table.levels_of(json.loads(line)["rows"]))
        for path in (finished / "runs").iterdir()
        for line in path.read_text().splitlines()
    )


def test_who_has_seen_everything_has_no_regret(folder, tmp_path):
    one = settings(folder, tmp_path / "out", agents=("random_search",), evaluations=300, rewards=(SAVING.text,))
    leaderboard.leaderboard(one)
    for line in piece(tmp_path / "out", SAVING, "random_search").read_text().splitlines():
        assert set(json.loads(line)["rows"]) == set(range(9))
    found = learners(tmp_path / "out")["random_search"]
    assert found["best"]["mean"][-1] == found["best"]["high"][-1] == found["greedy"]["mean"] == 0
    assert found["found"] == 1


def test_levels_are_masked_by_the_budget_and_box_is_not(finished, folder):
    table, form = dsfp_env.load_table(folder), parse_form("budget(macs_budget=0.1)")
    macs = table.query(table.levels_of(np.arange(9))).relative_macs

    def largest(agent):
        lines = piece(finished, form, agent).read_text().splitlines()
        return max(macs[json.loads(line)["rows"]].max() for line in lines)

    assert largest("random_search") <= 0.1 < largest("uniform")


def test_the_same_call_gives_the_same_bytes_and_makes_nothing_twice(finished, folder, tmp_path, made):
    for runs in (16, 0):
        made.clear()
        leaderboard.leaderboard(settings(folder, tmp_path / "again"))
        assert len(made) == runs
        first, second = (result(one) for one in (finished, tmp_path / "again"))
        assert first.pop("this_call")["runs"] == 16
        assert second.pop("this_call")["runs"] == runs
        assert json.dumps(first) == json.dumps(second)
    for path in (finished / "runs").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "runs" / path.name).read_bytes()


def test_other_processes_do_the_same(finished, folder, tmp_path, made):
    one = settings(folder, tmp_path / "out", agents=("random_search",), rewards=(SAVING.text,), workers=2)
    leaderboard.leaderboard(one)
    assert made == []
    first, second = (piece(out, SAVING, "random_search") for out in (finished, tmp_path / "out"))
    assert first.read_bytes() == second.read_bytes()


def test_more_seeds_run_only_those_that_are_missing(folder, tmp_path, made):
    one = settings(folder, tmp_path / "out", agents=("random_search",), rewards=(SAVING.text,), seeds="0,2")
    leaderboard.leaderboard(one)
    before = result(tmp_path / "out")["forms"]
    assert made == [("random_search", "accuracy_x_saving", seed) for seed in (0, 2)]
    made.clear()
    leaderboard.leaderboard(replace(one, seeds="0-3"))
    assert made == [("random_search", "accuracy_x_saving", seed) for seed in (1, 3)]
    assert learners(tmp_path / "out")["random_search"]["seeds"] == 4
    made.clear()
    leaderboard.leaderboard(one)  # the two that were asked for, of the four that are there
    assert made == []
    assert result(tmp_path / "out")["forms"] == before


def test_slow_learners_take_a_few_of_the_seeds(folder, tmp_path, monkeypatch, made):
    monkeypatch.setitem(AGENTS, "uniform", replace(AGENTS["uniform"], slow=True))
    names = "random_search", "uniform"
    few = settings(folder, tmp_path / "out", agents=names, rewards=(SAVING.text,), slow_seeds=2)
    leaderboard.leaderboard(few)
    seeds = {name: learner["seeds"] for name, learner in learners(tmp_path / "out").items()}
    assert seeds == {"uniform": 2, "random_search": 4}
    assert [agent for agent, _, _ in made] == ["uniform"] * 2 + ["random_search"] * 4  # the slow one first
    made.clear()
    leaderboard.leaderboard(replace(few, slow_seeds=0))
    assert made == [("uniform", "accuracy_x_saving", seed) for seed in (2, 3)]


def test_who_is_slow():
    assert {name for name, entry in AGENTS.items() if entry.slow} == {
        *("vdn", "qmix", "gp_search", "tpe", "ppo", "a2c", "sac", "td3", "ddpg", "tqc", "dqn", "maskable_ppo")
    }


def test_another_table_or_budget_in_the_same_folder_is_refused(finished, folder, tmp_path):
    other = make_table(tmp_path / "other", levels=(20, 50, 90))
    for wrong, what in (
        (settings(other, finished), "checksum is [0-9a-f]+ there, and [0-9a-f]+ came"),
        (settings(folder, finished, evaluations=7), "--evaluations is 6 there, and 7 came"),
    ):
        with pytest.raises(InputError, match=f"holds runs with other settings: {what}. Give the same, or choose"):
            leaderboard.leaderboard(wrong)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="is not empty"):
        leaderboard.leaderboard(settings(folder, tmp_path / "full"))


def test_who_cannot_be_run_is_left_out_and_named_once(folder, tmp_path, capsys):
    names = "random_search", "random_search@difference"  # three evaluations a step
    leaderboard.leaderboard(settings(folder, tmp_path / "out", agents=names, evaluations=2))
    assert list(learners(tmp_path / "out")) == ["random_search"]
    assert capsys.readouterr().err.count("random_search@difference: The budget is 2 evaluation(s)") == 1
    with pytest.raises(InputError, match="No run could be made"):
        leaderboard.leaderboard(settings(folder, tmp_path / "none", agents=names[1:], evaluations=2))


def test_an_optimum_beyond_the_budget_is_named(folder, tmp_path):
    form = "accuracy_x_saving(macs_budget=0.06)"  # only 90 % of both is within it
    leaderboard.leaderboard(settings(folder, tmp_path / "out", agents=("random_search",), rewards=(form,)))
    text = (tmp_path / "out" / "leaderboard.md").read_text()
    assert "cannot go for their masks: the optimum of seed 0, 1, 2." in text


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"agents": ("q_lerning",)}, "Did you mean 'q_learning'"),
        ({"rewards": ("budget",)}, "needs a budget"),
        ({"rewards": ("budget(macs=0.1)",)}, "Expected one of: macs_budget"),
        ({"rewards": ("budget(macs_budget=low)",)}, "is 'low': expected a number"),
        ({"rewards": ("accuracy_x_speed",)}, "needs measured times, and a table has none"),
        ({"seeds": "3-1"}, "expected for example 0-4"),
        ({"evaluations": 0}, "--evaluations is 0: expected 1 or more"),
        ({"at": (0, 50)}, r"--at is \(0, 50\): expected numbers of evaluations, 1 or more"),
        ({"slow_seeds": -1}, "--slow-seeds is -1: expected 0 or more"),
        ({"table": "nowhere"}, "There is no table 'nowhere'. Expected one"),
        ({"table": "small-vgg"}, "There is no table 'small-vgg'. Did you mean 'small-vgg-16px'. Expected one"),
        (
            {"table": "digits", "surrogate": "resnet-20"},
            "There is no surrogate 'resnet-20'. Did you mean 'resnet20'. Expected one",
        ),
    ],
    ids=str,
)
def test_bad_settings_get_a_sentence_and_write_nothing(folder, tmp_path, wrong, sentence):
    given = {"table": str(folder), "out": str(tmp_path / "out"), **wrong}
    with pytest.raises(InputError, match=sentence):
        leaderboard.leaderboard(leaderboard.LeaderboardSettings(**given))
    assert list(tmp_path.iterdir()) == []


def test_forms():
    assert parse_form("budget(macs_budget=0.3)") == Form("budget(macs_budget=0.3)", "budget", 0.3)
    assert parse_form("package.module:worth") == Form("package.module:worth", "package.module:worth", None)


def from_train_agents(folder, **kwargs):
    few = {"agent": "random_search", "seeds": "0-1", "evaluations": 4, "workers": 1}
    return train_agents.RunSettings(task=str(folder), backend="table", **{**few, **kwargs})


def test_the_command(folder, tmp_path):
    words = f"--backend table --task {folder} --agent random_search --seeds 0-1 --evaluations 4 --workers 1"
    process = subprocess.run(
        [sys.executable, str(ROOT / "train_agents.py"), *words.split(), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.returncode == 0, process.stderr
    names = {"leaderboard.md", "leaderboard.json", "leaderboard.png", "runs", "settings.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert (tmp_path / "out" / "leaderboard.md").read_text() in process.stdout


def test_train_agents_passes_its_settings_on(folder, monkeypatch):
    asked = []
    monkeypatch.setattr(leaderboard, "leaderboard", asked.append)
    assert train_agents.train(from_train_agents(folder, agent="all", out="out")) == 0
    assert train_agents.train(from_train_agents(folder, seeds=None, seed=7, macs_budget=0.3)) == 0
    assert train_agents.train(from_train_agents(folder, reward="accuracy_x_saving")) == 0
    first, second, third = asked
    assert (first.agents, first.rewards, first.seeds) == (("all",), leaderboard.FORMS, "0-1")
    assert (first.table, first.evaluations, first.workers, first.out) == (str(folder), 4, 1, "out")
    assert (second.agents, second.rewards) == (("random_search",), ("budget(macs_budget=0.3)",))
    assert second.seeds == "7"
    assert second.out.startswith("runs/")
    assert second.out.endswith("-table")
    assert third.rewards == ("accuracy_x_saving",)


@pytest.mark.parametrize(
    "wrong",
    [
        {"criterion": "l1"},
        {"kd_batches": 1},
        {"precision": "bfloat16"},
        {"kernels": "torch"},
        {"weights": "DEFAULT"},
        {"network": "resnet18"},
        {"horizon": 2},
        {"credit": "difference"},
        {"observation": "context"},
        {"store": False},
        {"min_filters": 2},
        {"device": "cpu"},
    ],
    ids=str,
)
def test_settings_that_mean_nothing_with_a_table_are_refused(folder, wrong):
    name = next(iter(wrong)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{name} is .*, which --backend table cannot do"):
        train_agents.train(from_train_agents(folder, **wrong))


def test_all_learners_are_for_a_table():
    with pytest.raises(InputError, match="`python -m agents.compare` compares several live"):
        train_agents.train(train_agents.RunSettings(agent="all"))
    with pytest.raises(InputError, match="Did you mean 'table'"):
        train_agents.train(train_agents.RunSettings(backend="tabel"))


def test_a_short_time_is_not_told_in_hours():
    assert [report._long(seconds) for seconds in (7.4, 90, 5400)] == ["7 seconds", "1.5 minutes", "1.5 hours"]
