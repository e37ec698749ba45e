"""Trace every classification model of torchvision at 224x224, on one core: the table in docs/networks.md.

python benchmarks/trace_zoo.py            # all, as markdown
python benchmarks/trace_zoo.py resnet18   # some
"""

import sys
import time
import warnings
from collections import Counter

import torch
import torchvision
from torch.nn.modules.conv import _ConvNd

from dsfp_env import ChannelGraph

OPTIONS = {"googlenet": {"init_weights": False}, "inception_v3": {"init_weights": False}}
SIZES = {"inception_v3": 299}  # its heads need that in training


def main() -> None:
    torch.set_num_threads(1)
    print("| model | convolutions | prunable | trace, s | keep + costs, ms | left alone, and why |")
    print("|---|---|---|---|---|---|")
    times = []
    for name in sys.argv[1:] or torchvision.models.list_models(module=torchvision.models):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, **OPTIONS.get(name, {})).eval()
        size = SIZES.get(name, 224)
        start = time.perf_counter()
        graph = ChannelGraph.trace(network, torch.randn(1, 3, size, size))
        times.append(time.perf_counter() - start)
        convolutions = sum(isinstance(module, _ConvNd) for module in network.modules())
        print(
            f"| {name} | {convolutions} | {len(graph.layers)} | {times[-1]:.1f} | {keep_and_costs(graph):.1f} | "
            f"{reasons(graph)} |",
            flush=True,
        )
    below = sum(seconds < 10 for seconds in times)
    print(f"\n{below} of {len(times)} below 10 s; {torch.__version__}, 1 thread.")


def keep_and_costs(graph: ChannelGraph) -> float:
    """Milliseconds, the median of 9; half of every layer."""
    scores = {path: torch.rand(layer.out_channels, dtype=torch.float64) for path, layer in graph.layers.items()}
    times = []
    for _ in range(9):
        start = time.perf_counter()
        graph.costs(graph.keep(dict.fromkeys(graph.layers, 0.5), scores))
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[4]


def reasons(graph: ChannelGraph) -> str:
    """Why layers are left alone, the most frequent reasons first."""
    kinds: Counter[str] = Counter()
    for why in graph.excluded.values():
        head, _, _ = why.partition("'")
        kinds[why if not head else _short(why)] += 1
    return "; ".join(f"{count} {why}" for why, count in kinds.most_common()) or "-"


def _short(why: str) -> str:
    """A reason without the names and numbers that differ from layer to layer."""
    for marker, short in (
        (
            "go together for",
            "would have to go together for " + why.partition("go together for ")[2].partition(" in ")[0],
        ),
        ("mixed by", "mixed by " + why.partition("mixed by ")[2].partition(" in ")[0]),
        ("by their position", why.partition(" in ")[0] + " takes channels by their position"),
        ("fails after removal", why.partition(" in ")[0] + " is given sizes that removal changes"),
        ("is not what runs", why.partition(" in ")[0] + " runs otherwise after removal"),
        ("would combine", why.partition(" in ")[0] + " would combine other channels"),
        ("fixed width", why.partition(" in ")[0] + " with numbers of fixed width"),
        ("evaluation mode", "only run in training"),
        ("outputs of the network", "is the output of the network"),
    ):
        if marker in why:
            return short
    return why


if __name__ == "__main__":
    main()
