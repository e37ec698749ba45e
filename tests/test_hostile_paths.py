"""Paths that are none, or lead to what nobody can use: a sentence, and nothing is waited for or written."""

import json
import os
from pathlib import Path

import pytest
import torch

import dsfp_env
import train_agents
from agents.compare import runs as compare
from agents.leaderboard import runs as leaderboard
from agents.leaderboard.boards import TableBoard
from agents.reporting.default_folder import default_folder
from agents.reporting.run_folder import as_file_name
from agents.reproduce import study
from dsfp_env import InputError, load_table, load_task, tabulate
from dsfp_env.common import command_line, folders
from dsfp_env.common.signed_bytes import content_of, signed
from dsfp_env.common.tensor_files import read_tensors, write_tensors

KINDS = (
    "empty",
    "nul",
    "long",
    "deep",
    "proc",
    "below_proc",
    "file",
    "dangling",
    "loop",
    "pipe",
    "device",
    "shut",
)
pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no such paths")


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A function from a kind to such a path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "shut").mkdir(mode=0)
    access = os.access  # the administrator may do everything
    monkeypatch.setattr(os, "access", lambda path, *how: "shut" not in str(path) and access(path, *how))
    named = {"empty": "", "nul": "a\0b", "long": "x" * 300, "deep": "nowhere/" + "x/" * 3000}
    named |= {"proc": "/proc/x", "below_proc": "/proc/self/x/y", "device": "/dev/zero"}
    yield lambda kind: named.get(kind, str(tmp_path / kind))
    if (tmp_path / "shut").exists():
        (tmp_path / "shut").chmod(0o700)


COMMANDS = {
    "train_agents": lambda out: train_agents.train(train_agents.RunSettings(out=out)),
    "board": lambda out: train_agents.train(train_agents.RunSettings(out=out, backend="table", agent="ucb1")),
    "compare": lambda out: compare.compare(compare.ComparisonSettings(("ucb1",), out=out)),
    "leaderboard": lambda out: leaderboard.leaderboard(leaderboard.LeaderboardSettings(("ucb1",), out=out)),
    "reproduce": lambda out: study.reproduce(study.StudySettings(out=out)),
    "tabulate": lambda out: tabulate.tabulate(tabulate.TableSettings(out=out)),
    "merge": lambda out: tabulate.tabulate(tabulate.TableSettings(out="whole", merge=(out,))),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_folders_to_write(odd, tmp_path, monkeypatch, command):
    for module in (train_agents.RunSettings, tabulate.TableSettings):
        monkeypatch.setattr(module, "load", None)
    monkeypatch.setattr(dsfp_env, "load_task", None)
    monkeypatch.setattr(dsfp_env, "load_table", None)
    before = sorted(tmp_path.iterdir())
    for kind in KINDS:
        with pytest.raises(InputError):
            COMMANDS[command](odd(kind))
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights(odd, suffix):
    for kind in KINDS:
        path = odd(kind)
        if Path(path).name in ("file", "dangling", "loop", "pipe", "shut"):
            os.rename(path, path + suffix)
        with pytest.raises(InputError, match="(?i)weights"):
            load_task("digits", weights=path + suffix if path else path)
    for nothing in (b"", 5, ["a"]):
        with pytest.raises(InputError, match="The weights are"):
            load_task("digits", weights=nothing)


def test_data_and_tables(odd):
    for kind in KINDS:
        with pytest.raises(InputError):
            load_table(odd(kind))
        with pytest.raises(InputError):
            load_task(f"imagefolder:{odd(kind)}")
        with pytest.raises(InputError):
            load_task("cifar10-vgg16", odd(kind))


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (lambda: train_agents.train(train_agents.RunSettings(workers=0)), "--workers is 0"),
        (lambda: train_agents.train(train_agents.RunSettings(threads=0)), "--threads is 0"),
        (lambda: train_agents.train(train_agents.RunSettings(credit="mine")), "Unknown credit 'mine'"),
        (lambda: train_agents.train(train_agents.RunSettings(kd_batches=-1)), "Fidelity.batches is -1"),
        (lambda: train_agents.train(train_agents.RunSettings(weights="no.pt")), "'no.pt' could not be read"),
        (lambda: compare.check(compare.ComparisonSettings(("ucb1",), workers=0)), "--workers is 0"),
        (lambda: compare.check(compare.ComparisonSettings(("ucb1",), seeds="0-4294967295")), "at most 100000"),
        (lambda: leaderboard.check(leaderboard.LeaderboardSettings(("ucb1",), workers=0)), "--workers is 0"),
        (lambda: study.reproduce(study.StudySettings(threads=0)), "--threads is 0"),
        (lambda: study.reproduce(study.StudySettings(seeds=(2**40,))), "One of --seeds is 1099511627776"),
        (lambda: tabulate.tabulate(tabulate.TableSettings(out="out", workers=0)), "--workers is 0"),
        (lambda: tabulate.tabulate(tabulate.TableSettings(out="out", test_images=0)), "--test-images is 0"),
    ],
)
def test_numbers_are_refused_before_anything_is_loaded(tmp_path, monkeypatch, work, sentence):
    monkeypatch.chdir(tmp_path)
    for module in (train_agents.RunSettings, tabulate.TableSettings):
        monkeypatch.setattr(module, "load", None)
    monkeypatch.setattr(dsfp_env, "load_task", None)
    monkeypatch.setattr(dsfp_env, "load_table", None)
    with pytest.raises(InputError, match=sentence):
        work()
    assert not list(tmp_path.iterdir())


def test_long_names_of_files_fit_and_differ(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [as_file_name(f"package:Class(option={'ü' * 300}{end})") for end in "ab"]
    assert names[0] != names[1]
    assert all(len(name.encode()) <= 180 for name in names)
    assert as_file_name("ucb1@difference") == "ucb1@difference"
    default_folder("x" * 300, lambda folder: False).mkdir(parents=True)
    assert default_folder("x" * 300, lambda folder: False).name.endswith("-2")
    assert folders.fitting("x" * 180) == "x" * 180


def test_an_error_of_a_path_is_a_sentence(capsys):
    def work(settings):
        Path("/nowhere/at/all").read_text()

    assert command_line.run(study.StudySettings, work, None, []) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: [Errno 2] No such file or directory: '/nowhere/at/all'. Expected a path")
    assert "Traceback" not in said


def test_signed_content():
    assert content_of(signed(b"content")) == b"content"
    for damaged in (b"", b"short", signed(b"content")[1:], signed(b"content")[:-1] + b"x"):
        with pytest.raises(ValueError, match="checksum"):
            content_of(damaged)


def test_tensors_without_a_checksum_are_read_where_that_is_said(tmp_path):
    import safetensors.torch

    tensors = {"a": torch.arange(3.0)}
    (tmp_path / "old").write_bytes(safetensors.torch.save(tensors))
    assert torch.equal(read_tensors(tmp_path / "old", signed=False)["a"], tensors["a"])
    with pytest.raises(ValueError, match="checksum"):
        read_tensors(tmp_path / "old")
    write_tensors(tmp_path / "new", tensors)
    content = bytearray((tmp_path / "new").read_bytes())
    content[-1] ^= 1
    (tmp_path / "new").write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        read_tensors(tmp_path / "new", signed=False)


def test_the_sentence_names_file_line_and_field(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    good = {"seed": 0, "rows": [1], "evaluations": [1], "greedy": 1}
    for change, sentence in {
        "seed": r"Line 2 of .*a.jsonl cannot be read .*`\$\.seed`",
        "rows": r"Line 2 of .*a.jsonl cannot be read .*`\$\.rows`",
        "more": r"Line 2 of .*a.jsonl cannot be read .*unknown field `more`",
    }.items():
        lines = [good, {**good, "seed": 1, change: "x"}]
        (folder / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        with pytest.raises(InputError, match=sentence):
            leaderboard.runs_in(folder / "a.jsonl", TableBoard(load_table("digits")))
