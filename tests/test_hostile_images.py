"""Damaged images, and trees of what is none: a result, or a sentence."""

import io
import os
import shutil
import warnings

import numpy as np
import pytest
from hostile import damaged, examples, try_all
from hypothesis import strategies as st
from PIL import Image

from dsfp_env import InputError, load_task
from dsfp_env.datasets.decoding import decode_image
from dsfp_env.datasets.on_disk import image_tree

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"),
    "JPEG": ("L", "RGB", "CMYK"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F"),
    "GIF": ("L", "P", "RGB"),
    "BMP": ("1", "L", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I"),
}


def encoded(kind, mode):
    image = Image.fromarray(PIXELS)
    if mode in ("I;16", "I", "F"):
        grey = PIXELS[:, :, 0].astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
        image = Image.fromarray(grey / 255 if mode == "F" else grey * 257)
    content = io.BytesIO()
    (image if image.mode == mode else image.convert(mode)).save(content, kind)
    return content.getvalue()


FILES = [encoded(kind, mode) for kind, modes in MODES.items() for mode in modes]


@examples(80, 20000)
def test_damaged_images(tmp_path, count):
    file = tmp_path / "image"

    def decoded(content, data):
        file.write_bytes(damaged(content, data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow, about what it finds
            pixels = decode_image(file)
        assert pixels.shape[0] == 3

    try_all("images", count, decoded, st.sampled_from(FILES), st.data())


@examples(8, 2000)
def test_trees(tmp_path, count):
    """Files and folders in the wrong places, of wrong kinds, and of odd names."""
    root = tmp_path / "root"
    good, broken = encoded("PNG", "RGB"), encoded("PNG", "RGB")[:40]
    names = st.sampled_from(["0", "1", "a.png", "b.png", ".hidden.png", "c.txt", "\udcff.png", "ü.png"])
    folders = st.sampled_from(
        ["train", "train/0", "train/1", "test", "test/0", "test/1", "val", "val/0", "train/0/x"]
    )
    kinds = st.sampled_from(
        ["good", "good", "good", "broken", "empty", "folder", "pipe", "link", "loop", "device"]
    )

    def read(skeleton, things, size):
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        if skeleton:
            for place in ("train/0", "train/1", "test/0", "test/1"):
                (root / place).mkdir(parents=True)
                for name in ("a.png", "z.png"):
                    (root / place / name).write_bytes(good)
        for folder, name, kind in things:
            path = root / folder / name
            if os.path.lexists(path) or not all(one.is_dir() or not os.path.lexists(one) for one in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind in ("good", "broken", "empty"):
                path.write_bytes({"good": good, "broken": broken, "empty": b""}[kind])
            elif kind == "folder":
                path.mkdir()
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                path.symlink_to({"link": "nowhere", "loop": name, "device": "/dev/zero"}[kind])
        splits = image_tree(root, image_size=size)
        assert all(len(split.labels) for split in splits)

    things = st.lists(st.tuples(folders, names, kinds), max_size=3)
    try_all("trees", count, read, st.booleans(), things, st.sampled_from([None, 1, 7, 16]))


def test_modes_as_they_are(tmp_path):
    for kind, modes in MODES.items():
        for mode in modes:
            (tmp_path / "image").write_bytes(encoded(kind, mode))
            if (kind, mode) in (("TIFF", "I"), ("PPM", "I")):
                with pytest.raises(InputError, match="which of them is white is not known"):
                    decode_image(tmp_path / "image")
            else:
                assert decode_image(tmp_path / "image").shape == (3, 12, 12)


@pytest.mark.parametrize("size", [0, -1, 5000, 10**30, "7", 1.5])
def test_image_sizes(size):
    with pytest.raises(InputError, match="The image size is"):
        load_task("imagefolder:somewhere", image_size=size)
