"""Random variations of a batch of images, on its device: shifts and mirror images, or what the user brings.

Masks are moved as their images are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine
from dsfp_env.common.random_numbers import own_random_numbers

Augment = Callable[..., Any]  # (image, target) -> the same, varied


def augment(
    images: torch.Tensor, shift: int, flip: bool, rng: torch.Generator, empty: float = 0.0
) -> torch.Tensor:
    """Shift and mirror every image at random.

    Args:
        images: ``[N, C, H, W]``.
        shift: Up to how many pixels an image moves in each direction; what comes in is zero (of standardised
            images: the mean).
        flip: Whether every second image, on average, is mirrored left to right.
        rng: On the CPU.
        empty: What comes in.
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
    padded = F.pad(images, [shift] * 4, value=empty).permute(0, 2, 3, 1)  # [N, H + 2 shift, W + 2 shift, C]
    indices = (place[:, None, None], rows[:, :, None], columns[:, None, :])
    moved = padded[tuple(index.to(images.device) for index in indices)]  # [N, H, W, C]
    return moved.permute(0, 3, 1, 2)


def augment_masks(
    images: torch.Tensor, masks: torch.Tensor, shift: int, flip: bool, rng: torch.Generator, empty: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """`augment` images ``[N, C, H, W]`` and masks ``[N, H, W]`` alike; what comes into masks is ``empty``."""
    state = rng.get_state()
    images = augment(images, shift, flip, rng)
    rng.set_state(state)
    return images, augment(masks[:, None], shift, flip, rng, empty)[:, 0]


def augment_as_told(
    images: torch.Tensor, targets: torch.Tensor, function: Augment, rng: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Every image varied by a function of the user's own, with its target.

    Args:
        images: ``[N, C, H, W]``.
        targets: ``[N, ...]``; masks come as ``tv_tensors.Mask``, as the transforms of torchvision v2 want them.
        function: Of (image ``[C, H, W]``, target); draws from torch's own random numbers.
        rng: Seeds them.

    Raises:
        InputError: If it fails, or the images or targets it gives are not of one shape.
    """
    from torchvision import tv_tensors  # takes seconds

    seed = int(torch.randint(2**31, (1,), generator=rng))
    is_mask = targets.dim() > 2 and targets.shape[-2:] == images.shape[-2:]
    pairs = []
    try:
        with own_random_numbers(images.device, seed):
            for image, target in zip(images, targets, strict=True):
                pairs.append(function(tv_tensors.Image(image), tv_tensors.Mask(target) if is_mask else target))
        varied = [torch.stack([_plain(one) for one in part]) for part in zip(*pairs, strict=True)]
    except Exception as error:  # whatever it raises
        raise_if_of_the_machine(error, "varying images")
        raise InputError(
            f"augment failed ({type(error).__name__}: {error}) for an image {tuple(images.shape[1:])} and its "
            f"target {tuple(targets.shape[1:])}: expected a function of (image, target) that gives both, always "
            "of the same shapes, such as torchvision.transforms.v2.Compose."
        ) from error
    return varied[0].to(images), varied[1].to(targets)


def movable(targets: torch.Tensor, ignore_index: int | None, own_loss: bool) -> bool:
    """Whether images may be moved: labels stay the same, and masks of integers move along.

    Args:
        targets: ``[N, ...]``.
        ignore_index: The target of positions that do not count.
        own_loss: Whether the loss is the user's own, and does not know what comes into masks without one.
    """
    if targets.is_floating_point() or targets.dim() == 2:
        return False
    return targets.dim() == 1 or ignore_index is not None or not own_loss


def _plain(one: Any) -> torch.Tensor:
    return torch.as_tensor(one).as_subclass(torch.Tensor)
