"""Cutting a network down, against `copy.deepcopy` of the result: the least that making a network can cost.

    python benchmarks/slimming.py [MODEL ...]

Paired rounds in one run: slim, then deepcopy of the slim network; half of every layer stays.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torchvision

from dsfp_env import ChannelGraph

ROUNDS = 15


def main() -> None:
    torch.set_num_threads(1)
    print("| model | slim, ms | deepcopy of the slim network, ms | ratio: min / median / max |")
    print("|---|---|---|---|")
    for name in sys.argv[1:] or ["resnet18", "vgg16_bn", "resnet50", "mobilenet_v2", "densenet121"]:
        network = torchvision.models.get_model(name, num_classes=10).eval()
        graph = ChannelGraph.trace(network, torch.randn(1, 3, 64, 64))
        scores = {path: torch.rand(layer.out_channels) for path, layer in graph.layers.items()}
        keep = graph.keep(dict.fromkeys(graph.layers, 0.5), scores)
        slim = graph.slim(network, keep)
        rounds = [(seconds(graph.slim, network, keep), seconds(copy.deepcopy, slim)) for _ in range(ROUNDS)]
        ours, theirs = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
        ratios = sorted(a / b for a, b in rounds)
        low, middle, high = ratios[0], statistics.median(ratios), ratios[-1]
        print(f"| {name} | {ours:.1f} | {theirs:.1f} | {low:.2f} / {middle:.2f} / {high:.2f} |", flush=True)


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
