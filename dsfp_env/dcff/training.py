"""Training a compact network from scratch, its filters fused anew at the start of every epoch (DCFF).

A layer that shall have m filters is trained with C of them, which read the channels that the compact network has:
``[C, c_in, k, k]``. At the start of an epoch P, the scores, the m filters with the highest and S = P[those] are
computed; then the layer convolves with S W (and S b), and through S, which is constant, gradients reach all C
filters. At the end S W is written into an ordinary convolution.

As in the released code every layer chooses for itself, also those whose outputs are summed. Unlike there, a filter
that stays chosen keeps its place among the m (there the order follows the scores, which hardly matters since these
are frozen), layers that lose nothing are plain from the start, and the network that is returned is the best on the
validation split, not on the test split.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from dsfp_env.channels.graph import ChannelGraph
from dsfp_env.common.choices import choose
from dsfp_env.common.devices import has_float64
from dsfp_env.common.errors import InputError
from dsfp_env.common.random_numbers import own_random_numbers
from dsfp_env.criteria.similarity import inter_similarity, similarity_scores
from dsfp_env.datasets.labelled_images import LabelledImages
from dsfp_env.dcff.fusion import SCHEDULES, Schedule
from dsfp_env.training.epochs import Epoch, Loss, train
from dsfp_env.training.recipes import Recipe


class Skeleton(NamedTuple):
    """A compact network that is to be trained, and how many filters its layers are fused of."""

    network: nn.Module  # its weights do not matter
    filters: Mapping[str, int]  # module path -> C; layers that are not named are trained as they are


def skeleton(network: nn.Module, graph: ChannelGraph, ratios: Mapping[str, float]) -> Skeleton:
    """The skeleton of a network of full width.

    Only two-dimensional convolutions without groups are fused; others that lose filters (in groups, transposed, of
    one or three dimensions) are just narrower.

    Args:
        network: The network that was traced; it lends its structure alone.
        graph: Its channel graph.
        ratios: Module path -> pruning ratio, as for `ChannelGraph.keep`.

    Raises:
        InputError: As `ChannelGraph.keep`.
    """
    # Weights do not matter, so neither does which filters stay; but where layers share a part of their channels,
    # it decides how many each keeps, and at random it is about as many as was asked.
    rng = torch.Generator().manual_seed(0)
    scores = {path: torch.rand(layer.out_channels, generator=rng) for path, layer in graph.layers.items()}
    keep = graph.keep(ratios, scores)
    losing = [path for path, kept in keep.items() if len(kept) < graph.layers[path].out_channels]
    filters = {p: graph.layers[p].out_channels for p in losing if _can_fuse(network.get_submodule(p))}
    return Skeleton(graph.slim(network, keep), filters)


def train_compact(
    skeleton: Skeleton,
    images: LabelledImages,
    recipe: Recipe,
    seed: int,
    *,
    schedule: str | Schedule = "geometric",
    loss: Loss | None = None,
    validation: LabelledImages | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
) -> nn.Module:
    """Train a compact network from scratch, with filter fusion.

    Args:
        skeleton: From `skeleton` or `published.published_skeleton`; it is left as it is.
        images: The training split, on whose device the work is done.
        recipe: How to train.
        seed: Chooses the initial weights and the batches, and varies the images.
        schedule: The temperature of every epoch: ``"geometric"``, ``"published"``, ``"package.module:function"``,
            or a function of (epoch from 0, epochs). ``"published"`` is one-hot from the second epoch on, as the
            released code is; but there scores are frozen from then on, and here filters go on being chosen anew.
        loss: See `train`.
        validation: See `train`.
        on_epoch: See `train`.
        checkpoint: See `train`.

    Returns:
        An ordinary compact network on the device of the images, in evaluation mode.

    Raises:
        InputError: If the skeleton, the schedule or the checkpoint is not what was expected.
    """
    temperature: Schedule = (
        choose("temperature schedule", schedule, SCHEDULES, importable=True)
        if isinstance(schedule, str)
        else schedule
    )
    network, device = fusing(skeleton, seed), images.images.device
    layers = [module for module in network.modules() if isinstance(module, FusedConv2d)]
    if not has_float64(device):
        for layer in layers:
            layer.scores = layer.scores.float()
    network.to(device)

    def choose_filters(epoch: int) -> None:
        for layer in layers:
            layer.choose_filters(temperature(epoch, recipe.epochs))

    train(
        network,
        images,
        recipe,
        seed,
        loss=loss,
        validation=validation,
        before_epoch=choose_filters,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
        about={"temperatures": [temperature(epoch, recipe.epochs) for epoch in range(recipe.epochs)]},
    )
    return baked(network)


def fusing(skeleton: Skeleton, seed: int) -> nn.Module:
    """The network that is trained: the skeleton with a `FusedConv2d` wherever filters are fused.

    All weights are drawn anew, each layer's by its own ``reset_parameters``.

    Raises:
        InputError: If the skeleton names a layer that cannot be fused, or no more filters than it has.
    """
    network = copy.deepcopy(skeleton.network).cpu().requires_grad_(True)
    with own_random_numbers(torch.device("cpu"), seed):
        for path, filters in skeleton.filters.items():
            layer = choose("layer of the skeleton", path, dict(network.named_modules()))
            if not _can_fuse(layer) or filters <= layer.out_channels:
                raise InputError(
                    f"{path!r} is to be fused of {filters} filters and is {layer}: expected a Conv2d without "
                    "groups that has fewer filters than that. Leave other layers out of Skeleton.filters."
                )
            _replace(network, layer, FusedConv2d(layer, filters))
        for module in network.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return network


def baked(network: nn.Module) -> nn.Module:
    """A copy of a network from `fusing`, with ordinary convolutions that compute the same."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        if isinstance(module, FusedConv2d):
            _replace(network, module, module.baked())
    return network


class FusedConv2d(nn.Conv2d):
    """A convolution whose m filters are mixtures of the C that it holds.

    Attributes:
        weight: ``[C, in_channels, k, k]``.
        bias: ``[C]``, or None.
        chosen: ``[m]`` int64, the filters that the mixtures stand for.
        mixture: S, ``[m, C]``; one-hot until `choose_filters` is called.
        scores: I, ``[C]`` float64; float32 where the device has no float64.
    """

    chosen: torch.Tensor
    mixture: torch.Tensor
    scores: torch.Tensor

    def __init__(self, compact: nn.Conv2d, filters: int) -> None:
        super().__init__(out_channels=filters, **_settings(compact))
        self.out_channels = compact.out_channels
        chosen = torch.arange(self.out_channels, device=self.weight.device)
        self.register_buffer("chosen", chosen)
        self.register_buffer("mixture", torch.eye(filters).to(self.weight)[chosen])
        self.register_buffer("scores", torch.zeros(filters, dtype=torch.float64, device=self.weight.device))

    @torch.no_grad()
    def choose_filters(self, temperature: float) -> None:
        """Score the C filters as they are now, choose m, and mix."""
        log_p = inter_similarity(self.weight.flatten(1), temperature)
        scores = similarity_scores(log_p)
        self.scores.copy_(scores)
        best = scores.argsort(descending=True, stable=True)[: self.out_channels].to(self.chosen.device)
        # What stays keeps its place: the next layer and the normalisation have learnt who is where.
        new = best[~torch.isin(best, self.chosen)]
        self.chosen[~torch.isin(self.chosen, best)] = new
        self.mixture.copy_(log_p.exp()[self.chosen.to(log_p.device)])

    def mixed(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """S W, ``[m, in_channels, k, k]``, and S b, ``[m]`` or None."""
        weight = torch.tensordot(self.mixture, self.weight, 1)
        return weight, None if self.bias is None else self.mixture @ self.bias

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map ``[N, in_channels, H, W]`` to ``[N, m, H', W']``."""
        return self._conv_forward(input, *self.mixed())

    @torch.no_grad()
    def baked(self) -> nn.Conv2d:
        """An ordinary convolution with the mixed filters."""
        plain = nn.utils.skip_init(nn.Conv2d, out_channels=self.out_channels, **_settings(self))
        for tensor, mixed in zip((plain.weight, plain.bias), self.mixed(), strict=True):
            if mixed is not None:
                tensor.copy_(mixed)
        return plain.train(self.training)


def _settings(module: nn.Conv2d) -> dict[str, Any]:
    """What makes a convolution like another one, but for its filters."""
    names = ("in_channels", "kernel_size", "stride", "padding", "dilation", "padding_mode")
    return {
        **{name: getattr(module, name) for name in names},
        "bias": module.bias is not None,
        "device": module.weight.device,
        "dtype": module.weight.dtype,
    }


def _replace(network: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a layer in the place of another one, or in all of its places."""
    for path in [path for path, module in network.named_modules(remove_duplicate=False) if module is old]:
        network.set_submodule(path, new)


def _can_fuse(module: nn.Module) -> bool:
    return type(module) is nn.Conv2d and module.groups == 1
