"""Images as labelled tensors: the digits, downloaded sets, trees of files, or the user's own."""

from typing import TYPE_CHECKING, Any

from dsfp_env.datasets.labelled_images import LabelledImages as LabelledImages
from dsfp_env.datasets.labelled_images import Splits as Splits
from dsfp_env.datasets.labelled_images import digits as digits

if TYPE_CHECKING:
    from dsfp_env.datasets.on_disk import cifar as cifar
    from dsfp_env.datasets.on_disk import image_tree as image_tree
else:

    def __getattr__(name: str) -> Any:
        """Import what reads from disk when it is asked for: torchvision takes seconds to import."""
        if name in ("cifar", "image_tree"):
            from dsfp_env.datasets import on_disk

            return getattr(on_disk, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
