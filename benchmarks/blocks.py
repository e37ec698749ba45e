"""Prune the blocks of today, by this package and by Torch-Pruning: the table in docs/networks.md.

    python benchmarks/blocks.py                 # all, as markdown
    python benchmarks/blocks.py yolo shufflenet # some
    python benchmarks/blocks.py --quick yolo    # narrow, small images

One core, random weights, half of the filters of every layer, chosen at random. What a package made is compared
with the network of full width in which the removed weights are zero: both must answer the same. The weights that
Torch-Pruning removed are found by their values, which are all different in float64. It is asked twice: for the
whole network at once, as its pruner does it; and for each group of layers that the pruner finds alone, in a fresh
network, on a smaller image.
"""

from __future__ import annotations

import copy
import signal
import textwrap
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import torch
import tyro
from block_networks import NETWORKS, settled
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode
from trace_zoo import reasons

from dsfp_env import ChannelGraph
from dsfp_env.channels.tracing import tensors_of

SMALL = 64  # pixels, for groups alone
LIMIT = 60  # seconds for Torch-Pruning to find what goes together
HEADER = (
    "network | convolutions | prunable | parameters, multiply-adds removed, % | trace, s | slim against masked | "
    "left alone, and why | Torch-Pruning: convolutions | removed, % | all at once | "
    "groups alone: equal, differ, crash"
)


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Networks of `block_networks.NETWORKS`; all, if none are named."""
    quick: bool = False
    """Narrow networks and small images."""


@dataclass(frozen=True)
class Result:
    """What a pruner made of a network."""

    convolutions: int  # that lost filters
    removed: str  # of parameters and multiply-adds
    verdict: str


def main() -> None:
    """Compare, print."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"| {HEADER} |\n|{'---|' * (1 + HEADER.count('|'))}")
    for name in settings.names or NETWORKS:
        print(f"| {' | '.join(row(name, settings.quick))} |", flush=True)
    print(f"\ntorch {torch.__version__}, Torch-Pruning {version('torch-pruning')}, 1 thread.")


def row(name: str, quick: bool = False) -> list[str]:
    """A row of the table."""
    known = NETWORKS[name]
    torch.manual_seed(0)
    image = torch.randn(1, 3, *[SMALL if quick else known.size] * 2)
    network = settled(known.make(*[known.narrow] * quick), torch.randn(2, *image.shape[1:]))
    start = time.perf_counter()
    graph = ChannelGraph.trace(network, image)
    seconds = time.perf_counter() - start
    ours = by_us(graph, network, image)
    theirs, groups = by_torch_pruning(network, image)
    return [
        name, str(convolutions_of(network)), str(len(graph.layers)), ours.removed, f"{seconds:.1f}", ours.verdict,
        reasons(graph), str(theirs.convolutions), theirs.removed, theirs.verdict, groups,
    ]  # fmt: skip


def by_us(graph: ChannelGraph, network: nn.Module, image: torch.Tensor) -> Result:
    """Half of every layer, by random scores."""
    scores = {path: torch.rand(layer.out_channels) for path, layer in graph.layers.items()}
    keep = graph.keep(dict.fromkeys(graph.layers, 0.5), scores)
    slim = graph.slim(network, keep)
    difference = relative_difference(answers(slim, image), answers(graph.masked(network, keep), image))
    return Result(narrower(network, slim), removed(network, slim, image), f"{difference:.0e}")


def by_torch_pruning(network: nn.Module, image: torch.Tensor) -> tuple[Result, str]:
    """Half of every layer at random; then each group alone: how many are equal, differ, crash."""
    import torch_pruning as tp

    original, image = distinct(network), image.double()
    small = nn.functional.interpolate(image, SMALL)

    def groups_of(theirs: nn.Module, image: torch.Tensor) -> Iterator[tp.dependency.Group]:
        importance = tp.importance.RandomImportance()
        return tp.pruner.BasePruner(theirs, image, importance, ignored_layers=[theirs.head]).step(interactive=True)

    def prune_all(theirs: nn.Module) -> None:
        for group in groups_of(theirs, image):
            group.prune()

    def prune_one(theirs: nn.Module, path: str, filters: list[int]) -> None:
        dependencies, module = tp.DependencyGraph().build_dependency(theirs, small), theirs.get_submodule(path)
        function = dependencies.get_pruner_of_module(module).prune_out_channels
        dependencies.get_pruning_group(module, function, filters).prune()

    words, theirs = verdict(prune_all, original, image)
    runs = words.startswith(("equal", "differs"))
    share = removed(original, theirs, image) if runs else "-"
    whole = Result(narrower(original, theirs) if runs else 0, share, words)
    theirs = copy.deepcopy(original)
    paths = {module: path for path, module in theirs.named_modules()}
    try:
        with within(LIMIT):
            groups = [(paths[group[0].dep.target.module], group[0].idxs) for group in groups_of(theirs, small)]
    except Exception as error:  # whatever a pruner raises
        return whole, f"no groups ({one_line(error)})"
    prunes = [partial(prune_one, path=path, filters=filters) for path, filters in groups]
    kinds = Counter(verdict(prune, original, small)[0].split(" ")[0] for prune in prunes)
    return whole, ", ".join(str(kinds[kind]) for kind in ("equal", "differs", "crashes"))


def distinct(network: nn.Module) -> nn.Module:
    """A copy in float64 in which no two weights are alike."""
    copied = copy.deepcopy(network).double()
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.add_(1e-6 * torch.randn_like(parameter))
    return copied


def verdict(prune: Callable[[nn.Module], None], original: nn.Module, image: torch.Tensor) -> tuple[str, nn.Module]:
    """What comes of pruning a copy of the original in place, in words, and the copy."""
    theirs = copy.deepcopy(original)
    try:
        with within(LIMIT):
            prune(theirs)
        came = answers(theirs, image)
    except TimeoutError as error:
        return str(error), theirs
    except Exception as error:  # whatever a pruner raises, or a network whose parts do not fit
        return f"crashes ({one_line(error)})", theirs
    difference = relative_difference(came, answers(silenced(original, theirs), image))
    return "equal" if difference < 1e-8 else f"differs ({difference:.0e})", theirs


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises `TimeoutError` after that time."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def silenced(original: nn.Module, theirs: nn.Module) -> nn.Module:
    """The original with zeros for all weights that are not in the smaller network."""
    masked, left = copy.deepcopy(original), dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            if left[name].shape != parameter.shape:
                parameter.mul_(torch.isin(parameter, left[name]))
    return masked


@torch.no_grad()
def answers(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """All tensors that a network answers."""
    return tensors_of(network.eval()(image))


def relative_difference(ours: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """The largest one, as a part of the largest number; infinite if the shapes are not the same."""
    if any(a.shape != b.shape for a, b in zip(ours, reference, strict=True)):
        return float("inf")
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, reference, strict=True))


def convolutions_of(network: nn.Module) -> int:
    """How many there are."""
    return sum(isinstance(module, _ConvNd) for module in network.modules())


def narrower(network: nn.Module, slim: nn.Module) -> int:
    """How many convolutions lost filters."""
    pairs = zip(network.modules(), slim.modules(), strict=True)
    return sum(isinstance(a, _ConvNd) and b.out_channels < a.out_channels for a, b in pairs)


def removed(network: nn.Module, slim: nn.Module, image: torch.Tensor) -> str:
    """Percent of the parameters, and of the multiply-adds of convolutions and linear layers."""
    shares = [1 - after / before for before, after in zip(costs(network, image), costs(slim, image), strict=True)]
    return ", ".join(f"{100 * share:.0f}" for share in shares)


def costs(network: nn.Module, image: torch.Tensor) -> tuple[int, int]:
    """Parameters, and twice the multiply-adds as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter:
        answers(network, image)
    flops = {str(operation): number for operation, number in counter.get_flop_counts()["Global"].items()}
    work = sum(flops.get(f"aten.{name}", 0) for name in ("convolution", "addmm", "mm"))
    return sum(parameter.numel() for parameter in network.parameters()), work


def one_line(error: Exception) -> str:
    """The kind of an error and the first words of what it says."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 80, placeholder=" ...")


if __name__ == "__main__":
    main()
