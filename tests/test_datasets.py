"""Splits without overlap, in random order, and a sentence for data that is missing or broken."""

import hashlib
import pickle

import pytest
import torch
from torchvision.datasets import CIFAR10
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2.functional import pil_to_tensor

from dsfp_env import InputError, load_task
from dsfp_env.datasets.__main__ import main
from dsfp_env.datasets.labelled_images import digits
from dsfp_env.datasets.on_disk import DEVIATION, MEAN, cifar, image_tree


def fingerprints(split):
    return {hashlib.sha1(image.numpy().tobytes()).hexdigest() for image in split.images}


def test_digits_are_split_1000_400_397_without_overlap():
    splits = digits(seed=3)
    assert [len(split.labels) for split in splits] == [1000, 400, 397]
    classes = torch.cat([split.labels for split in splits]).bincount().tolist()
    assert sorted(classes) == [174, 177, 178, 179, 180, 181, 181, 182, 182, 183]
    assert splits.train.images.mean().abs() < 1e-5
    assert not torch.equal(splits.train.labels, digits(seed=4).train.labels)


# CIFAR: files in the format of the real ones, read by torchvision.


@pytest.mark.parametrize(("name", "train", "classes"), [("cifar10", 2450, 10), ("cifar100", 450, 100)])
def test_cifar_is_split_by_the_seed(cifar_files, name, train, classes):
    splits = cifar(name, cifar_files, seed=1)
    assert [len(split.labels) for split in splits] == [train, 50, 100]
    assert splits.train.images.shape[1:] == (3, 32, 32)
    assert splits.train.images.dtype == torch.float32
    assert splits.test.labels.unique().tolist() == list(range(classes))
    assert not fingerprints(splits.train) & fingerprints(splits.validation)
    again, other = cifar(name, cifar_files, seed=1), cifar(name, cifar_files, seed=2)
    assert torch.equal(splits.train.images, again.train.images)
    assert not torch.equal(splits.validation.images, other.validation.images)
    assert torch.equal(splits.test.images, other.test.images)
    assert len(splits.train.labels[:100].unique()) > 5  # the files are sorted by class; the split is not


def test_pixels_are_standardised_as_for_imagenet(cifar_files):
    raw = pickle.loads((cifar_files / CIFAR10.base_folder / "test_batch").read_bytes())["data"]
    first = torch.from_numpy(raw[0].reshape(3, 32, 32)) / 255
    expected = (first - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    assert torch.allclose(cifar("cifar10", cifar_files).test.images[0], expected, atol=1e-6)


def test_missing_and_broken_cifar_get_a_sentence_with_the_command(tmp_path, cifar_files):
    command = f"python -m dsfp_env.datasets cifar10 --data-root {tmp_path / 'nothing'}"
    with pytest.raises(InputError, match="is not there, or is broken") as refusal:
        load_task("cifar10-resnet20", data_root=tmp_path / "nothing")
    assert command in str(refusal.value)
    file = cifar_files / CIFAR10.base_folder / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(InputError, match="broken"):
        cifar("cifar10", cifar_files)
    file.unlink()
    with pytest.raises(InputError, match="broken"):
        cifar("cifar10", cifar_files)


def test_a_download_that_fails_gets_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "url", "http://localhost:9/nothing.tar.gz")
    with pytest.raises(InputError, match="could not be downloaded"):
        cifar("cifar10", tmp_path, download=True)


def test_the_command_that_gets_the_data(cifar_files, capsys):
    assert main(["cifar10", "--data-root", str(cifar_files)]) == 0  # there already
    assert "2450 training, 50 validation and 100 test images" in capsys.readouterr().out
    assert main(["cifar10", "--data-root", "/dev/null/no"]) == 2
    assert "could not be downloaded" in capsys.readouterr().err


# Trees of images.


def test_a_tree_of_images_is_split(image_files):
    splits = image_tree(image_files, seed=0)
    assert [tuple(split.images.shape) for split in splits] == [
        (270, 3, 16, 16),
        (30, 3, 16, 16),
        (100, 3, 16, 16),
    ]
    assert not fingerprints(splits.train) & fingerprints(splits.validation)
    assert splits.test.labels.bincount().tolist() == [10] * 10
    assert len(splits.train.labels[:60].unique()) > 5
    first = sorted((image_files / "test" / "0").iterdir())[0]
    pixels = pil_to_tensor(default_loader(str(first))) / 255
    expected = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    assert torch.allclose(splits.test.images[0], expected, atol=1e-6)
    assert torch.equal(splits.train.images, image_tree(image_files, seed=0).train.images)
    assert not torch.equal(splits.train.labels, image_tree(image_files, seed=1).train.labels)


def test_images_are_scaled_and_cut(image_files):
    assert image_tree(image_files, image_size=8).train.images.shape[2:] == (8, 8)
    as_they_are = image_tree(image_files).test.images
    assert torch.equal(image_tree(image_files, image_size=16).test.images, as_they_are)


def test_with_val_and_test_val_is_the_validation_split(image_files, tmp_path):
    for name, source in (("train", "train"), ("val", "test"), ("test", "train")):
        (tmp_path / name).symlink_to(image_files / source)
    assert [len(split.labels) for split in image_tree(tmp_path)] == [300, 100, 300]
    (tmp_path / "test").unlink()
    assert [len(split.labels) for split in image_tree(tmp_path)] == [270, 30, 100]


def test_a_tree_too_large_is_sampled_and_says_so(image_files):
    with pytest.warns(
        UserWarning, match=r"a random sample is used \(135 of 270 train, 15 of 30 validation, 50 of 100"
    ):
        splits = image_tree(image_files, max_bytes=200 * 3 * 16 * 16 * 4)
    assert [len(split.labels) for split in splits] == [135, 15, 50]


def test_bad_trees_get_a_sentence(image_files, tmp_path):
    with pytest.raises(InputError, match="is no tree of images: expected"):
        image_tree(tmp_path)
    (tmp_path / "train" / "0").mkdir(parents=True)
    (tmp_path / "test").symlink_to(image_files / "test")
    with pytest.raises(InputError, match="is no folder of images by class"):
        image_tree(tmp_path)
    source = next((image_files / "train" / "0").iterdir())
    (tmp_path / "train" / "0" / "a.jpg").write_bytes(source.read_bytes())
    with pytest.raises(InputError, match="different classes, among them '1'"):
        image_tree(tmp_path)
    for digit in range(10):
        (tmp_path / "train" / str(digit)).mkdir(exist_ok=True)
        (tmp_path / "train" / str(digit) / "b.jpg").write_bytes(source.read_bytes())
    (tmp_path / "train" / "3" / "b.jpg").write_bytes(source.read_bytes()[:100])
    with pytest.raises(InputError, match="b.jpg cannot be read as an image"):
        image_tree(tmp_path)
