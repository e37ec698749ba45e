"""Callbacks and trackers: who follows a run is told of it, and changes nothing."""

import dataclasses
import json
import sys
import types

import pytest

import agents
import train_agents
from agents.reporting.run_folder import check_same
from agents.reporting.trackers import TRACKERS, Tracking
from dsfp_env.common.errors import InputError
from dsfp_env.toy import ToyEnv

QUICK = {"evaluations": 3, "kd_batches": 1, "criterion": "l1", "device": "cpu", "workers": 1}


class Heard(agents.Callback):
    def __init__(self):
        self.calls = []

    def on_start(self, settings):
        self.calls.append(("start", dict(settings)))

    def on_evaluation(self, evaluation, learned):
        self.calls.append(("evaluation", evaluation.number, evaluation.score, learned))

    def on_end(self, result):
        self.calls.append(("end", result))


def test_callbacks_are_told_what_the_learners_say():
    env = ToyEnv()
    heard, order = Heard(), []
    team = agents.Independent(agents.QLearning, env, seed=0)
    history = agents.train(env, team, 4, seed=1, on_evaluation=order.append, callbacks=[heard, agents.Callback()])
    start, *evaluations, end = heard.calls
    assert start == ("start", {"evaluations": 4, "seed": 1, "agents": env.possible_agents})
    assert order == history
    assert [call[1:3] for call in evaluations] == [(one.number, one.score) for one in history]
    assert all(set(call[3]) == {f"{agent}/td_error" for agent in env.possible_agents} for call in evaluations)
    best = agents.best(history)
    assert end == ("end", {"evaluations": 4, "actions": best.actions, "reward": best.score})


def test_callbacks_change_nothing_and_hear_of_a_failure():
    def trained(**more):
        env = ToyEnv()
        return agents.train(env, agents.Independent(agents.UCB1, env, seed=0), 5, seed=0, **more)

    heard = Heard()
    assert trained() == trained(callbacks=[heard])

    def fail(evaluation):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        trained(on_evaluation=fail, callbacks=[heard])
    assert heard.calls[-1] == ("end", None)


def test_learners_with_a_loop_of_their_own_are_followed_too():
    env, heard = ToyEnv("box"), Heard()
    from agents.registry import choose_agent

    agents.train(env, choose_agent("a2c").make(env, 0, 6), 6, seed=0, callbacks=[heard])
    assert [call[:2] for call in heard.calls[1:-1]] == [("evaluation", number) for number in range(1, 7)]
    assert {call[3] for call in heard.calls[1:-1]} == {None}


class Library(types.ModuleType):
    """A small fake of the three: it notes what it is told."""

    def __init__(self, name):
        super().__init__(name)
        self.told = []
        self.summary = self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def note(*args, **kwargs):
            self.told.append((name, args, kwargs))
            return self

        return note


NOTES = {"wandb": "log", "trackio": "log", "mlflow": "log_metrics"}


def follow(name, folder, evaluations=3):
    env = ToyEnv()
    tracking = Tracking(name, folder)
    team = agents.Independent(agents.QLearning, env, seed=0)
    return agents.train(env, team, evaluations, seed=0, callbacks=[tracking])


@pytest.mark.parametrize("name", NOTES)
def test_trackers_are_told_in_their_own_words(name, tmp_path, monkeypatch):
    library = Library(name)
    monkeypatch.setitem(sys.modules, name, library)
    history = follow(name, tmp_path)
    calls = [(args, kwargs) for call, args, kwargs in library.told if call == NOTES[name] and kwargs]
    written = [(args[0], kwargs["step"]) for args, kwargs in calls]
    assert [step for _, step in written] == [1, 2, 3]
    assert [numbers["reward"] for numbers, _ in written] == [one.score for one in history]
    assert "learned/conv_0/td_error" in written[0][0]
    assert library.told[-1][0] in ("finish", "end_run")
    assert all(type(number) in (int, float) for numbers, _ in written for number in numbers.values())


def test_what_tensorboard_was_told_is_read_back_also_after_a_second_start(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    follow("tensorboard", tmp_path, evaluations=2)  # as if stopped
    history = follow("tensorboard", tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    seen = events.Scalars("reward")
    assert [one.step for one in seen] == [1, 2, 3]
    assert [one.value for one in seen] == pytest.approx([one.score for one in history])
    best = [one.value for one in events.Scalars("best_reward")]
    assert best == sorted(best)
    assert events.Scalars("learned/conv_1/td_error")


def test_a_tracker_that_fails_is_a_warning_and_not_the_end(tmp_path, monkeypatch):
    library = Library("trackio")

    def log(*args, **kwargs):
        raise OSError("no network")

    library.log = log
    monkeypatch.setitem(sys.modules, "trackio", library)
    with pytest.warns(
        UserWarning, match=r"--track trackio failed \(OSError: no network\): the run goes on"
    ) as all_:
        assert len(follow("trackio", tmp_path)) == 3
    assert len(all_) == 1


def test_a_tracker_that_is_not_there_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    out = tmp_path / "out"
    for name, sentence in (("wandb", "--track wandb needs the library wandb"), ("tensorbord", "Did you mean")):
        with pytest.raises(InputError, match=sentence):
            train_agents.train(train_agents.RunSettings(track=name, out=str(out), **QUICK))
    assert not out.exists()
    assert set(TRACKERS) == {"tensorboard", "wandb", "mlflow", "trackio"}


@pytest.mark.usefixtures("digits")
def test_a_run_is_tracked_from_its_settings_to_its_result(tmp_path, monkeypatch):
    library = Library("trackio")
    monkeypatch.setitem(sys.modules, "trackio", library)
    out = tmp_path / "out"
    assert train_agents.train(train_agents.RunSettings(out=str(out), track="trackio", **QUICK)) == 0
    assert library.told[0][2]["config"]["criterion"] == "l1"
    best = json.loads((out / "result.json").read_text())["best"]
    numbers = next(args[0] for _, args, _ in reversed(library.told) if args)
    assert numbers["result/best/test_accuracy"] == best["test_accuracy"]
    assert "macs_budget: null" in (out / "config.yaml").read_text()
    assert "trackio" not in (out / "report.html").read_text()  # equal runs have equal reports
    check_same(
        out, dataclasses.asdict(train_agents.RunSettings(out="other", **QUICK))
    )  # nor does it hinder going on
