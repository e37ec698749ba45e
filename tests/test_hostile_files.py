"""Files of strangers, with right checksums, that say anything: they are used, or refused with a sentence."""

import contextlib
import json
import struct
import warnings

import numpy as np
import pytest
import torch
from conftest import TinyNet
from hostile import changed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables import make_table

from dsfp_env import InputError, checkpoints, load_pruned, load_table
from dsfp_env.tables import files as table_files
from dsfp_env.tables.evaluator import TableEvaluator

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@MANY
@given(data=st.data())
def test_checkpoints(saved_tiny, tmp_path_factory, data):
    content = saved_tiny.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    outer = json.loads(content[8 : 8 + length])
    header = changed(json.loads(outer["__metadata__"]["dsfp_env"]), data)
    _, tensors = checkpoints.read_pruned(saved_tiny)
    with contextlib.suppress(KeyError, TypeError):  # what is missing is found out before
        header["checksum"] = checkpoints._checksum(header, tensors)
    outer["__metadata__"]["dsfp_env"] = json.dumps(header)
    text = json.dumps(outer).encode()
    file = tmp_path_factory.getbasetemp() / "hostile.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    try:
        network = load_pruned(file, network=TinyNet())
    except InputError:
        return
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return make_table(tmp_path_factory.mktemp("hostile") / "table")


def used(folder):
    """What people do with a table."""
    table = load_table(folder)
    evaluator = TableEvaluator(table)
    outcome = evaluator.evaluate(dict.fromkeys(table.agents, 50.0), 1)
    assert 0 <= outcome.accuracy <= 1
    assert 0 < outcome.relative_macs <= 1
    assert 0 <= evaluator.original.accuracy <= 1
    assert np.isfinite(table.landscape("accuracy_x_saving").scores).all() if hasattr(table, "landscape") else True


@MANY
@given(data=st.data())
def test_tables(table, data):
    meta = changed(json.loads((table / "meta.json").read_text()), data)
    whole = (table / "meta.json").read_bytes()
    try:
        told = {key: value for key, value in meta.items() if key != "checksum"}
        (table / "meta.json").write_text(json.dumps({**told, "checksum": table_files.checksum_of(told)}))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            used(table)
    except InputError:
        pass
    finally:
        (table / "meta.json").write_bytes(whole)


@settings(MANY, max_examples=60)
@given(data=st.data())
def test_numbers_of_tables(table, data):
    name = data.draw(st.sampled_from(table_files.Arrays._fields))
    whole = {path.name: path.read_bytes() for path in table.iterdir()}
    array = np.load(table / f"{name}.npy")
    wrong = (
        st.sampled_from([np.nan, np.inf, -1])
        if name == "seconds"
        else st.integers(0, int(np.iinfo(array.dtype).max))
    )
    flat = array.reshape(-1)
    flat[data.draw(st.integers(0, len(flat) - 1))] = data.draw(wrong)
    if data.draw(st.booleans()):
        array = array[: data.draw(st.integers(0, len(array)))]
    try:
        np.save(table / f"{name}.npy", array)
        table_files.finish(table, table_files.read_meta(table))
        used(table)
    except InputError:
        pass
    finally:
        for path, content in whole.items():
            (table / path).write_bytes(content)
