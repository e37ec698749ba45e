"""Images as labelled tensors: the digits, downloaded sets, trees of files, or the user's own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsfp_env.datasets.labelled_images import LabelledImages as LabelledImages
    from dsfp_env.datasets.labelled_images import Splits as Splits
    from dsfp_env.datasets.labelled_images import digits as digits
    from dsfp_env.datasets.on_disk import cifar as cifar
    from dsfp_env.datasets.on_disk import image_tree as image_tree
else:
    _MODULES = dict.fromkeys(("LabelledImages", "Splits", "digits"), "labelled_images")
    _MODULES |= dict.fromkeys(("cifar", "image_tree"), "on_disk")

    def __getattr__(name: str) -> Any:
        """Import what holds a name when it is asked for: torch takes seconds to import, torchvision more."""
        if name in _MODULES:
            return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
