"""The benchmarks run, on little work; nothing is asserted about times."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.apart

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(name, *arguments, folder, quick=("--quick",)):
    command = [sys.executable, str(BENCHMARKS / name), *quick, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_step(tmp_path, own_cache):
    printed = run("step.py", folder=tmp_path)
    for row in ("peer", "loop", "step", "short", "all that is not arithmetic"):
        assert f"\n| {row} | " in printed
    assert "validation accuracy over 2 random joint actions" in printed
    shares = printed.split("| part of the step |")[1].split("\n\n")[0]
    parts = [float(line.split("|")[2].strip(" %")) for line in shares.splitlines()[2:]]
    assert sum(parts[:-1]) == pytest.approx(100, abs=5)  # medians of two rounds; the last row is a sum of others


def test_growth(tmp_path, own_cache):
    assert "batches, ResNet-20: 0: " in run("growth.py", "--out", "growth.png", folder=tmp_path)
    assert (tmp_path / "growth.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("many.py", "workers"),
        ("scoring.py", "Spearman"),
        ("ranking.py", "ceiling"),
        ("latency.py", "digits, batch size=1"),
        ("epoch.py", "s an epoch"),
        ("batch_time.py", "ms an evaluation"),
    ],
)
def test_others(name, word, tmp_path, own_cache):
    assert word in run(name, folder=tmp_path)


def test_criteria(tmp_path, own_cache):
    asked = (
        "criteria.py",
        "--criteria",
        "dsfp",
        "l1",
        "--ratios",
        "50",
        "--seeds",
        "0",
        "--short",
        "2",
        "--longer",
        "4",
    )
    table = run(*asked, folder=tmp_path, quick=())
    assert [row.split("`")[1] for row in table.splitlines() if row.startswith("| `")] == ["dsfp", "l1"]
    assert run(*asked, folder=tmp_path, quick=()) == table  # and nothing is measured again
    file = tmp_path / "runs" / "criteria.jsonl"
    whole = file.read_bytes()
    assert whole.count(b"\n") == 2
    file.write_bytes(whole[:-20])  # killed while it wrote
    assert run(*asked, folder=tmp_path, quick=()) == table
    assert file.read_bytes() == whole
    with pytest.raises(AssertionError, match="was measured as .*name another file with --out"):
        run(*asked, "--test-images", "50", folder=tmp_path, quick=())


def test_regret_by_agents(tmp_path):
    for count, regret in ((19, 0.4), (4, 0.1)):
        ends = {name: [0.9, regret] for name in ("mean", "low", "high")}
        learner = {"agent": "mine", "best": ends, "greedy": {"mean": 0.3, "low": 0.2, "high": 0.5}}
        optimum = {"ratios": {f"conv_{number}": 50.0 for number in range(count)}}
        (tmp_path / str(count)).mkdir()
        board = json.dumps({"forms": [{"optima": [optimum], "learners": [learner]}]})
        (tmp_path / str(count) / "leaderboard.json").write_text(board)
    command = [sys.executable, BENCHMARKS / "regret_by_agents.py", "19", "4", "--agents", "mine"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "best seen, mine: 4: 0.100, 19: 0.400\nplayed in the end, mine: 4: 0.300, 19: 0.300\n"
    assert (tmp_path / "regret.png").stat().st_size > 1000


def test_turns(tmp_path):
    asked = ["--at-once", "q_learning", "--seeds", "0-2", "--evaluations", "30", "--rounds", "1", "--out", "out"]
    command = [sys.executable, str(BENCHMARKS / "turns.py"), "--workers", "1", *asked]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split("### budget(macs_budget=0.1)")[1]
    assert "| in turn, less at once | best, 30 | greedy | seeds |" in printed
    assert re.search(r"\| sequential_q_learning, q_learning \| [+-]0.* \[.*\] \| 3 \|", printed)
    assert re.search(r"\| `raw_env` \| [\d,]+ \| [\d,]+ \| [\d,]+ \|", printed)


def test_batches(tmp_path):
    asked = ["--tables", "digits", "--batches", "1", "2", "--seeds", "0-1", "--evaluations", "4", "--out", "out"]
    command = [sys.executable, str(BENCHMARKS / "batches.py"), "--workers", "1", *asked]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split("### digits, budget(macs_budget=0.1)")[1]
    rows = [line for line in printed.splitlines() if line.startswith("| random_search | ")]
    assert len(rows) == 1
    assert rows[0].count("|") == 6


def test_many_agents(tmp_path):
    asked = [
        "--layers",
        "3",
        "--seeds",
        "0-1",
        "--at",
        "2",
        "9",
        "--workers",
        "1",
        "--agents",
        "random_search",
        "uniform",
    ]
    command = [sys.executable, str(BENCHMARKS / "many_agents.py"), *asked]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| | best, 2 | best, 9 | greedy |" in done.stdout
    first, last = (float(cell.split("±")[0]) for cell in done.stdout.strip().splitlines()[-1].split("|")[2:4])
    assert 0 <= last < first  # nine uniform plans are better than two


def test_what_is_asked_of_a_study(tmp_path, own_cache):
    """Its rows, after brief and long fine-tuning, and with no teacher."""
    study = ["--quick", "--rates", "50", "--evaluations", "3", "--finalist-epochs", "1", "--yardsticks", "erk"]
    study += ["--fine-tuning", "plain(epochs=2)", "--pretraining", "digits(epochs=4)", "--out", "study"]

    def printed(*command):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed("-m", "agents.reproduce", *study)
    asked = ["--batches", "0", "2", "--seeds", "1", "--epochs", "2"]
    table = printed(str(BENCHMARKS / "study_ranking.py"), "study", *asked)
    assert "|  | uniform | erk | q_learning | with test | with validation |" in table
    rows = {name: json.loads((tmp_path / "study" / f"{name}-50-seed0.json").read_text())
            for name in ("uniform", "erk", "q_learning")}  # fmt: skip
    shown = " | ".join(f"{100 * row['epoch_accuracies'][1]:.1f}" for row in rows.values())
    assert f"\n| after epoch 2 | {shown} |" in table
    assert "search-q_learning-50-seed0, finalists, the best first: " in table
    for _ in range(2):  # the second time from the file
        compared = printed(str(BENCHMARKS / "distillation.py"), "study").splitlines()[-1].split("|")
        assert compared[1:3] == [" uniform-50-seed0 ", f" {100 * rows['uniform']['accuracy']:.2f} "]
        assert float(compared[4]) == pytest.approx(float(compared[2]) - float(compared[3]), abs=0.011)
    assert [file.name for file in (tmp_path / "study" / "conventional").iterdir()] == ["uniform-50-seed0.json"]
    known = ["--known", "study/results.json", "--weights", "study/base.safetensors", "--out", "other"]
    printed("-m", "agents.reproduce", *study[:-2], *known)  # where nothing is known of what searches tried
    assert table.startswith(printed(str(BENCHMARKS / "study_ranking.py"), "other", *asked).rstrip())


def test_blocks(tmp_path):
    pytest.importorskip("torch_pruning", reason="what it compares with is not installed")
    lines = run("blocks.py", "repvgg", "convnext_conv", folder=tmp_path).strip().splitlines()
    repvgg, convnext = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:4])
    assert repvgg[:3] == ["repvgg", "44", "44"]
    assert repvgg[7] == "44"
    assert repvgg[9] == "equal"
    assert repvgg[10].endswith(", 0, 0")  # both packages do the same
    assert float(repvgg[5]) < 1e-4
    assert float(convnext[5]) < 1e-4
    assert convnext[9].startswith("differs")  # it removes channels that LayerNorm counts


def test_gpu(tmp_path, own_cache):
    printed = run("gpu.py", "--device", "cpu", folder=tmp_path)
    assert (tmp_path / "gpu.jsonl").read_text() == printed
    lines = [json.loads(line) for line in printed.splitlines()]
    assert not [line for line in lines if "error" in line or "skipped" in line]
    sections = [
        "versions",
        "rates",
        "exact",
        "repeats",
        "plans",
        "as_one",
        "steps",
        "workers",
        "scoring",
        "latency",
    ]
    assert list(dict.fromkeys(line["section"] for line in lines)) == sections
    found = {key: value for line in lines for key, value in line.items()}
    assert found["layers_equal"]
    assert found["equal_bits"]
    assert found["outcomes_equal"]


def test_gpu_goes_on_after_an_error_and_ends_in_time(tmp_path, capsys):
    functions = runpy.run_path(str(BENCHMARKS / "gpu.py"))

    def breaks(subject):
        yield {"fine": 1}
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def works(subject):
        yield {"fine": 2}

    def run(**settings):
        functions["run"].__globals__["SECTIONS"] = (breaks, works)
        settings = functions["Settings"](device="cpu", quick=True, **settings)
        with (tmp_path / "lines").open("w") as file:
            functions["run"](settings, functions["Lines"](file))
        return [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]

    *_, fine, error, after = run()
    assert (fine["fine"], after["fine"]) == (1, 2)
    assert error["error"] == "OutOfMemoryError: CUDA out of memory."
    assert {line["skipped"] for line in run(minutes=0)} == {"the time is up"}


def test_landscape_by_hand():
    functions = runpy.run_path(str(BENCHMARKS / "landscape.py"))
    stable = functions["equilibria"](np.array([[1.0, 0.0], [0.0, 2.0]]))
    assert stable.tolist() == [[True, False], [False, True]]  # two agents who must agree, on either
    alone, together = np.array([0.0, 1.0, 5.0]), np.array([1.0, -1.0])
    parts = functions["explained"](
        alone[:, None, None] + np.array([0.0, 2.0])[None, :, None] + np.zeros((3, 2, 2))
    )
    variances = {(0,): alone.var(), (1,): 1.0}
    whole = sum(variances.values())
    for some, part in parts.items():
        assert part == pytest.approx(variances.get(some, 0) / whole)
    parts = functions["explained"](together[:, None] * together)
    assert parts == pytest.approx({(0,): 0, (1,): 0, (0, 1): 1})  # worth nothing without the other


def test_landscape_of_the_digits(capsys):
    functions = runpy.run_path(str(BENCHMARKS / "landscape.py"))
    functions["describe"](functions["Settings"]())
    assert "| accuracy_x_saving | optimum | 50 70 60 60 | 0.8065 |" in capsys.readouterr().out


@pytest.mark.long
def test_cluster(tmp_path, own_cache):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'dsfp_env[ray]'")
    printed = run("cluster.py", folder=tmp_path)
    for word in (
        "all outcomes equal",
        "2 workers of a cluster",
        "jobs a second",
        "kB each in the driver",
        "% of what",
    ):
        assert word in printed
