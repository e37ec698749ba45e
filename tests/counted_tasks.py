"""A tiny task for commands, by which a file grows with every network that any process prunes and fine-tunes.

Whoever unpickles the task imports this file, so workers count too.
"""

import os

import conftest

from dsfp_env.evaluation.measurement import Measurement
from dsfp_env.networks import PlainNet

_build = Measurement.build


class CountedNet(conftest.TinyNet):
    """Of this file, so that it is imported by who gets one."""


def build(*given):
    """As `Measurement.build`; a byte more in the file."""
    with open(os.environ["COUNTED_IN"], "ab") as file:
        file.write(b"x")
    return _build(*given)


if "COUNTED_IN" in os.environ:
    Measurement.build = build


def counted(data_root, device, seed):
    """A task of two layers, always the same."""
    conftest.TinyNet = CountedNet
    return conftest.make_tiny_task("counted")


def make_small(num_classes):
    """A network for small images."""
    return PlainNet((8, "M", 16), grid=1, hidden=(), norm=True, num_classes=num_classes)
