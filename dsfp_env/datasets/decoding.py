"""An image file as bytes ``[3, H, W]``, red green blue, whatever its mode.

Eight bits a channel are taken as they are; transparency is dropped, palettes are looked up. Sixteen bits of grey
are scaled to eight by their range, floats by theirs if that is [0, 1]. Of several frames, the first is used.
Numbers of which the range is not known are refused: read as eight bits, they would be white, or black.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dsfp_env.common.errors import InputError
from dsfp_env.common.files import check_regular
from dsfp_env.common.machine_errors import raise_if_of_the_machine

_SIXTEEN_BITS = 65535


def decode_image(path: str | Path) -> torch.Tensor:
    """Bytes ``[3, H, W]`` of an image file.

    Raises:
        InputError: If it is no ordinary file, no whole image, too large, or of a mode that has no known range.
    """
    try:
        check_regular(path)
        with Image.open(path) as image:
            image.load()
            if image.mode.startswith("I") or image.mode == "F":
                pixels = _scaled(image)[:, :, None].repeat(3, 2)
            else:
                pixels = np.array(image.convert("RGB"))
    except InputError:
        raise
    except Exception as error:  # whatever the decoder of a damaged file raises
        raise_if_of_the_machine(error, f"reading {path}", "the image")
        raise InputError(f"{path} cannot be read as an image ({error}): remove or repair it.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _scaled(image: Image.Image) -> np.ndarray:
    """Bytes ``[H, W]`` of a grey image with more than eight bits."""
    numbers = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        largest, expected = 1.0, "floats from 0 to 1"
        fits = bool(np.isfinite(numbers).all()) and numbers.min() >= 0 and numbers.max() <= largest
    else:  # "I" may be sixteen bits too: a PNG has no more
        largest, expected = float(_SIXTEEN_BITS), "whole numbers of 16 bits"
        sixteen = image.mode.startswith("I;16") or image.format == "PNG"
        fits = sixteen and numbers.min() >= 0 and numbers.max() <= largest
    if not fits:
        came = f"{image.mode} with numbers from {numbers.min():g} to {numbers.max():g}"
        raise InputError(
            f"{image.filename if hasattr(image, 'filename') else 'An image'} is of mode {came}: which of them is "
            f"white is not known. Expected {expected}, or 8 bits a channel: convert it."
        )
    return np.rint(numbers * (255 / largest)).astype(np.uint8)
