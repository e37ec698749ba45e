"""Work that is seeded leaves torch's generators as they were, and other devices' alone."""

import types

import pytest
import torch
from conftest import TinyNet
from torch import nn

from dsfp_env.common.random_numbers import generator_state, own_random_numbers
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.training import epochs
from dsfp_env.training.recipes import Recipe

CPU = torch.device("cpu")


def test_a_seed_is_that_of_torch_and_nothing_stays_of_it():
    torch.manual_seed(7)
    expected = torch.rand(3)
    before = torch.get_rng_state()
    with own_random_numbers(CPU, seed=7):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)
    with own_random_numbers(CPU):
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().set_state(before)))
    assert torch.equal(torch.get_rng_state(), before)


def test_they_are_as_they_were_after_an_error_too():
    before = torch.get_rng_state()
    with pytest.raises(KeyError), own_random_numbers(CPU, seed=1):
        raise KeyError(str(torch.rand(1)))
    assert torch.equal(torch.get_rng_state(), before)


class Kind(types.ModuleType):
    """As `torch.cuda`: several devices, one of which is the current one."""

    def __init__(self):
        super().__init__("kind")
        self.states, self.current = [torch.tensor([index]) for index in range(3)], 0

    def device(self, device):
        kind = self

        class Context:
            def __enter__(self):
                self.before, kind.current = kind.current, device.index

            def __exit__(self, *error):
                kind.current = self.before

        return Context()

    def get_rng_state(self):
        return self.states[self.current]

    def set_rng_state(self, state):
        self.states[self.current] = state

    def manual_seed(self, seed):
        self.states[self.current] = torch.tensor([seed])


def test_only_the_generator_of_that_device_is_seeded(monkeypatch):
    kind, device = Kind(), types.SimpleNamespace(type="kind", index=1)
    monkeypatch.setattr(torch, "kind", kind, raising=False)
    with own_random_numbers(device, seed=9):
        assert [int(state) for state in kind.states] == [0, 9, 2]
        assert int(generator_state(device)) == 9
    assert [int(state) for state in kind.states] == [0, 1, 2]
    assert generator_state(CPU) is None


def test_a_training_goes_on_from_a_checkpoint_of_before(tmp_path):
    """Then the generator of the GPU was always called cuda's, and None on a CPU."""
    rng = torch.Generator().manual_seed(0)
    images = LabelledImages(torch.randn(32, 1, 8, 8, generator=rng), torch.arange(32) % 3)
    recipe, file = Recipe(epochs=3, batch_size=8), tmp_path / "state"

    def begin():
        with own_random_numbers(CPU, seed=0):
            return nn.Sequential(TinyNet(), nn.Dropout())

    def stop(epoch):
        if epoch.number == 2:
            raise KeyboardInterrupt

    whole, resumed = begin(), begin()
    epochs.train(whole, images, recipe, seed=3)
    with pytest.raises(KeyboardInterrupt):
        epochs.train(begin(), images, recipe, seed=3, on_epoch=stop, checkpoint=file)
    state = torch.load(file, weights_only=True)
    torch.save({**{key: value for key, value in state.items() if key != "cpu_rng"}, "cuda_rng": None}, file)
    assert len(epochs.train(resumed, images, recipe, seed=3, checkpoint=file)) == 3
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)
