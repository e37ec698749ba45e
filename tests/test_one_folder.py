"""Folders of studies: one process at a time, one set of versions, nothing of killed processes in them."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import make_tiny_task
from tables import make_table

import dsfp_env
import train_agents
from agents.compare import runs as compare
from agents.leaderboard import runs as leaderboard
from agents.main_job.judging import judge
from agents.reporting import run_folder
from agents.reproduce import study
from dsfp_env import tabulate
from dsfp_env.common import command_line, folders, versions
from dsfp_env.common.errors import InputError
from dsfp_env.evaluation import workers
from dsfp_env.evaluation.executors.as_done import as_done
from dsfp_env.evaluation.executors.processes import Processes
from dsfp_env.evaluation.executors.serial import Serial
from dsfp_env.tables import described

PART = "result.json.0a_b1c2d.part"  # as a killed process leaves it


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("tables") / "small")


@pytest.fixture(scope="module")
def studies(table):
    """By name: a function that does it in a folder, with one worker; given more to do if ``more``."""

    def judge(out, more=False):
        seeds = "0-2" if more else "0-1"
        leaderboard.leaderboard(
            leaderboard.LeaderboardSettings(
                ("uniform",), str(table), seeds=seeds, evaluations=3, workers=1, out=out
            )
        )

    def comparing(out, more=False):
        seeds = "0-1" if more else "0"
        compare.compare(
            compare.ComparisonSettings(("uniform",), (2,), seeds, task="tiny_tasks:tiny", workers=1, out=out)
        )

    def tabulating(out, more=False):
        levels, part = (10, 90), "1/1" if more else "1/2"
        tabulate.tabulate(
            tabulate.TableSettings(
                task="tiny_tasks:tiny", out=out, levels=levels, seeds=(0,), part=part, workers=1
            )
        )

    return {"leaderboard": judge, "comparison": comparing, "table": tabulating}


@pytest.mark.parametrize("name", ["leaderboard", "comparison", "table"])
def test_a_second_process_in_a_folder_is_refused_and_changes_nothing(studies, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    with folders.held(out), pytest.raises(InputError, match="Another process works in the folder .*out: wait for"):
        studies[name](str(out))
    assert not list(out.iterdir())


@pytest.mark.parametrize("name", ["leaderboard", "comparison", "table"])
def test_what_was_begun_with_other_versions_does_not_go_on_with_these(studies, tmp_path, monkeypatch, name):
    out = tmp_path / "out"
    studies[name](str(out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def of_another_year(*packages):
        return {**versions.versions_of(*packages), "torch": "9.9.9"}

    monkeypatch.setattr(run_folder, "versions_of", of_another_year)
    monkeypatch.setattr(described, "versions_of", of_another_year)
    sentence = (
        rf"The {name} in .*out was begun with torch .*, and this is 9\.9\.9, whose numbers may differ: go on"
    )
    with pytest.raises(InputError, match=sentence):
        studies[name](str(out), more=True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    if name == "leaderboard":  # nothing is left to do: it is shown, and tells of the versions that made it
        studies[name](str(out))
        assert json.loads((out / "leaderboard.json").read_text())["versions"]["torch"] != "9.9.9"
    monkeypatch.undo()
    studies[name](str(out), more=True)


def test_without_out_a_leaderboard_of_other_versions_or_that_cannot_be_read_is_left_alone(
    table, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    asked = train_agents.RunSettings(
        backend="table", agent="uniform", task=str(table), evaluations=3, seeds="0", workers=1
    )
    judge(asked)
    (first,) = Path("runs").iterdir()
    (first / "leaderboard.json").unlink()
    settings = json.loads((first / "settings.json").read_text())
    for content in (json.dumps({**settings, "versions": {**settings["versions"], "torch": "0.1"}}), "{"):
        (first / "settings.json").write_text(content)
        judge(asked)
        (second,) = {*Path("runs").iterdir()} - {first}
        assert (second / "leaderboard.json").exists()
        assert not (first / "leaderboard.json").exists()
        for path in sorted(second.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        second.rmdir()


def test_a_study_of_the_paper_does_not_go_on_with_other_versions(tmp_path, image_files):
    out = tmp_path / "out"
    asked = study.StudySettings(
        "test_reproduce:make_small", f"imagefolder:{image_files}", device="cpu", out=str(out)
    )
    study.Study(asked).files.begin()
    written = json.loads((out / "settings.json").read_text())
    study.Study(asked).check()
    written["versions"]["torch"] = "0.1"
    (out / "settings.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match=r"The study in .* was begun with torch 0\.1, and this is"):
        study.Study(asked).check()
    del written["versions"]["torch"]
    (out / "settings.json").write_text(json.dumps(written))
    with pytest.raises(InputError, match="was begun with torch of a version that is not told, and this is"):
        study.Study(asked).check()
    del written["versions"]  # as an earlier release has begun it
    (out / "settings.json").write_text(json.dumps(written))
    study.Study(asked).check()


def test_settings_that_differ_are_told_as_they_are_typed():
    told = run_folder.different_settings({"seeds": [0, 1], "out": None}, {"seeds": [0], "out": "a"}, {"seeds"})
    assert told == "--seeds is 0 1 there, and 0 came; out is not given there, and a came"
    assert run_folder.different_settings({"kd_batches": "4"}, {"kd_batches": 4}, ()) == (
        "kd_batches is '4' there, and 4 came"
    )
    assert not run_folder.different_settings({"seeds": [0]}, {"seeds": [0]}, ())


def test_what_a_worker_was_writing_when_it_was_killed_is_removed_at_the_end(tmp_path):
    out = tmp_path / "out"
    with run_folder.claimed(out, "a comparison", {}, {}):
        (out / "runs").mkdir()
    for folder in (out, out / "runs"):
        (folder / PART).touch()
    with run_folder.claimed(out, "a comparison", {}, {}):
        assert not list(out.rglob("*.part"))
        (out / "runs" / PART).touch()
    assert [path.name for path in out.iterdir() if path.is_file()] == ["settings.json"]
    assert not list(out.rglob("*.part"))


def test_what_others_may_be_writing_is_left_to_them(tmp_path):
    (tmp_path / "below").mkdir()
    for folder in (tmp_path, tmp_path / "below"):
        (folder / PART).touch()
    with folders.shared(tmp_path):
        assert not list(tmp_path.rglob("*.part"))
        (tmp_path / PART).touch()
        with folders.shared(tmp_path):
            assert list(tmp_path.rglob("*.part"))
    with folders.shared(tmp_path):
        assert not list(tmp_path.rglob("*.part"))


def test_merging_again_says_that_it_is_done(studies, tmp_path, capsys):
    halves = [tmp_path / "1", tmp_path / "2"]
    asked = tabulate.TableSettings(task="tiny_tasks:tiny", out="", levels=(10, 90), seeds=(0,), workers=1)
    for number, half in enumerate(halves, start=1):
        tabulate.tabulate(replace(asked, out=str(half), part=f"{number}/2"))
    merging = replace(asked, out=str(tmp_path / "both"), merge=tuple(map(str, halves)))
    stopped = tmp_path / ".both.merging"  # by a kill
    stopped.mkdir()
    (stopped / "correct.npy").touch()
    with folders.held(stopped), pytest.raises(InputError, match="Another process works in the folder"):
        tabulate.tabulate(merging)
    tabulate.tabulate(merging)
    before = {path.name: path.read_bytes() for path in (tmp_path / "both").iterdir()}
    assert not stopped.exists()
    capsys.readouterr()
    tabulate.tabulate(merging)
    assert "both is whole: 4 joint actions" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "both").iterdir()} == before
    (tmp_path / "else").mkdir()
    with pytest.raises(InputError, match="else exists: choose another"):
        tabulate.tabulate(replace(merging, out=str(tmp_path / "else")))


def test_workers_that_cannot_be_started_are_a_sentence(monkeypatch):
    def none_left(*_):
        raise OSError(24, "Too many open files")

    for name in ("WorkerProcess", "_shared_file"):
        with monkeypatch.context() as patch:
            patch.setattr(workers, name, none_left)
            sentence = (
                "Workers cannot be started .*Too many open files.* the same command goes on, if need be with"
            )
            with pytest.raises(InputError, match=sentence):
                list(as_done(os.path.basename, {1: "a/b", 2: "c"}, Processes(2)))


@pytest.mark.parametrize(("asked", "used"), [(1, set()), (2, {2}), (3, {3})])
def test_workers_of_a_run_are_those_of_difference_credit_too(tmp_path, monkeypatch, asked, used):
    counts = []

    def begin(self, work, count=None):
        counts.append(count or self.count)
        return Serial().begin(work)

    monkeypatch.setattr(Processes, "begin", begin)
    monkeypatch.setattr(Processes, "suits", lambda self, crew, count=None: True)
    monkeypatch.setattr(dsfp_env, "load_task", lambda *_, **__: make_tiny_task())
    train_agents.train(
        train_agents.RunSettings(
            task="tiny_tasks:tiny",
            credit="difference",
            criterion="l1",
            kd_batches=0,
            evaluations=6,
            workers=asked,
            store=False,
            out=str(tmp_path / "out"),
        )
    )
    assert set(counts) == used


@pytest.mark.parametrize("number", command_line.FULL)
def test_a_disk_that_is_full_or_may_not_hold_more_is_a_sentence(tmp_path, monkeypatch, capsys, number):
    monkeypatch.setattr("sys.argv", ["command"])

    @dataclass
    class Nothing:
        pass

    def work(_):
        raise OSError(number, os.strerror(number), "file")

    assert command_line.run(Nothing, work, None) == 1
    said = capsys.readouterr().err
    assert os.strerror(number) in said
    assert "What was written before is whole; with room, the same command goes on from here" in said
