"""The network of a run for use elsewhere: files, each read again and checked on the test split.

What is checked is that a file answers as the network does: equal test accuracy, answers that differ by rounding.
What cannot be written, or answers otherwise, is said, in the result too; the run is not lost for it.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsfp_env.common.errors import InputError
from dsfp_env.common.files import write_whole
from dsfp_env.common.saying import remark
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.export import export_onnx, export_program
from dsfp_env.training.accuracy import compute_logits
from dsfp_env.training.metrics import ACCURACY, Metric

FILES = {"onnx": "pruned.onnx", "torch": "pruned.pt2"}
CLOSE = 1e-3  # of the largest logit
_BATCH = 256
_FEW = 64  # images, where only the slow reference of ONNX is there

Answers = Callable[[torch.Tensor], torch.Tensor]  # images [N, C, H, W] -> logits [N, classes]


def export_all(
    folder: Path, formats: Iterable[str], network: nn.Module, test: LabelledImages, metric: Metric = ACCURACY
) -> dict[str, Any]:
    """Write the files, and check them.

    Args:
        folder: Where they are written, whole or not at all.
        formats: Some of those in `FILES`.
        network: In evaluation mode; it is left as it is.
        test: The split to check with.
        metric: What accuracy means there: scaled to [0, 1], and where it is another, in its own units too.

    Returns:
        By format: the file, the test accuracy of file and network, the largest difference of logits, and whether
        they agree; or why there is no file.
    """
    told = {}
    for name in formats:
        path = folder / FILES[name]
        try:
            answers, count = _WRITERS[name](path, network, test)
            some = LabelledImages(test.images[:count], test.labels[:count])
            told[name] = _compared(path, answers, network, some, metric)
        except InputError as error:
            told[name] = {"error": str(error)}
        if not told[name].get("agrees"):
            why = told[name].get("error", f"it answers otherwise than the network ({told[name]})")
            remark(f"the export to {name} cannot be used: {why}")
    return told


def _compared(
    path: Path, answers: Answers, network: nn.Module, test: LabelledImages, metric: Metric
) -> dict[str, Any]:
    expected = compute_logits(network, test.images).cpu()
    came = torch.cat([answers(batch).detach().cpu() for batch in test.images.split(_BATCH)])
    values = [_value(metric, given, test.labels.cpu()) for given in (expected, came)]
    accuracy, theirs = map(metric.scaled, values)
    close = theirs == accuracy if metric.is_accuracy else abs(theirs - accuracy) <= CLOSE
    apart = float((came - expected).abs().max())
    return {
        "file": path.name,
        "images": len(expected),
        "test_accuracy": theirs,
        "test_accuracy_of_network": accuracy,
        "largest_difference": apart,
        **({} if metric.is_accuracy else {"test_metric": values[1]}),
        "agrees": close and apart <= CLOSE * max(1.0, float(expected.abs().max())),
    }


def _value(metric: Metric, answers: torch.Tensor, targets: torch.Tensor) -> float:
    running = metric.begin()
    running.update(answers, targets)
    return running.value()


def _write_torch(path: Path, network: nn.Module, test: LabelledImages) -> tuple[Answers, int]:
    program, content = export_program(network, test.images[:1]), io.BytesIO()
    torch.export.save(program, content)
    write_whole(path, lambda file: file.write(content.getvalue()))
    module = torch.export.load(path).module()
    return lambda images: module(images), len(test.images)


def _write_onnx(path: Path, network: nn.Module, test: LabelledImages) -> tuple[Answers, int]:
    part = path.with_name(f"{path.name}.part")
    export_onnx(part, network, test.images[:1])
    content = part.read_bytes()
    part.unlink()
    write_whole(path, lambda file: file.write(content))
    if importlib.util.find_spec("onnxruntime") is None:
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(str(path))
        return lambda images: _answered(reference, images), min(_FEW, len(test.images))
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: _answered(session, images), len(test.images)


def _answered(session: Any, images: torch.Tensor) -> torch.Tensor:
    (logits,) = session.run(["logits"], {"images": images.cpu().numpy()})
    return torch.from_numpy(logits)


_WRITERS: dict[str, Callable[[Path, nn.Module, LabelledImages], tuple[Answers, int]]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
}
