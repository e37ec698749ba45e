"""From a network of one's own to a file that is shipped, by the command, as docs/shipping.md tells it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dsfp_env
import train_agents
from agents.reporting.budget_options import LATENCY_MODEL
from agents.run_settings import RunSettings
from dsfp_env.evaluation.latency_predictor import read_model

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def test_imbalanced_classes_to_an_onnx_file(tmp_path, monkeypatch):
    """At 30 % of the multiply-adds, the first layer kept, widths multiples of 8, balanced accuracy."""
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import imbalanced

    out = tmp_path / "run"
    train_agents.train(
        RunSettings(
            task="imbalanced:make_task",
            agent="coordinate_search",
            layers="first=keep",
            round_to=8,
            macs_budget=0.3,
            criterion="taylor",
            evaluations=8,
            kd_batches=2,
            fine_tune="plain(epochs=2)",
            export="onnx",
            workers=1,
            store=False,
            out=str(out),
        )
    )
    result = json.loads((out / "result.json").read_text())
    best, task = result["best"], imbalanced.make_task(device="cpu")
    assert result["metric"] == {"name": "balanced_accuracy", "worst": 0.0, "best": 1.0}
    assert best["relative_macs"] <= 0.3
    assert best["ratios"].keys() == {"conv_1", "conv_2", "conv_3"}  # conv_0 is nobody's
    assert best["validation_metric"] == pytest.approx(best["validation_accuracy"])

    network = dsfp_env.load_pruned(out / "pruned.safetensors", task=task)
    widths = [module.out_channels for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert widths[0] == 16
    assert all(width % 8 == 0 for width in widths)
    images, labels = task.test
    (answers,) = onnxruntime.InferenceSession(out / "pruned.onnx").run(["logits"], {"images": images.numpy()})
    right = answers.argmax(1) == labels.numpy()
    balanced = np.mean([right[labels.numpy() == digit].mean() for digit in range(10)])
    assert result["exported"]["onnx"]["agrees"]
    assert balanced == pytest.approx(result["fine_tuned"]["networks"]["best"]["test_accuracy"], abs=1e-6)
    page = (out / "report.html").read_text()
    assert "In place of accuracy: balanced accuracy, from 0 at worst to 1 at best" in page
    assert "left alone, as asked" in page


def test_a_time_target_to_an_exported_file(tmp_path, monkeypatch):
    """Batches of 32 in 70 % of the time; times are predicted for the search, and measured in the end."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import regression

    out = tmp_path / "run"
    train_agents.train(
        RunSettings(
            task="regression:make_task",
            agent="coordinate_search",
            latency_budget="0.7",
            latency_networks=20,
            deployed="batch_size=32, min_run_time=0.05, rounds=3, statistic=minimum",
            criterion="l1",
            evaluations=6,
            kd_batches=1,
            export="torch",
            device="cpu",
            workers=1,
            store=False,
            out=str(out),
        )
    )
    result = json.loads((out / "result.json").read_text())
    best, original, told = result["best"], result["original"], result["latency_model"]
    allowed = 0.7 * original["predicted_latency"]
    assert result["metric"]["name"] == "mse"
    assert best["predicted_latency"] <= allowed
    for entry in (original, best, result["greedy"], *result["baselines"].values()):
        assert entry["measured_latency"] > 0
        assert entry["latency_spread"] >= 0
    assert told["measurements"] == 21
    assert 0 <= told["median_error"] <= told["error_90"]

    # By the model in the folder: what was tried keeps to the budget, and what is told is what it predicts.
    task = regression.make_task(device="cpu")
    predictor = dsfp_env.LatencyPredictor(model=read_model(out / LATENCY_MODEL))
    evaluator = dsfp_env.Evaluator(task, "l1", latency=predictor)
    tried = [json.loads(line)["ratios"] for line in (out / "evaluations.jsonl").read_text().splitlines()]
    assert len(tried) == 6
    assert max(evaluator.predicted_latency(plan) for plan in tried) <= allowed
    assert evaluator.predicted_latency(best["ratios"]) == best["predicted_latency"]

    # The file answers as the report says.
    answers = torch.export.load(out / "pruned.pt2").module()(task.test.images)
    error = ((answers - task.test.labels) ** 2).mean().item()
    assert result["exported"]["torch"]["agrees"]
    assert error == pytest.approx(result["exported"]["torch"]["test_metric"], rel=1e-4)
    page = (out / "report.html").read_text()
    row = [f"{1e3 * best[key]:.3f}</td>" for key in ("predicted_latency", "measured_latency")]
    assert "<td>".join(row) in page
    assert "within 70% of the time of a forward pass" in page
    assert f"was off by {told['median_error']:.1%} at most for half of those left out" in page
    assert f"pruned.pt2: MSE {error:#.3g} on the test split" in page
