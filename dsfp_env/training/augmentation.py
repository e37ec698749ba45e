"""Random variations of a batch of images, on its device: shifts, mirror images, mixtures."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def augment(images: torch.Tensor, shift: int, flip: bool, rng: torch.Generator) -> torch.Tensor:
    """Shift and mirror every image at random.

    Args:
        images: ``[N, C, H, W]``.
        shift: Up to how many pixels an image moves in each direction; what comes in is zero (of standardised
            images: the mean).
        flip: Whether every second image, on average, is mirrored left to right.
        rng: On the CPU.
    """
    count, _, height, width = images.shape
    if shift:
        rows = torch.arange(height) + torch.randint(2 * shift + 1, (count, 1), generator=rng)  # [N, H]
        columns = torch.arange(width) + torch.randint(2 * shift + 1, (count, 1), generator=rng)  # [N, W]
    else:
        rows, columns = torch.arange(height).expand(count, -1), torch.arange(width).expand(count, -1)
    if flip:
        mirrored = torch.rand(count, 1, generator=rng) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    elif not shift:
        return images
    place = torch.arange(count)
    padded = F.pad(images, [shift] * 4).permute(0, 2, 3, 1)  # [N, H + 2 shift, W + 2 shift, C]
    indices = (place[:, None, None], rows[:, :, None], columns[:, None, :])
    moved = padded[tuple(index.to(images.device) for index in indices)]  # [N, H, W, C]
    return moved.permute(0, 3, 1, 2)
