"""A pruned network survives the way to disk and back."""

import pytest
import torch

import dsfp_env
from dsfp_env import Evaluator, InputError, load_pruned, save_pruned
from dsfp_env.accuracy import compute_logits


def test_round_trip(tmp_path, digits):
    evaluator = Evaluator(digits, "l1")
    plan = {"conv_0": 30.0, "conv_1": 70.0, "conv_2": 50.0, "conv_3": 90.0}
    network, keep = evaluator.build(plan, seed=1), evaluator.keep(plan)
    save_pruned(tmp_path / "net.safetensors", network, keep, digits, {"ratios": plan})
    loaded = load_pruned(tmp_path / "net.safetensors")
    assert torch.equal(compute_logits(loaded, digits.test.images), compute_logits(network, digits.test.images))
    assert sum(p.numel() for p in loaded.parameters()) == evaluator.costs(plan).params


def test_bad_files_get_a_sentence(tmp_path, digits, tiny):
    path = tmp_path / "net.safetensors"
    with pytest.raises(InputError, match="is not a pruned network that can be read"):
        load_pruned(path)
    evaluator = Evaluator(tiny)
    plan = {"conv_0": 50.0, "conv_1": 50.0}
    save_pruned(path, evaluator.build(plan), evaluator.keep(plan), tiny)
    assert not dsfp_env.load_pruned(path, tiny).training
    with pytest.raises(InputError, match="does not fit task 'digits'"):
        load_pruned(path, digits)
    with pytest.raises(InputError, match="Unknown task 'tiny'"):
        load_pruned(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="is not a pruned network that can be read"):
        load_pruned(path, tiny)
