"""Training: resumed it ends the same, the best is kept, and every part of a recipe does what it says."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import TinyNet
from torch import nn

from dsfp_env import InputError
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.training import shown
from dsfp_env.training.accuracy import measure_accuracy
from dsfp_env.training.augmentation import augment
from dsfp_env.training.distillation import distillation_loss
from dsfp_env.training.epochs import Epoch, train
from dsfp_env.training.fine_tuning import TeacherMemory, distil
from dsfp_env.training.recipes import FINE_TUNING, PRETRAINING, Recipe, recipe_from
from dsfp_env.training.shown import Shown

RECIPES = {
    "paper": replace(PRETRAINING["paper"], epochs=5, batch_size=8, first_cycle=2, shift=1),
    "fast": replace(PRETRAINING["fast"], epochs=5, batch_size=16, shift=1),
    "long": replace(FINE_TUNING["paper"], epochs=5, batch_size=16, first_cycle=1),
    "steps": Recipe(epochs=5, batch_size=16, optimizer="sgd", schedule="steps"),
}


class Stopped(Exception):
    """What a test raises in place of the end of a process."""


def weights(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def with_dropout():
    torch.manual_seed(0)
    return nn.Sequential(TinyNet(), nn.Dropout(0.5))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_training_that_was_stopped_ends_as_one_that_was_not(tiny, tmp_path, recipe):
    whole, torn = with_dropout(), with_dropout()
    history = train(whole, tiny.train, recipe, 3, validation=tiny.validation)
    assert [epoch.number for epoch in history] == [1, 2, 3, 4, 5]

    def stop(epoch):
        if epoch.number in (2, 4):
            raise Stopped

    for _ in range(2):
        with pytest.raises(Stopped):
            train(
                torn, tiny.train, recipe, 3, validation=tiny.validation, on_epoch=stop, checkpoint=tmp_path / "c"
            )
        torn = with_dropout()  # another process knows nothing of the first
        torch.rand(5)
    again = train(torn, tiny.train, recipe, 3, validation=tiny.validation, checkpoint=tmp_path / "c")
    assert again == history
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(torn).items())
    assert not torn.training


def test_the_seed_is_all_that_training_depends_on(tiny):
    networks = []
    for seed in (0, 0, 1):
        network = with_dropout()
        torch.rand(seed + 1)
        state = torch.get_rng_state()
        train(network, tiny.train, RECIPES["paper"], seed)
        assert torch.equal(torch.get_rng_state(), state)
        networks.append(weights(network)["0.head.weight"])
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])


def test_the_time_that_is_left_is_told_from_the_second_epoch_on(monkeypatch):
    """The first has to get ready: compile, start workers."""
    lines, times = [], iter([20.0, 20.0, 20.0, 26.0, 26.0, 32.0, 32.0])
    monkeypatch.setattr(shown, "time", SimpleNamespace(monotonic=lambda: next(times)))
    monkeypatch.setattr(shown, "remark", lines.append)
    monkeypatch.setattr(shown, "is_terminal", lambda: False)
    show = Shown("training")
    for number in (1, 2, 3):
        show(Epoch(number, 10, 0.5, None))
    assert lines == [
        "training: epoch 1/10, loss 0.5000",
        "training: epoch 2/10, loss 0.5000, 48 s left",
        "training: epoch 3/10, loss 0.5000, 42 s left",
    ]


def test_the_best_epoch_is_kept():
    """Labels that are swapped after three epochs spoil the network; the weights from before are what stays."""
    labels = torch.arange(64) % 2
    images = LabelledImages(torch.randn(64, 1, 2, 2) + labels.view(-1, 1, 1, 1) * 6 - 3, labels)
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

    def loss(batch):
        return nn.functional.cross_entropy(batch.logits, batch.labels if batch.done < 3 / 20 else 1 - batch.labels)

    recipe = Recipe(epochs=20, batch_size=16, learning_rate=0.3)
    history = train(network, images, recipe, 0, loss=loss, validation=images)
    accuracies = [epoch.accuracy for epoch in history]
    assert max(accuracies[:3]) == 1 > accuracies[-1]
    assert measure_accuracy(network, images) == 1


def test_a_foreign_or_broken_checkpoint_gets_a_sentence(tiny, tmp_path):
    file = tmp_path / "c"
    train(TinyNet(), tiny.train, RECIPES["steps"], 0, checkpoint=file)
    with pytest.raises(InputError, match=r"is of another training \(seed differ\)"):
        train(TinyNet(), tiny.train, RECIPES["steps"], 1, checkpoint=file)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(InputError, match="is no whole checkpoint of a training"):
        train(TinyNet(), tiny.train, RECIPES["steps"], 0, checkpoint=file)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def learning_rates(recipe, monkeypatch):
    """The rate of every update, 4 batches of 16 images to an epoch."""
    rates = []
    step = torch.optim.SGD.step
    monkeypatch.setattr(
        torch.optim.SGD, "step", lambda self: (rates.append(self.param_groups[0]["lr"]), step(self))[1]
    )
    images = LabelledImages(torch.zeros(64, 1, 8, 8), torch.arange(64) % 3)
    train(TinyNet(), images, recipe, 0)
    return rates


def test_warm_restarts(monkeypatch):
    """T0 = 1 epoch and T_mult = 2: cosines over 4, then 8 updates."""
    recipe = Recipe(
        epochs=3, batch_size=16, optimizer="sgd", learning_rate=0.1, schedule="warm_restarts", first_cycle=1
    )
    rates = learning_rates(recipe, monkeypatch)
    cosine = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * i / n)).item()) for n in (4, 8) for i in range(n)]
    assert rates == pytest.approx(cosine, abs=1e-6)


def test_steps(monkeypatch):
    recipe = Recipe(epochs=4, batch_size=16, optimizer="sgd", learning_rate=1.0, schedule="steps")
    rates = learning_rates(recipe, monkeypatch)
    assert rates == pytest.approx([1.0] * 8 + [0.1] * 4 + [0.01] * 4)


def test_accumulation_is_one_update_for_several_batches(monkeypatch):
    recipe = Recipe(epochs=2, batch_size=16, optimizer="sgd", schedule="steps", accumulate=3)
    assert len(learning_rates(recipe, monkeypatch)) == 4  # of 4 batches an epoch: three, and the last
    images = LabelledImages(torch.randn(64, 1, 8, 8), torch.arange(64) % 3)
    plain = Recipe(
        epochs=1, batch_size=64, optimizer="sgd", learning_rate=0.1, schedule="steps", label_smoothing=0
    )
    results = []
    for one in (plain, replace(plain, batch_size=16, accumulate=4)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
        train(network, images, one, 0)
        results.append(network[1].weight)
    assert torch.allclose(*results, atol=1e-6)  # the mean over four batches of 16 is the mean over 64


def test_mixup_mixes_images_and_labels(tiny):
    seen = []

    def loss(batch):
        seen.append(batch)
        return nn.functional.cross_entropy(batch.logits, batch.labels)

    train(TinyNet(), tiny.train, Recipe(epochs=1, batch_size=16, mixup=1.0), 0, loss=loss)
    labels = seen[0].labels
    assert labels.shape == (16, 3)
    assert torch.allclose(labels.sum(1), torch.ones(16))
    assert (labels.max(1).values < 1).any()
    own = {tuple(image.flatten().tolist()) for image in tiny.train.images}
    assert not any(tuple(image.flatten().tolist()) in own for image in seen[0].images)


def test_images_are_shifted_and_mirrored():
    """One white pixel in the middle of 5x5: shifted by 1 at most it is in the inner 3x3, each place in time."""
    images = torch.zeros(500, 1, 5, 5)
    images[:, 0, 2, 2] = 1
    moved = augment(images, 1, False, torch.Generator().manual_seed(0))
    assert moved.sum(0)[0, 1:4, 1:4].min() > 20
    assert moved.sum() == 500
    ramp = torch.arange(3.0).expand(400, 1, 1, 3)
    mirrored = augment(ramp, 0, True, torch.Generator().manual_seed(0))
    share = (mirrored[:, 0, 0] == torch.tensor([2.0, 1, 0])).all(1).double().mean()
    assert 0.4 < share < 0.6
    assert ((mirrored[:, 0, 0, 0] == 0) | (mirrored[:, 0, 0, 0] == 2)).all()
    assert torch.equal(augment(ramp, 0, False, torch.Generator()), ramp)


def test_the_images_of_an_epoch_do_not_depend_on_the_network(tiny):
    """So that one memory of the teacher serves every student."""
    seen = []
    for network in (with_dropout(), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))):
        images = []

        def loss(batch, images=images):
            images.append(batch.images)
            return nn.functional.cross_entropy(batch.logits, batch.labels)

        train(network, tiny.train, replace(RECIPES["long"], epochs=2), 0, loss=loss)
        seen.append(torch.stack(images))
    assert torch.equal(*seen)


def test_the_weight_of_distillation_falls_linearly_over_the_training(tiny):
    seen = []

    def loss(batch):
        seen.append(batch.done)
        return nn.functional.cross_entropy(batch.logits, batch.labels)

    train(TinyNet(), tiny.train, Recipe(epochs=2, batch_size=16), 0, loss=loss)
    assert seen == pytest.approx([i / 8 for i in range(8)])


def test_distil_is_training_with_the_loss_of_distillation(tiny):
    recipe = replace(RECIPES["long"], epochs=3, precision="float32")
    student, by_hand = with_dropout(), with_dropout()
    distil(student, tiny.network, tiny.train, tiny.validation, recipe, 0)

    def loss(batch):
        weight = 0.9 - 0.8 * batch.done
        with torch.no_grad():
            teacher = tiny.network(batch.images)
        return distillation_loss(batch.logits, teacher, batch.labels, distillation_weight=weight)

    train(by_hand, tiny.train, recipe, 0, loss=loss, validation=tiny.validation)
    assert all(torch.equal(tensor, weights(by_hand)[name]) for name, tensor in weights(student).items())


def test_a_remembered_teacher_says_the_same_and_is_asked_once(tiny, tmp_path):
    recipe, asked = RECIPES["long"], []

    class Teacher(TinyNet):
        def forward(self, x):
            asked.append(len(x))
            return super().forward(x)

    teacher = Teacher()
    teacher.load_state_dict(tiny.network.state_dict())
    students = [with_dropout() for _ in range(3)]
    distil(students[0], teacher, tiny.train, tiny.validation, recipe, 0)
    before = len(asked)
    distil(students[1], TeacherMemory(teacher, recipe, tmp_path), tiny.train, tiny.validation, recipe, 0)
    assert len(asked) == 2 * before
    distil(students[2], TeacherMemory(teacher, recipe, tmp_path), tiny.train, tiny.validation, recipe, 0)
    assert len(asked) == 2 * before
    assert len(list(tmp_path.iterdir())) == 5
    for student in students[1:]:
        assert all(torch.equal(tensor, weights(students[0])[name]) for name, tensor in weights(student).items())


def test_the_teacher_is_left_alone(tiny):
    before = copy.deepcopy(tiny.network.state_dict())
    distil(with_dropout(), tiny.network, tiny.train, tiny.validation, RECIPES["long"], 0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny.network.state_dict().items())
    assert tiny.network.conv1.weight.is_contiguous()
    assert tiny.network.conv1.weight.requires_grad


def test_batches_are_told_as_epochs_that_are_over(tiny):
    told = []
    recipe = Recipe(epochs=2, batch_size=16)  # 64 images: four batches
    train(copy.deepcopy(tiny.network), tiny.train, recipe, 0, on_batch=lambda *told_of: told.append(told_of))
    assert told == [(number / 4, 2) for number in range(1, 9)]


def show_two_epochs(monkeypatch, batches, seconds, accuracy):
    """So many batches each, of so many seconds."""
    clock = [0.0]
    monkeypatch.setattr(shown, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    show = Shown("training")
    for number in range(1, 2 * batches + 1):
        clock[0] += seconds
        show.batch(number / batches, 2)
        if number % batches == 0:
            show(Epoch(number // batches, 2, 1.5, accuracy))


def test_long_epochs_are_shown_on_the_way(monkeypatch, capsys):
    """20 seconds a batch, 10 batches an epoch, two epochs: what is left is told by what was since the first."""
    show_two_epochs(monkeypatch, batches=10, seconds=20.0, accuracy=None)
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["training: 20% of epoch 1/2, 360 s left", "training: 30% of epoch 1/2, 340 s left"]
    assert said[8:10] == ["training: epoch 1/2, loss 1.5000, 200 s left", "training: 10% of epoch 2/2, 180 s left"]
    assert said[-1] == "training: epoch 2/2, loss 1.5000, 0 s left"


def test_short_epochs_are_shown_one_by_one(monkeypatch, capsys):
    show_two_epochs(monkeypatch, batches=4, seconds=0.4, accuracy=0.25)
    assert capsys.readouterr().err.splitlines() == [
        "training: epoch 1/2, loss 1.5000, validation 25.00 %, 2 s left",
        "training: epoch 2/2, loss 1.5000, validation 25.00 %, 0 s left",
    ]


def test_recipes_by_text():
    assert recipe_from("fast(epochs=3, learning_rate=1)", PRETRAINING) == replace(
        PRETRAINING["fast"], epochs=3, learning_rate=1
    )
    for text, sentence in {
        "fats": "Unknown recipe 'fats'. Did you mean 'fast'",
        "fast(epoch=3)": "Unknown field of a recipe 'epoch'. Did you mean 'epochs'",
        "fast(epochs=many)": "Recipe.epochs is 'many': expected a int",
        "fast(epochs=0)": "Recipe.epochs is 0: expected a whole number 1 or more",
        "fast(optimizer=adam)": "Unknown optimizer 'adam'. Did you mean 'adamw'",
        "fast(": "cannot be read",
    }.items():
        with pytest.raises(InputError) as refusal:
            recipe_from(text, PRETRAINING)
        assert sentence in str(refusal.value)


def test_the_papers_recipes_are_the_papers():
    paper = PRETRAINING["paper"]  # section IV-A
    assert (paper.optimizer, paper.weight_decay, paper.schedule) == ("sgd", 5e-4, "warm_restarts")
    assert (paper.first_cycle, paper.cycle_growth, paper.accumulate, paper.mixup > 0) == (50, 2, 4, True)
    long = FINE_TUNING["paper"]
    assert (long.optimizer, long.learning_rate, long.schedule) == ("adamw", 1e-4, "warm_restarts")
    assert (long.epochs, long.first_cycle, long.cycle_growth, long.label_smoothing > 0) == (300, 10, 2, True)
