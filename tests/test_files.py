"""Files are written whole, read as they were written, and run only if they are the user's own."""

import errno
import os
import stat
import subprocess
import sys

import pytest
import torch
from torch import nn

from dsfp_env import InputError, load_pruned
from dsfp_env.common import files
from dsfp_env.common.files import cache_directory, is_trusted, write_whole
from dsfp_env.common.tensor_files import read_tensors, write_tensors
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.speed import norm_kernel
from dsfp_env.training.epochs import train
from dsfp_env.training.pretraining import load_weights, pretrained
from dsfp_env.training.recipes import Recipe

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([1, 2])}
IMAGES = LabelledImages(torch.randn(32, 1, 4, 4), torch.arange(32) % 2)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache directory of the test's own."""
    monkeypatch.setenv("DSFP_ENV_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def no_space(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, when):
    write_whole(tmp_path / "file", lambda file: file.write(b"before"))
    write = no_space if when == "write" else (lambda file: file.write(b"after"))
    if when != "write":
        monkeypatch.setattr(os, when, no_space)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "file", write)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"


def test_tensors_come_back_as_they_were(tmp_path):
    write_tensors(tmp_path / "file", TENSORS)
    read = read_tensors(tmp_path / "file")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("place", [0, 30, -3])
def test_damaged_tensors_are_refused(tmp_path, place):
    file = tmp_path / "file"
    write_tensors(file, TENSORS)
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        read_tensors(file)


def test_a_network_in_the_cache_that_holds_other_numbers_is_trained_again(cache):
    network, recipe = (
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)),
        Recipe(epochs=1, batch_size=16),
    )
    expected = pretrained(network, IMAGES, recipe, 0).state_dict()
    (file,) = cache.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    again = pretrained(network, IMAGES, recipe, 0).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())
    assert file.read_bytes() != content  # written anew


def test_a_damaged_state_of_a_training_is_refused(tmp_path):
    def one():
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2))

    train(one(), IMAGES, Recipe(epochs=1, batch_size=16), 0, checkpoint=tmp_path / "state")
    content = bytearray((tmp_path / "state").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "state").write_bytes(content)
    with pytest.raises(InputError, match="state is no whole checkpoint of a training .its checksum"):
        train(one(), IMAGES, Recipe(epochs=1, batch_size=16), 0, checkpoint=tmp_path / "state")


def test_a_training_goes_on_when_its_state_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.warns(UserWarning, match="could not be written to .*No space left"):
        history = train(network, IMAGES, Recipe(epochs=1, batch_size=16), 0, checkpoint=tmp_path / "state")
    assert len(history) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("read", [lambda path: load_weights(nn.Linear(2, 2), path), load_pruned])
@pytest.mark.parametrize("kind", ["pipe", "empty", "folder", "dangling", "nul", "long"])
def test_what_is_no_file_gets_a_sentence(tmp_path, read, kind):
    path = tmp_path / "weights.pt"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path = f"{path}\0" if kind == "nul" else tmp_path / ("long" * 200)
    with pytest.raises(InputError):
        read(path)


def test_a_user_without_a_home_has_a_cache(tmp_path):
    script = (
        "import os, pathlib\n"
        "def none(*args): raise RuntimeError('Could not determine home directory.')\n"
        "import platformdirs; platformdirs.user_cache_path = none\n"
        "from dsfp_env.common.files import cache_directory\n"
        "print(cache_directory())"
    )
    environment = {key: value for key, value in os.environ.items() if key != "DSFP_ENV_CACHE"}
    environment["TMPDIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(tmp_path / f"dsfp_env-{os.getuid()}")
    assert "This user has no home directory" in done.stderr


needs_compiler = pytest.mark.skipif(
    norm_kernel.choose_kernels("auto", "bfloat16", torch.device("cpu")) == "torch", reason="no C compiler"
)


@pytest.fixture
def kernel(cache):
    """The library, as a new process would get it; and its file."""

    def load():
        norm_kernel.kernel.cache_clear()
        return norm_kernel.kernel(torch.bfloat16)

    yield load
    norm_kernel.kernel.cache_clear()


def kernel_file():
    (file,) = (cache_directory() / "compiled").glob("*.so")
    return file


@needs_compiler
def test_the_kernel_is_kept_where_nobody_else_can_write(kernel, monkeypatch):
    before = os.umask(0o002)
    try:
        kernel()
    finally:
        os.umask(before)
    assert stat.S_IMODE(kernel_file().parent.stat().st_mode) == 0o700
    assert is_trusted(kernel_file())
    monkeypatch.setattr(norm_kernel, "_compiled", None)
    kernel()  # from the file


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_kernel_is_made_anew(kernel, damage):
    kernel()
    file = kernel_file()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    file.unlink()  # the library that is loaded stays as it is
    file.write_bytes({"cut": whole[:2000], "flipped": bytes(flipped), "text": b"no library"}[damage])
    kernel()
    assert (
        kernel_file().read_bytes()[-32:] == __import__("hashlib").sha256(kernel_file().read_bytes()[:-32]).digest()
    )


@needs_compiler
@pytest.mark.parametrize("who", ["owner", "writers", "folder"])
def test_a_kernel_of_somebody_else_is_not_run(kernel, monkeypatch, who):
    kernel()
    file = kernel_file()
    if who == "owner":
        monkeypatch.setattr(files.os, "getuid", lambda: os.stat(file).st_uid + 1)
        if os.stat(file).st_uid == 0:
            pytest.skip("root is trusted by everybody")
    (file if who == "writers" else file.parent).chmod(0o777)
    loaded = []
    monkeypatch.setattr(norm_kernel.ctypes, "CDLL", lambda path: loaded.append(path) or pytest.fail("loaded"))
    assert norm_kernel._from_cache(file, torch.bfloat16) is None
    assert not loaded


@needs_compiler
def test_the_compiler_may_have_arguments(kernel, monkeypatch):
    monkeypatch.setenv("CC", "env LC_ALL=C gcc")
    kernel()
    monkeypatch.setenv("CC", "no-such-compiler")
    kernel()  # it is there already
