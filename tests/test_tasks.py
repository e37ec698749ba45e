"""Tasks: real digits, a network of one's own, the cache of trained networks."""

import copy
import warnings

import pytest
import torch
from conftest import TinyNet
from torch.utils.data import TensorDataset

import dsfp_env
from dsfp_env import InputError, Task, load_task
from dsfp_env.training import epochs, pretraining
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.recipes import Recipe


def test_the_digits_network_is_trained(digits):
    assert list(digits.agents.values()) == [f"features.conv{i}" for i in (1, 2, 3, 4)]
    assert digits.graph.costs() == dsfp_env.Costs(macs=747_136, params=33_338, filters=144)
    assert measure_accuracy(digits.network, digits.validation) > 0.97
    assert load_task("digits") is load_task("digits")


def test_a_cached_network_is_the_one_that_training_gives(tmp_path, monkeypatch, tiny):
    recipe = Recipe(epochs=2, batch_size=16)
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path))
    network = TinyNet()
    before = copy.deepcopy(network.state_dict())
    trained = pretraining.pretrained(network, tiny.train, recipe, seed=0)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(epochs, "train", None)  # must not be called again
    cached = pretraining.pretrained(network, tiny.train, recipe, seed=0)
    assert all(
        torch.equal(a, b) for a, b in zip(trained.state_dict().values(), cached.state_dict().values(), strict=True)
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    with pytest.raises(TypeError):  # another seed is another key, so it would be trained
        pretraining.pretrained(network, tiny.train, recipe, seed=1)
    monkeypatch.undo()

    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path))
    file.write_bytes(file.read_bytes()[:100])  # cut short: trained again, and mended
    again = pretraining.pretrained(network, tiny.train, recipe, seed=0)
    assert torch.equal(again.head.weight, trained.head.weight)
    assert len(file.read_bytes()) > 100


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(tmp_path, monkeypatch, tiny):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path / "file" / "below"))
    with pytest.warns(UserWarning, match="could not be kept"):
        pretraining.pretrained(TinyNet(), tiny.train, Recipe(epochs=1), seed=0)


def test_from_datasets_and_tensors(tiny):
    dataset = TensorDataset(*tiny.train)
    network = TinyNet().train()
    task = Task.from_network(network, dataset, tiny.validation, tuple(tiny.test), name="mine", device="cpu")
    assert sorted(map(tuple, task.train.images.flatten(1).tolist())) == sorted(
        map(tuple, tiny.train.images.flatten(1).tolist())
    )
    assert torch.equal(task.validation.images, tiny.validation.images)  # ours are in random order already
    assert not torch.equal(task.test.labels, torch.sort(task.test.labels).values)
    assert network.training
    assert not task.network.training
    assert list(task.agents) == ["conv_0", "conv_1"]
    assert task.teacher.logits.shape == (64, 3)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ([1, 2, 3], "train split is a list: expected a torch Dataset"),
        ((torch.zeros(3, 1, 8, 8), torch.zeros(2, dtype=torch.int64)), "expected images .* and integer labels"),
        ((torch.zeros(3, 1, 8, 8), torch.zeros(3)), "integer labels"),
        ((torch.full((3, 1, 8, 8), torch.nan), torch.zeros(3, dtype=torch.int64)), "NaN or infinite"),
        ((torch.zeros(3, 1, 8, 8), torch.full((3,), 7)), r"labels run from 7 to 7.*expected labels in \[0, 2\]"),
        (TensorDataset(torch.zeros(3, 1, 8, 8)), "could not be read"),
    ],
)
def test_bad_splits_get_a_sentence(tiny, train, sentence):
    with pytest.raises(InputError, match=sentence):
        Task.from_network(TinyNet(), train, tiny.validation, tiny.test, device="cpu")


def test_unknown_names_and_devices_get_a_sentence():
    with pytest.raises(InputError, match="Unknown task 'digit'. Did you mean 'digits'?"):
        load_task("digit")
    with pytest.raises(InputError, match="Could not import the task"):
        load_task("no_such_module:task")
    with pytest.raises(InputError, match="gave a OrderedDict: expected a dsfp_env.Task"):
        load_task("test_tasks:make_nonsense")
    with pytest.raises(InputError, match="seed of the task is -1"):
        load_task("digits", seed=-1)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="Device 'cuda' cannot be used here"):
            load_task("digits", device="cuda")


def test_a_task_of_ones_own_by_name():
    with warnings.catch_warnings():
        assert load_task("test_tasks:make_task", device="cpu").name == "by name"


def make_nonsense(data_root, device, seed):
    return TinyNet().state_dict()


def make_task(data_root, device, seed):
    from conftest import make_tiny_task

    return make_tiny_task("by name")
