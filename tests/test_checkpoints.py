"""A pruned network survives the way to disk and back, and nothing damaged or foreign gets in."""

import dataclasses
import json
import struct

import pytest
import torch
from conftest import TinyNet
from torch import nn

import dsfp_env
from dsfp_env import Evaluator, InputError, load_pruned, save_pruned
from dsfp_env.checkpoints import read_pruned
from dsfp_env.networks import digits_net
from dsfp_env.training.accuracy import compute_logits

PLAN = {"conv_0": 50.0, "conv_1": 50.0}


@pytest.fixture
def saved(tmp_path, tiny):
    evaluator = Evaluator(tiny)
    path = tmp_path / "net.safetensors"
    save_pruned(path, evaluator.build(PLAN), evaluator.keep(PLAN), tiny, {"note": "mine"})
    return path


def test_round_trip(tmp_path, digits):
    evaluator = Evaluator(digits, "l1")
    plan = {"conv_0": 30.0, "conv_1": 70.0, "conv_2": 50.0, "conv_3": 90.0}
    network, keep = evaluator.build(plan, seed=1), evaluator.keep(plan)
    path = tmp_path / "net.safetensors"
    save_pruned(path, network, keep, digits, {"ratios": plan})
    expected = compute_logits(network, digits.test.images)
    for loaded in (load_pruned(path), load_pruned(path, digits), load_pruned(path, network=digits_net())):
        assert torch.equal(compute_logits(loaded, digits.test.images), expected)
        assert sum(p.numel() for p in loaded.parameters()) == evaluator.costs(plan).params
        assert not loaded.training
    assert loaded.features.conv2.in_channels == 11


def test_a_named_architecture_is_made_without_the_task(tmp_path, digits, monkeypatch):
    monkeypatch.setattr(dsfp_env.checkpoints, "load_task", None)
    evaluator = Evaluator(digits, "l1")
    plan = dict.fromkeys(digits.agents, 50.0)
    save_pruned(tmp_path / "net", evaluator.build(plan), evaluator.keep(plan), digits)
    assert read_pruned(tmp_path / "net")[0]["architecture"] == ["digits_net", 10]
    assert load_pruned(tmp_path / "net").features.conv4.out_channels == 32


@pytest.mark.parametrize("where", ["architecture", "task"])
def test_a_file_cannot_have_code_run(tmp_path, tiny, where):
    name, architecture = ("os:abort", None) if where == "task" else ("tiny", ("os:abort", 3))
    evaluator, task = Evaluator(tiny), dataclasses.replace(tiny, name=name, architecture=architecture)
    save_pruned(tmp_path / "net", evaluator.build(PLAN), evaluator.keep(PLAN), task)
    with pytest.raises(InputError, match="'os:abort', which is no network of this package: give the task"):
        load_pruned(tmp_path / "net")
    assert load_pruned(tmp_path / "net", network=TinyNet()).conv1.out_channels == 2


def test_what_is_written_beside_the_weights(saved, tiny):
    header, tensors = read_pruned(saved)
    keep = Evaluator(tiny).keep(PLAN)["conv2"].tolist()
    assert header["task"] == "tiny"
    assert header["layers"]["conv2"] == {"filters": 3, "of": 6, "ratio": 0.5, "kept": keep}
    assert header["widths"]["conv2"] == {"in_channels": 2, "out_channels": 3, "groups": 1}
    assert header["widths"]["bn1"] == {"num_features": 2}
    assert header["about"] == {"note": "mine"}
    assert header["versions"].keys() == {"python", "dsfp_env", "torch"}
    assert tensors["conv2.weight"].shape == (3, 2, 3, 3)


def test_coupled_grouped_and_transposed_layers_come_back(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.GroupNorm(4, 8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.PReLU(8),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        nn.Flatten(),
        nn.Linear(6 * 256, 3),
    )
    split = torch.randn(20, 1, 8, 8), torch.randint(3, (20,))
    fidelity = dsfp_env.Fidelity(batches=1, batch_size=4, recalibration_images=8)
    task = dsfp_env.Task.from_network(network, split, split, split, device="cpu", fidelity=fidelity)
    evaluator = Evaluator(task, "l1")
    plan = dict.fromkeys(task.agents, 50.0)
    slim = evaluator.build(plan)
    save_pruned(tmp_path / "net", slim, evaluator.keep(plan), task)
    loaded = load_pruned(tmp_path / "net", network=network)
    assert torch.equal(compute_logits(loaded, split[0]), compute_logits(slim, split[0]))
    assert (loaded[1].num_groups, loaded[2].groups, network[2].groups) == (2, 4, 8)


def test_a_file_that_is_absent_or_foreign_gets_a_sentence(tmp_path):
    with pytest.raises(InputError, match="is not a pruned network that can be read"):
        load_pruned(tmp_path / "net.safetensors")
    (tmp_path / "text").write_text("not a network")
    with pytest.raises(InputError, match="is not a pruned network that can be read"):
        load_pruned(tmp_path / "text")
    torch.save({"weight": torch.ones(2)}, tmp_path / "pickle")
    with pytest.raises(InputError, match="is not a pruned network that can be read"):
        load_pruned(tmp_path / "pickle")


@pytest.mark.parametrize("length", [0, 4, 100, -1, -10])
def test_a_truncated_file_gets_a_sentence(saved, tiny, length):
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(InputError, match="is not a pruned network that can be read"):
        load_pruned(saved, tiny)


def test_a_changed_byte_gets_a_sentence(saved, tiny):
    content = bytearray(saved.read_bytes())
    content[-5] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InputError, match="checksum does not match"):
        load_pruned(saved, tiny)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda header: header.update(format=1), "its format is 1"),
        (lambda header: header.pop("layers"), "missing required field `layers`"),
        (lambda header: header.update(colour="red"), "unknown field `colour`"),
        (lambda header: header["layers"]["conv2"].update(filters=True), "Expected `int`, got `bool`"),
        (lambda header: header["widths"]["conv2"].update(in_channels=3), "checksum does not match"),
    ],
)
def test_a_changed_header_gets_a_sentence(saved, tiny, change, sentence):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    outer = json.loads(content[8 : 8 + length])
    header = json.loads(outer["__metadata__"]["dsfp_env"])
    change(header)
    outer["__metadata__"]["dsfp_env"] = json.dumps(header)
    text = json.dumps(outer).encode()
    saved.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(InputError, match=sentence):
        load_pruned(saved, tiny)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"keep": None}, "The kept filters are a NoneType"),
        ({"task": None}, "The task is a NoneType: expected a dsfp_env.Task"),
        ({"path": None}, "cannot be written .* a folder that exists, with room"),
        ({"about": {"a": {1}}}, "cannot be written .*not JSON serializable"),
        ({"about": [1]}, "cannot be written"),
        ({"network": TinyNet()}, "The network has not kept these filters: 'conv1' has 4 filters, not 2"),
        ({"network": nn.Linear(2, 2)}, "The network has not kept these filters: 'conv1' has no filters"),
    ],
)
def test_what_cannot_be_saved_gets_a_sentence(tmp_path, tiny, change, sentence):
    keep = tiny.graph.keep(dict.fromkeys(tiny.graph.layers, 0.5), tiny.scores("l1"))
    given = {"path": tmp_path / "net", "network": tiny.graph.slim(tiny.network, keep), "keep": keep, "task": tiny}
    with pytest.raises(InputError, match=sentence):
        save_pruned(**{**given, **change})
    assert not list(tmp_path.iterdir())


class Wider(TinyNet):
    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(4, 2, 3)


def test_a_network_that_does_not_fit_gets_a_sentence(saved, digits):
    with pytest.raises(InputError, match="does not fit task 'digits': .* is in only one of the two"):
        load_pruned(saved, digits)
    with pytest.raises(InputError, match="Unknown task 'tiny'"):
        load_pruned(saved)
    with pytest.raises(InputError, match="does not fit this Wider: 'conv2.bias' is in only one"):
        load_pruned(saved, network=Wider())
    small = TinyNet()
    small.conv2 = nn.Conv2d(4, 2, 3, bias=False)
    with pytest.raises(InputError, match=r"'conv2.weight' has shape \(3, 2, 3, 3\), which cannot be cut from"):
        load_pruned(saved, network=small)


def test_bad_writing_gets_a_sentence(tmp_path, tiny):
    with pytest.raises(InputError, match="cannot be written"):
        save_pruned(tmp_path / "no" / "net", tiny.network, {}, tiny)
    with pytest.raises(InputError, match="no prunable layer 'conv9'"):
        save_pruned(tmp_path / "net", tiny.network, {"conv9": torch.arange(2)}, tiny)
