"""Data as people have it: tensors, data sets, loaders, iterables; in memory, in host memory, or on disk."""

from dataclasses import replace

import pytest
import torch
from conftest import TinyNet
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from torchvision.transforms import v2

from dsfp_env import Evaluator, InputError, Task
from dsfp_env.common.memory import free_memory
from dsfp_env.datasets import LabelledImages, reading
from dsfp_env.datasets.on_demand import OnDemand, batches_of
from dsfp_env.datasets.reading import read_split
from dsfp_env.training.augmentation import augment_as_told, augment_masks
from dsfp_env.training.epochs import train
from dsfp_env.training.fine_tuning import distil
from dsfp_env.training.objectives import Objective
from dsfp_env.training.recipes import FINE_TUNING, Recipe, recipe_from, suited
from dsfp_env.training.teacher import Teacher

CPU = torch.device("cpu")
SCALED = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5], [0.25])])


def bytes_and_labels(count=40, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 1, 8, 8), generator=rng, dtype=torch.uint8), torch.arange(count) % 3


class Numbers(Dataset):
    """Images that are read one by one, and counted."""

    def __init__(self, images, labels):
        self.images, self.labels, self.asked = images, labels, 0

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.asked += 1
        return self.images[index], int(self.labels[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(*bytes_and_labels(), strict=True))


@pytest.fixture
def little_memory(monkeypatch):
    """So little that neither 40 images as bytes nor as numbers fit."""
    monkeypatch.setattr(reading, "free_memory", lambda device: 4000)


@pytest.fixture
def room_for_bytes(monkeypatch):
    """Images fit as bytes, with a copy, but not as numbers."""
    monkeypatch.setattr(reading, "free_memory", lambda device: 4 * 40 * 64)


def ways():
    images, labels = bytes_and_labels()
    loader = DataLoader(TensorDataset(images, labels), batch_size=7, shuffle=True, drop_last=True)
    return {
        "tensors": (images, labels),
        "a data set": TensorDataset(images, labels),
        "a loader": loader,
        "a loader that collates": DataLoader(
            Numbers(images, labels), batch_size=7, collate_fn=lambda items: torch.utils.data.default_collate(items)
        ),
        "a stream": Stream(),
        "batches": [(images[:30], labels[:30]), (images[30:], labels[30:])],
        "a generator": ((image, label) for image, label in zip(images, labels, strict=True)),
    }


@pytest.mark.parametrize("way", ways())
def test_the_same_images_however_they_come(way, capfd):
    expected = read_split(bytes_and_labels(), "train", transform=SCALED)
    assert expected.images.dtype == torch.float32
    assert expected.images.max() == 2
    read = read_split(ways()[way], "train", CPU, transform=SCALED)
    assert torch.equal(read.images, expected.images)
    assert torch.equal(read.labels, expected.labels)
    said = capfd.readouterr().err
    assert ("the train split was read into memory: 40 images" in said) == (
        way in ("a loader that collates", "a stream", "batches", "a generator")
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_what_does_not_fit_is_read_batch_by_batch(little_memory, capfd, workers):
    """From disk, by workers or not: the same images in the same order, whatever is asked for."""
    expected = read_split((SCALED(bytes_and_labels()[0]), bytes_and_labels()[1]), "train", memory_share=0.999)
    dataset = Numbers(*bytes_and_labels())
    read = read_split(dataset, "train", CPU, transform=SCALED, workers=workers)
    assert isinstance(read.images, OnDemand)
    assert "the train split (40 images" in (said := capfd.readouterr().err)
    assert "is more than 50% of the memory that is free for cpu: it stays on disk" in said
    images = torch.cat(list(expected.images.split(7)))
    assert torch.equal(torch.cat(list(read.images.split(7))), images)
    assert torch.equal(read.labels, expected.labels)
    assert torch.equal(read.images[:5], images[:5])
    which = torch.tensor([[3, 1], [0, 39]])
    assert torch.equal(torch.stack(list(batches_of(read.images, which))), images[which])
    assert read.images.shape == images.shape
    assert torch.equal(read.images[which[0]], images[which[0]])


def test_bytes_stay_bytes_if_they_fit_as_such(room_for_bytes, capfd):
    for data in (bytes_and_labels(), Numbers(*bytes_and_labels())):
        read = read_split(data, "train", CPU, transform=SCALED, memory_share=0.6)
        assert read.images.source.dtype == torch.uint8
        assert "it stays in memory as uint8" in capfd.readouterr().err
        assert read.images[:2].dtype == torch.float32


def test_an_evaluation_does_not_depend_on_where_images_are(monkeypatch, tiny):
    """In memory, in host memory as bytes, and on disk: to the last bit."""
    accuracies, prints = [], set()
    for data, free in (
        (bytes_and_labels, 1 << 30),
        (bytes_and_labels, 4000),
        (lambda **of: Numbers(*bytes_and_labels(**of)), 4000),
    ):
        monkeypatch.setattr(reading, "free_memory", lambda device, free=free: free)
        splits = [data(seed=seed) for seed in range(3)]
        task = Task.from_network(TinyNet_seeded(), *splits, device="cpu", fidelity=tiny.fidelity, transform=SCALED)
        evaluator = Evaluator(task, "taylor")
        plan = {"conv_0": 25.0, "conv_1": 50.0}
        accuracies.append(
            (evaluator.evaluate(plan).accuracy, evaluator.measure_splits(), evaluator.scores["conv1"].tolist())
        )
        prints.add(task.fingerprint)
        student = evaluator.build(plan)
        distil(student, task.network, task.train, task.validation, Recipe(epochs=1, batch_size=8), 0)
        accuracies[-1] += (student.conv1.weight.sum().item(),)
    assert accuracies[0] == accuracies[1] == accuracies[2]
    assert None not in prints


def TinyNet_seeded():
    torch.manual_seed(0)
    return TinyNet()


def test_the_images_are_in_the_fingerprint_wherever_they_are(little_memory):
    prints = []
    for seed in (0, 0, 1):
        dataset = Numbers(*bytes_and_labels(seed=seed))
        split = read_split(dataset, "train", CPU, transform=SCALED)
        prints.append(repr(split.images))
    assert prints[0] == prints[1] != prints[2]


class Restless(Numbers):
    def __getitem__(self, index):
        return super().__getitem__(index)[0] * torch.rand(1), 0


@pytest.mark.parametrize(
    ("data", "said", "sentence"),
    [
        (7, {}, "train split is a int: expected a torch Dataset of .* a DataLoader, a pair of tensors"),
        ([], {}, "train split gives nothing"),
        ([(torch.zeros(1, 8, 8), 0), (torch.zeros(1, 4, 4), 0)], {}, "could not be put together"),
        (bytes_and_labels(), {"transform": v2.Normalize([0.5], [0.5])}, "transform failed .*uint8: expected"),
        (
            bytes_and_labels(),
            {"transform": lambda images: images[0]},
            "gave Tensor for a batch: expected a tensor, im",
        ),
        (bytes_and_labels(), {"memory_share": 2}, r"memory_share is 2: expected a share .* in \(0, 1\)"),
        (Restless(*bytes_and_labels()), {}, "gives its first image otherwise every time.*give those as augment="),
        (Numbers(torch.full((40, 1, 8, 8), torch.nan), torch.zeros(40)), {}, "NaN or infinite pixels"),
        ((torch.full((40, 1, 8, 8), torch.nan), torch.zeros(40).long()), {}, "NaN or infinite pixels"),
    ],
)
def test_bad_data_gets_a_sentence(little_memory, data, said, sentence):
    with pytest.raises(InputError, match=sentence):
        read_split(data, "train", CPU, **said)


def test_free_memory_is_a_part_of_all():
    assert 0 < free_memory(CPU) < 1 << 50


def test_large_answers_of_the_teacher_are_given_when_they_are_asked_for(tiny, monkeypatch):
    fidelity = replace(tiny.fidelity, precision="float32")
    kept = tiny.teacher.transfer_set(fidelity, 3)
    monkeypatch.setattr("dsfp_env.training.teacher._MOST_KEPT", 100)
    asked = Teacher(tiny.network, tiny.train.images, tiny.graph.norms).transfer_set(fidelity, 3)
    assert not isinstance(asked.teacher_logits, torch.Tensor)
    for one, other in zip(kept.teacher_logits, asked.teacher_logits, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_masks_move_with_their_images():
    images = torch.arange(64.0).view(1, 1, 8, 8).expand(20, 1, 8, 8) + 1
    moved, masks = augment_masks(images, images[:, 0].long(), 2, True, torch.Generator().manual_seed(0), 255)
    assert torch.equal(moved[:, 0].long().where(moved[:, 0] > 0, 255), masks)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 10


def test_augment_takes_images_and_masks_of_torchvision():
    images, masks = torch.rand(6, 1, 8, 8), torch.randint(3, (6, 8, 8))
    flip = v2.RandomHorizontalFlip(0.5)
    state = torch.get_rng_state()
    found = [augment_as_told(images, masks, flip, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    for one, other, image, mask in zip(*found[0], images, masks, strict=True):
        assert torch.equal(one, image) == torch.equal(other, mask)
        assert torch.equal(one, image) or (torch.equal(one, image.flip(2)) and torch.equal(other, mask.flip(1)))
    assert all(torch.equal(*pair) for pair in zip(found[0], found[1], strict=True))
    assert not torch.equal(found[0][0], found[2][0])
    labels = torch.arange(6)
    assert torch.equal(augment_as_told(images, labels, flip, torch.Generator())[1], labels)
    with pytest.raises(InputError, match=r"augment failed .*for an image \(1, 8, 8\) and its target \(\)"):
        augment_as_told(images, labels, lambda image: image, torch.Generator())


def test_recipes_suit_the_images():
    short = FINE_TUNING["short"]
    assert [suited(short, width, True).shift for width in (8, 28, 32, 224)] == [1, 3, 4, 4]
    assert [suited(short, 32, flips).flip for flips in (False, True)] == [False, True]
    told = recipe_from("short(shift=2, flip=True)", FINE_TUNING)
    assert suited(told, 8, False) == told


def seen(targets, recipe, objective=None, **said):
    """The batches of one epoch over images whose pixels say which they are."""
    images = torch.arange(1.0, 9).view(8, 1, 1, 1).expand(8, 1, 16, 16) * torch.ones(16, 16)
    batches = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))

    def loss(batch):
        batches.append(batch)
        return batch.logits.square().mean()

    train(network, LabelledImages(images, targets), recipe, 0, loss=loss, objective=objective, **said)
    return batches


def test_training_moves_what_can_be_moved():
    """By an eighth of the width, never mirrored unless told; numbers stay, and so do their images."""
    short = replace(FINE_TUNING["short"], epochs=1, batch_size=8, channels_last=False)
    labels = seen(torch.zeros(8, dtype=torch.int64), short)[0].images
    assert (labels[:, 0, 2:-2, 2:-2] > 0).all()
    assert (labels == 0).any()
    masks = Objective(targets="dense", answers="dense", ignore_index=9)
    batch = seen(torch.ones(8, 16, 16, dtype=torch.int64), short, masks)[0]
    assert torch.equal(batch.images[:, 0] == 0, batch.labels == 9)
    assert (batch.labels == 9).any()
    numbers = Objective(targets="regression", answers="regression")
    assert (seen(torch.rand(8, 2), short, numbers)[0].images > 0).all()
    brighter = seen(torch.rand(8, 2), short, numbers, vary=lambda image, target: (image * 2, target))
    assert brighter[0].images.max() == 16
    for recipe, sentence in (
        (replace(short, shift=1), "shift=1 and flip=False, and what becomes of targets torch.float32"),
        (replace(short, mixup=0.2), "mixup=0.2, which mixes labels, and targets are torch.float32"),
    ):
        with pytest.raises(InputError, match=sentence):
            seen(torch.rand(8, 2), recipe, numbers)
