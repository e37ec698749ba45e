"""Files of runs and studies in which something else stands: they are used, or refused with a sentence."""

import json
import shutil

import numpy as np
import pytest
import torch
from hostile import changed, damaged, examples, try_all
from hypothesis import strategies as st
from tables import make_table
from tiny_tasks import tiny

import dsfp_env
import train_agents
from agents.compare import report
from agents.compare import runs as compare
from agents.leaderboard import regret
from agents.leaderboard import runs as leaderboard
from agents.leaderboard.boards import TableBoard
from agents.leaderboard.forms import parse_form
from agents.main_job.asked import summary_of
from agents.reporting import journal, run_report
from agents.reporting.run_folder import RunFolder
from agents.reproduce.study import Study, StudySettings
from dsfp_env.common.tensor_files import write_tensors

RUN = train_agents.RunSettings(
    task="tiny_tasks:tiny", evaluations=3, criterion="l1", kd_batches=0, device="cpu", workers=1, store=False
)


def settings_in(folder):
    return {**vars(RUN), "out": str(folder)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The files of a run that is at its end."""
    folder = tmp_path_factory.mktemp("run") / "finished"
    train_agents.train(train_agents.RunSettings(**settings_in(folder)))
    return folder


@pytest.fixture(scope="module")
def stopped(finished):
    """The same, as if it had been stopped before its end."""
    folder = finished.with_name("stopped")
    shutil.copytree(finished, folder)
    result = json.loads((folder / "result.json").read_text())
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    noted = journal.Journal(folder / "journal.jsonl")
    for line in lines:
        noted.note([journal.OUTCOME, line["ratios"], 0], line["validation_accuracy"])
    noted.note(["final", lines[0]["ratios"], [1, 2, 3]], result["best"])
    best = {**lines[0], "test_accuracy": None}
    kept = {name: result[name] for name in summary_of(RUN)}
    (folder / "result.json").write_text(json.dumps({**kept, "interrupted": True, "best": best}))
    return folder


def with_checksum(noted):
    """A line of a journal whose checksum is right, whatever it says."""
    return json.dumps({"noted": noted, "checksum": journal._checksum(json.dumps(noted))})


def altered(content, name, data):
    """The content of a file with something else in it, as bytes."""
    if data.draw(st.booleans()):
        return damaged(content, data)
    if not name.endswith(".jsonl"):
        return json.dumps(changed(json.loads(content), data)).encode()
    lines = content.decode().splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    one = json.loads(lines[place])
    if name == "journal.jsonl" and data.draw(st.booleans()):
        lines[place] = with_checksum(changed(one["noted"], data))
    else:
        lines[place] = json.dumps(changed(one, data))
    return ("\n".join(lines) + "\n").encode()


@examples(50, 5000)
@pytest.mark.parametrize("whole", [True, False])
def test_run_folders(finished, stopped, tmp_path, whole, count):
    source, task = finished if whole else stopped, tiny(None, "cpu", 0)
    evaluator = dsfp_env.Evaluator(task, "l1", store=False)
    folder = tmp_path / "run"
    names = ["settings.json", "result.json"] + ["evaluations.jsonl", "journal.jsonl"] * (not whole)

    def gone_on(data):
        shutil.copytree(source, folder, dirs_exist_ok=True)
        name = data.draw(st.sampled_from(names))
        (folder / name).write_bytes(altered((source / name).read_bytes(), name, data))
        with RunFolder(folder, settings_in(folder)) as record:
            if record.result is not None:
                run_report.table(record.result)
                run_report.summary([record.result])
            record.journal.tell(evaluator)
            record.so_far()

    try_all("run folders", count, gone_on, st.data())


@examples(30, 3000)
def test_comparisons(tmp_path, count):
    task = tiny(None, "cpu", 0)
    evaluator = dsfp_env.Evaluator(task, "l1", dsfp_env.Fidelity(batches=0), store=False)
    asked = compare.ComparisonSettings(
        ("random_search",), (2,), "0", task="tiny_tasks:tiny", out=str(tmp_path / "out")
    )
    run = compare.make_run(evaluator, asked, "random_search", 2, 0)
    file = compare.piece(tmp_path / "out", "random_search", 2, 0)
    file.parent.mkdir(parents=True)
    content = json.dumps(run).encode()

    def read(data):
        file.write_bytes(altered(content, file.name, data))
        runs = compare.read_runs(asked, ["random_search"], [0], tmp_path / "out")
        assert "random_search" in report.table(runs)
        report.accuracies_within(runs[0], np.array([0.1, 0.5]))

    try_all("comparisons", count, read, st.data())


@examples(30, 3000)
def test_leaderboards(tmp_path, count):
    table = dsfp_env.load_table(make_table(tmp_path / "table"))
    form = parse_form("accuracy_x_saving")
    board = TableBoard(table)
    runs = [leaderboard.make_run(board, "random_search", form, seed, 3) for seed in (0, 1)]
    file = tmp_path / "runs.jsonl"
    content = "".join(f"{json.dumps(run)}\n" for run in runs).encode()

    def read(data):
        file.write_bytes(altered(content, file.name, data))
        found = list(leaderboard.runs_in(file, board).values())
        if found:
            regret.judge(board, form, "random_search", found, 3)

    try_all("leaderboards", count, read, st.data())


COSTS = {"filters": 24, "params": 7000, "output_only_params": 7000, "macs": 200_000}
FOUND = {
    "base": {"accuracy": 0.8, "pruned_accuracy": 0.8, **COSTS, "recipe": "fast"},
    "scores": {"criterion": "l1"},
    "search-ucb1-50-seed0": {"ratios": {"conv_0": 50.0}, "macs_budget": 0.3, "within_budget": 1, "tried": 2},
    "uniform-50-seed0": {
        "ratios": {"conv_0": 50.0},
        "pruned_accuracy": 0.1,
        "accuracy": 0.7,
        "validation_accuracy": 0.7,
        "best_epoch": 1,
        "epochs": 2,
        "filters_kept": {"features.conv0": 4},
        **COSTS,
    },
}
TRIED = [{"ratios": {"conv_0": ratio}, "accuracy": 0.5, "macs": 1000, "reward": 0.4} for ratio in (20.0, 50.0)]


@examples(30, 3000)
def test_studies(tmp_path, image_files, count):
    whole, out = tmp_path / "whole", tmp_path / "out"
    asked = {"network": "digits_net", "data": f"imagefolder:{image_files}", "rates": (50,), "agents": ("ucb1",)}
    Study(StudySettings(**asked, criterion="l1", evaluations=4, device="cpu", out=str(whole))).files.begin()
    for name, content in FOUND.items():
        (whole / f"{name}.json").write_text(json.dumps(content))
    (whole / "search-ucb1-50-seed0.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in TRIED))
    for name in ("base", "scores"):
        write_tensors(whole / f"{name}.safetensors", {"features.conv0": torch.rand(4)})
    names = [path.name for path in whole.iterdir()]
    study = Study(StudySettings(**asked, criterion="l1", evaluations=4, device="cpu", out=str(out)))

    def read(data):
        shutil.copytree(whole, out, dirs_exist_ok=True)
        name = data.draw(st.sampled_from(names))
        content = (whole / name).read_bytes()
        binary = name.endswith(".safetensors")
        (out / name).write_bytes(damaged(content, data) if binary else altered(content, name, data))
        study.check()
        assert "base" in study.table()

    study.check()
    try_all("studies", count, read, st.data())
