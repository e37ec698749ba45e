"""What a network costs.

Convention: one **MAC** is one multiply-add of a convolution or a linear layer; biases, normalisation,
activations and pooling are not counted. The field prints MACs and calls them "FLOPs" as often as not; where
this package says FLOPs, it means 2 x MACs. Parameters are counted all, biases and normalisation included.
Everything is per image and follows from the structure alone: no network is run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """The costs of one (pruned) network."""

    macs: int  # multiply-adds per image, convolutions and linear layers
    params: int  # all parameters
    filters: int  # output channels of all convolutions
