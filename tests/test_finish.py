"""The end of a run: the long fine-tune, criteria compared within one budget, files that are checked."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import make_tiny_task

import dsfp_env
import train_agents
from agents.reporting import exported, run_folder
from agents.reporting.criteria_choice import choose_criterion
from agents.reporting.journal import Journal
from dsfp_env import Evaluator, InputError
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.fine_tuning import distil
from dsfp_env.training.recipes import FINE_TUNING, recipe_from

CRITERIA = "l1, dsfp(kl=fisher), random"
TINY = {"task": "tiny_tasks:tiny", "evaluations": 30, "kd_batches": 1, "device": "cpu", "workers": 1}


def settings(**given):
    return train_agents.RunSettings(**{**TINY, "macs_budget": 0.4, **given})


def test_a_task_of_ones_own_to_its_files(tmp_path, capsys):
    """All at once, on a task named as module:function, a layer bounded."""
    runtime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra dsfp_env[onnx] and onnxruntime")
    out, tiny = tmp_path / "out", make_tiny_task()
    asked = settings(
        criteria=CRITERIA,
        fine_tune="plain(epochs=2)",
        export="onnx, torch",
        layers="conv_1=20-60",
        round_to=2,
        out=str(out),
    )
    train_agents.train(asked)
    result = json.loads((out / "result.json").read_text())
    left = {"evaluations.jsonl", "pruned.onnx", "pruned.pt2", "pruned.safetensors", "result.json", "settings.json"}
    assert {path.name for path in out.iterdir() if "report" not in path.name} == {
        *left,
        "summary.png",
        "config.yaml",
    }

    # Criteria: a fifth of the evaluations, two joint actions for each; the search has the rest.
    assert result["evaluations"] == 30
    assert (result["criteria"]["joint_actions"], result["criteria"]["evaluations"]) == (2, 6)
    rewards = result["criteria"]["mean_reward"]
    assert list(rewards) == ["l1", "dsfp(kl=fisher)", "random"]
    assert result["criterion"] == max(rewards, key=rewards.get)
    assert len((out / "evaluations.jsonl").read_text().splitlines()) == 24

    # The long fine-tune, by hand.
    ratios = result["best"]["ratios"]
    assert 20 <= ratios["conv_1"] <= 60
    evaluator = Evaluator(tiny, result["criterion"], round_to=2)
    keep = evaluator.keep(ratios)
    by_hand = tiny.graph.slim(tiny.network, keep)
    recipe = recipe_from("plain(epochs=2)", FINE_TUNING)
    distil(by_hand, tiny.network, tiny.train, tiny.validation, recipe, 0)
    tuned = result["fine_tuned"]["networks"]
    assert list(tuned) == ["best", "uniform", "random_search_equal_macs"]
    assert tuned["best"]["test_accuracy"] == measure_accuracy(by_hand, tiny.test)
    assert tuned["best"]["validation_accuracy"] == measure_accuracy(by_hand, tiny.validation)
    pruned = dsfp_env.load_pruned(out / "pruned.safetensors", tiny)
    logits = by_hand(tiny.test.images)
    assert torch.equal(pruned(tiny.test.images), logits)

    # The files answer as that does.
    session = runtime.InferenceSession(out / "pruned.onnx")
    (theirs,) = session.run(["logits"], {"images": tiny.test.images.numpy()})
    program = torch.export.load(out / "pruned.pt2").module()
    for came in (torch.from_numpy(theirs), program(tiny.test.images)):
        assert torch.allclose(came, logits, atol=1e-5)
    for told in result["exported"].values():
        assert told["agrees"]
        assert told["images"] == len(tiny.test.labels)
        assert told["test_accuracy"] == tuned["best"]["test_accuracy"]
    said = capsys.readouterr().out
    assert "after the long fine-tune, plain(epochs=2)" in said
    assert "pruned.onnx: " in said
    assert "criteria on the same 2 joint actions" in said


def test_a_file_that_answers_otherwise_is_not_called_good(tiny, tmp_path, capsys, monkeypatch):
    other = make_tiny_task("other").network
    with torch.no_grad():
        other.head.bias += torch.tensor([9.0, 0.0, 0.0])
    write = exported._write_torch
    monkeypatch.setitem(exported._WRITERS, "torch", lambda path, network, test: write(path, other, test))

    def fail(*given):
        raise InputError("cannot be exported, since it is a test")

    monkeypatch.setitem(exported._WRITERS, "onnx", fail)
    told = exported.export_all(tmp_path, ["torch", "onnx"], tiny.network, tiny.test)
    assert told["torch"]["agrees"] is False
    assert told["torch"]["largest_difference"] == pytest.approx(9, abs=1e-3)
    assert told["onnx"] == {"error": "cannot be exported, since it is a test"}
    errors = capsys.readouterr().err
    assert "the export to torch cannot be used: it answers otherwise than the network" in errors
    assert "the export to onnx cannot be used: cannot be exported" in errors


def test_criteria_are_compared_on_the_same_joint_actions_and_noted(tiny, tmp_path):
    """What they come to is what `Evaluator` says; gone on with, nothing is measured again."""
    asked, path = [], tmp_path / "journal.jsonl"

    def make_env(criterion):
        env = dsfp_env.parallel_env(
            task=tiny, actions="levels", reward="budget", macs_budget=0.4, criterion=criterion
        )
        evaluate = env.evaluator.evaluate

        def counted(plan, seed):
            asked.append((criterion, tuple(plan.values())))
            return evaluate(plan, seed)

        env.evaluator.evaluate = counted
        return env

    def choose():
        return choose_criterion(["l1", "random"], make_env, "levels", 40, 3, Journal(path))

    choice = choose()
    plans = [plan for criterion, plan in asked if criterion == "l1"]
    assert plans == [plan for criterion, plan in asked if criterion == "random"]
    assert (choice.plans, choice.spent, len(plans)) == (4, 8, 4)
    for name, mean in choice.mean_rewards.items():
        env = dsfp_env.parallel_env(evaluator=Evaluator(tiny, name), reward="budget", macs_budget=0.4)
        outcomes = [env.evaluator.evaluate(dict(zip(tiny.agents, plan, strict=True)), 3) for plan in plans]
        assert max(outcome.relative_macs for outcome in outcomes) <= 0.4  # masks are kept
        assert mean == pytest.approx(sum(map(env.score, outcomes)) / 4)
    asked.clear()
    assert choose() == choice
    assert asked == []


def test_agents_try_the_plans_of_rules_first(tiny, tmp_path, monkeypatch):
    """Ratios exactly, levels the nearest; and a run that is stopped afterwards goes on as if not."""
    asked = settings(
        warm_start="erk, sensitivity", agent="regression_bandit", criterion="l1", fill_budget=True,
        evaluations=5, out=str(tmp_path / "out"),
    )  # fmt: skip
    train_agents.train(asked)
    lines = [json.loads(line) for line in (tmp_path / "out" / "evaluations.jsonl").read_text().splitlines()]
    evaluator = Evaluator(tiny, "l1", replace(tiny.fidelity, batches=1))
    at_budget = dsfp_env.AtBudget(evaluator, 0.4)
    for line, rule in zip(lines, ("erk", "sensitivity"), strict=False):
        plan = at_budget.filled(dsfp_env.allocate(evaluator, rule, macs_budget=0.4))
        assert line["ratios"] == pytest.approx(plan, abs=0.2)  # of a bisection
    assert json.loads((tmp_path / "out" / "result.json").read_text())["warm_start"] == "erk, sensitivity"

    again = replace(asked, out=str(tmp_path / "again"))
    done = []

    def stop(*given):
        done.append(given)
        if len(done) == 3:
            raise KeyboardInterrupt
        return add(*given)

    add = run_folder.RunFolder.add
    monkeypatch.setattr(run_folder.RunFolder, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        train_agents.train(again)
    monkeypatch.undo()
    train_agents.train(again)
    assert (tmp_path / "again" / "evaluations.jsonl").read_text() == (
        tmp_path / "out" / "evaluations.jsonl"
    ).read_text()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"criteria": "l1"}, "--criteria is 'l1': expected two or more, each once"),
        ({"criteria": "l1, l1"}, "expected two or more, each once"),
        ({"criteria": "l1, l3"}, "Unknown criterion 'l3'"),
        ({"criteria": "l1, l2", "evaluations": 19}, "too few to compare 2 criteria .* expected 20 or more"),
        ({"export": "onxx"}, "Unknown format 'onxx'. Did you mean 'onnx'"),
        ({"fine_tune": "long"}, "Unknown recipe 'long'"),
        ({"fine_tune": "plain(epochs=0)"}, "1 or more"),
        ({"warm_start": "erk, ekr"}, "Unknown rule 'ekr'. Did you mean 'erk'"),
        ({"warm_start": "erk", "macs_budget": None}, "expected --macs-budget with it"),
        ({"warm_start": "erk, erk"}, "--warm-start is erk erk: expected each rule once"),
        ({"warm_start": "erk", "agent": "sac"}, "--warm-start: sac has a loop of its own"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_before_anything_is_written(tmp_path, given, sentence):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=sentence):
        train_agents.train(settings(out=str(out), **given))
    assert not out.exists()
