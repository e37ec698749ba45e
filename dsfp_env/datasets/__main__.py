"""Download a data set, if it is not there.

python -m dsfp_env.datasets cifar10 --data-root DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from dsfp_env.common import command_line
from dsfp_env.common.files import data_directory
from dsfp_env.common.saying import say


@dataclass(frozen=True)
class Download:
    """What is downloaded, and where to."""

    name: Positional[Literal["cifar10", "cifar100"]]
    """The data set."""
    data_root: Path = field(default_factory=data_directory)
    """The directory it is put in."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; returns the exit status."""
    return command_line.run(Download, download, __doc__, arguments)


def download(settings: Download) -> None:
    """Download, with a progress bar.

    Raises:
        InputError: If it cannot be downloaded.
    """
    from dsfp_env.datasets.on_disk import cifar  # imports torchvision, which takes seconds

    splits = cifar(settings.name, settings.data_root, download=True)
    counts = [len(split.labels) for split in splits]
    what = "{} training, {} validation and {} test images".format(*counts)
    say(f"{settings.name} is in {settings.data_root}: {what}")


if __name__ == "__main__":
    sys.exit(main())
