"""Weights of strangers, as safetensors and as torch writes them: they are used, or refused with a sentence."""

import json
import struct

import pytest
import safetensors.torch
import torch
from conftest import TinyNet
from hostile import WHATEVER, damaged, examples, try_all
from hypothesis import strategies as st

from dsfp_env import InputError, checkpoints, load_pruned
from dsfp_env.training.pretraining import load_weights

KINDS = [*(torch.float32, torch.float64, torch.float16, torch.bfloat16), *(torch.int64, torch.uint8, torch.bool)]
COMPLEX = torch.complex64
VALUES = [0.0, 1.0, float("nan"), float("inf"), -float("inf"), 1e30]


@st.composite
def states(draw, state, kinds):
    """A state dict in which tensors are of other types, shapes or numbers, missing, or called otherwise."""
    state = dict(state)
    for name in draw(st.lists(st.sampled_from(sorted(state)), max_size=3)):
        how = draw(st.integers(0, 6))
        tensor = state.pop(name, None)
        if tensor is None or how == 0:
            continue
        if how == 1:
            tensor = tensor.to(draw(st.sampled_from(kinds)))
        elif how == 2:
            tensor = torch.full(draw(st.lists(st.integers(0, 7), max_size=5)), 0.5)
        elif how == 3:
            tensor = torch.full_like(tensor.float(), draw(st.sampled_from(VALUES))).to(tensor.dtype)
        elif how == 4:
            name = draw(st.sampled_from(["module.", "", "x."])) + draw(st.sampled_from([name, "other"]))
        state[name] = tensor.contiguous().clone()
    return state


def usable(network):
    """What people do with a network; its logits are numbers."""
    kind = network.head.weight.dtype
    logits = network.eval()(torch.zeros(2, 1, 8, 8, dtype=kind))
    assert logits.shape == (2, 3)
    assert logits.dtype == kind


@examples(25, 8000)
def test_weights_of_safetensors(tmp_path, count):
    file = tmp_path / "weights.safetensors"

    def loaded(state, data):
        content = safetensors.torch.save(state)
        file.write_bytes(damaged(content, data) if data.draw(st.booleans()) else content)
        network = TinyNet()
        load_weights(network, file)
        usable(network)

    try_all("weights, safetensors", count, loaded, states(TinyNet().state_dict(), KINDS), st.data())


@examples(25, 8000)
def test_weights_of_torch(tmp_path, count):
    file = tmp_path / "weights.pt"

    def loaded(state, data, how):
        known = {"whole": state, "inside": {"state_dict": state}, "model": {"model": state}}
        content = known.get(how, how) if isinstance(how, str) else how
        try:
            torch.save(content, file)
        except Exception:
            raise InputError("this cannot be saved") from None
        if data.draw(st.integers(0, 2)) == 0:
            file.write_bytes(damaged(file.read_bytes(), data))
        network = TinyNet()
        load_weights(network, file)
        usable(network)

    odd = [torch.zeros(3).to_sparse(), torch.zeros(3, device="meta")]
    state = states(TinyNet().state_dict(), [*KINDS, COMPLEX])
    how = st.one_of(st.sampled_from(["whole", "inside", "model"]), st.sampled_from(odd), WHATEVER)
    try_all("weights, torch", count, loaded, state, st.data(), how)


@examples(25, 6000)
def test_pruned_networks_with_right_checksums(saved_tiny, tmp_path, count):
    header, tensors = checkpoints.read_pruned(saved_tiny)
    file = tmp_path / "net.safetensors"

    def loaded(state, data):
        told = {**header, "checksum": checkpoints._checksum(header, state)}
        content = safetensors.torch.save(state, {"dsfp_env": json.dumps(told)})
        file.write_bytes(damaged(content, data) if data.draw(st.integers(0, 3)) == 0 else content)
        usable(load_pruned(file, network=TinyNet()))

    try_all("pruned networks", count, loaded, states(tensors, KINDS), st.data())


@pytest.mark.parametrize("content", [b"", b"\0" * 8, struct.pack("<Q", 2**63), b"{}", b"PK\x05\x06" + b"\0" * 18])
@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights.bin"])
def test_files_that_are_none(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="The weights .* could not be read"):
        load_weights(TinyNet(), tmp_path / name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensor: tensor.to(COMPLEX), "'head.bias' is of torch.complex64, and torch.float32 was expected"),
        (lambda tensor: tensor.to(torch.int8), "'head.bias' is of torch.int8, and torch.float32 was expected"),
        (lambda tensor: tensor * float("nan"), "'head.bias' has NaN or infinite numbers"),
    ],
)
def test_what_torch_would_take_in_silence(tmp_path, change, sentence):
    state = TinyNet().state_dict()
    torch.save({**state, "head.bias": change(state["head.bias"])}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=sentence):
        load_weights(TinyNet(), tmp_path / "weights.pt")
