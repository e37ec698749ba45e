"""From a network of one's own to a file that is shipped, by the command, as docs/shipping.md tells it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import dsfp_env
import train_agents
from agents.run_settings import RunSettings

ROOT = Path(__file__).parents[1]


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
