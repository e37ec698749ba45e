"""A slim network leaves Python: torch.export and ONNX give its logits, for batches of any size."""

import sys

import pytest
import torch
import torchvision

from dsfp_env import ChannelGraph, InputError
from dsfp_env.export import export_onnx, export_program


@pytest.fixture(scope="module", params=["resnet18", "mobilenet_v3_small"])
def slim(request):
    torch.manual_seed(0)
    network = torchvision.models.get_model(request.param, num_classes=10).eval()
    graph = ChannelGraph.trace(network, torch.randn(1, 3, 32, 32))
    scores = {path: torch.rand(layer.out_channels) for path, layer in graph.layers.items()}
    return graph.slim(network, graph.keep(dict.fromkeys(graph.layers, 0.6), scores))


def test_torch_export_gives_the_same_logits_for_any_batch(slim):
    program = export_program(slim.train(), torch.randn(1, 3, 32, 32)).module()
    assert slim.training
    slim.eval()
    for batch in (1, 5):
        images = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            assert torch.allclose(program(images), slim(images), atol=1e-6)


def test_onnxruntime_gives_the_same_logits_for_any_batch(slim, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="ONNX needs the extra dsfp_env[onnx] and onnxruntime")
    pytest.importorskip("onnxscript", reason="ONNX needs the extra dsfp_env[onnx]")
    export_onnx(tmp_path / "slim.onnx", slim, torch.randn(1, 3, 32, 32))
    session = runtime.InferenceSession(tmp_path / "slim.onnx")
    for batch in (1, 5):
        images = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            expected = slim.eval()(images)
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        assert (torch.from_numpy(logits) - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))


def test_what_cannot_be_exported_gets_a_sentence(slim, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot be written to .* as ONNX"):
        export_onnx(tmp_path / "no" / "slim.onnx", slim, torch.randn(1, 3, 32, 32))
    with pytest.raises(InputError, match="cannot be exported"):
        export_program(slim, torch.randn(1, 4, 32, 32))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'dsfp_env\[onnx\]'"):
        export_onnx(tmp_path / "slim.onnx", slim, torch.randn(1, 3, 32, 32))
