"""Images of every mode: as bright as they are, or refused with a sentence; never white or black in silence."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from dsfp_env import InputError
from dsfp_env.datasets.decoding import decode_image

GREY = np.linspace(0, 255, 6 * 8).reshape(6, 8).round().astype(np.uint8)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def grey(mode):
    return Image.fromarray(GREY).convert(mode)


@pytest.mark.parametrize(
    ("mode", "name", "tolerance"),
    [
        ("L", "a.png", 0),
        ("LA", "a.png", 0),
        ("RGB", "a.png", 0),
        ("RGBA", "a.png", 0),
        ("P", "a.png", 0),
        ("P", "a.gif", 0),
        ("CMYK", "a.tif", 1),
        ("L", "a.jpg", 24),
        ("CMYK", "a.jpg", 24),
    ],
)
def test_eight_bits_are_taken_as_they_are(tmp_path, mode, name, tolerance):
    pixels = decode_image(saved(grey(mode), tmp_path / name)).int()
    assert pixels.shape == (3, 6, 8)
    assert (pixels - torch.from_numpy(GREY).int()).abs().max() <= tolerance


def test_one_bit_is_black_and_white(tmp_path):
    pixels = decode_image(saved(Image.fromarray(GREY > 127), tmp_path / "a.png"))
    assert torch.equal(pixels[0] == 255, torch.from_numpy(GREY > 127))
    assert set(pixels.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_are_scaled(tmp_path, name):
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert image.mode == "I;16"
    assert torch.equal(decode_image(saved(image, tmp_path / name))[1], torch.from_numpy(GREY))


def test_floats_from_0_to_1_are_scaled(tmp_path):
    image = Image.fromarray((GREY / 255).astype(np.float32))
    assert torch.equal(decode_image(saved(image, tmp_path / "a.tif"))[2], torch.from_numpy(GREY))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        (GREY.astype(np.float32), "a.tif is of mode F with numbers from 0 to 255.*Expected floats from 0 to 1"),
        (np.full((2, 2), np.nan, np.float32), "mode F"),
        (GREY.astype(np.int32), "a.tif is of mode I .*Expected whole numbers of 16 bits"),
    ],
)
def test_numbers_of_no_known_range_are_refused(tmp_path, numbers, sentence):
    with pytest.raises(InputError, match=sentence):
        decode_image(saved(Image.fromarray(numbers), tmp_path / "a.tif"))


def test_of_several_frames_the_first_is_used(tmp_path):
    frames = [grey("L"), Image.fromarray(255 - GREY)]
    file = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert torch.equal(decode_image(file)[0], torch.from_numpy(GREY))


def test_what_is_no_whole_image_is_refused(tmp_path):
    whole = saved(grey("RGB"), tmp_path / "whole.png").read_bytes()
    jpeg = saved(
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)), tmp_path / "w.jpg"
    )
    for name, content in {
        "empty.png": b"",
        "text.png": b"not an image",
        "truncated.png": whole[: len(whole) // 2],
        "truncated.jpg": jpeg.read_bytes()[:900],
        "damaged.png": whole[:40] + b"\xff" * 20 + whole[60:],
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} cannot be read as an image .*remove or repair it"):
            decode_image(tmp_path / name)


def test_too_large_an_image_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # 48 are more than twice as many
    with pytest.raises(InputError, match="cannot be read as an image .*exceeds limit"):
        decode_image(saved(grey("L"), tmp_path / "a.png"))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="is no ordinary file"):
        decode_image(tmp_path / "a.png")
