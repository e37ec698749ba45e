"""How well times are predicted: predicted against measured, of pruned networks that the model has not seen.

    python benchmarks/latency.py --out docs/latency.png

The network of the digits and ResNet-20, pruned at random; times do not depend on weights, so these are random. All
networks take turns in every round, those that are fitted to and those that are held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import tyro
from scipy.stats import spearmanr

from dsfp_env import ChannelGraph
from dsfp_env.evaluation.latency import parse_meter
from dsfp_env.evaluation.latency_features import LatencyFeatures
from dsfp_env.evaluation.latency_model import LatencyModel, fit
from dsfp_env.evaluation.latency_predictor import random_keeps
from dsfp_env.networks import make_network

IMAGES = {"digits_net": (1, 8, 8), "resnet20": (3, 32, 32)}


@dataclass(frozen=True)
class Settings:
    """What is measured, and where the picture goes."""

    out: Path = Path("latency.png")
    """The picture."""
    networks: tuple[str, ...] = ("digits_net", "resnet20")
    """Some of digits_net and resnet20."""
    deployed: tuple[str, ...] = ("batch_size=1", "batch_size=16")
    """In how many ways, as for train_agents.py --deployed."""
    measured: int = 60
    """Pruned networks for the fit."""
    held_out: int = 40
    """Pruned networks to predict."""
    rounds: int = 10
    """In each, every network is timed once."""
    min_run_time: float = 0.2
    """Seconds of one network, in all rounds together."""
    quick: bool = False
    """Little work, to see that all of it works."""


class Found(NamedTuple):
    """Of one network, deployed in one way."""

    title: str
    predicted: np.ndarray  # of those that were held out, ms
    measured: np.ndarray  # ms
    by_macs: np.ndarray  # predicted by a model that knows multiply-adds alone, ms
    model: LatencyModel


def main(settings: Settings) -> None:
    torch.set_num_threads(1)
    if settings.quick:
        settings = Settings(settings.out, ("digits_net",), ("batch_size=1",), 20, 5, 1, 0.001)
    found = []
    print("| | original, ms | error, %: median | nine tenths | rank correlation | of MACs alone |")
    print("|---|---|---|---|---|---|")
    for name in settings.networks:
        for deployed in settings.deployed:
            found.append(measure(settings, name, deployed))
            print(row(found[-1]), flush=True)
    draw(settings.out, found)


def measure(settings: Settings, name: str, deployed: str) -> Found:
    network, images = make_network(name, 10).eval(), torch.rand(16, *IMAGES[name])
    graph = ChannelGraph.trace(network, images[:1])
    count = settings.measured + settings.held_out
    keeps = [{}, *random_keeps(graph, count, np.random.default_rng(0))]
    features = LatencyFeatures(graph)
    told = np.stack([features.of(graph.alive(keep)) for keep in keeps])
    how = f"rounds={settings.rounds}, min_run_time={settings.min_run_time}, statistic=minimum"
    meter = parse_meter(f"{how}, {deployed}")
    times = meter.measure_many([graph.slim(network, keep) for keep in keeps], images)
    seconds, spreads = np.array([(one.seconds, one.spread) for one in times]).T
    seen = slice(0, settings.measured + 1)
    new = slice(settings.measured + 1, None)
    model = fit(told[seen], seconds[seen], features.shared, spreads[seen].tolist())
    macs = told[:, :2]  # 1 and multiply-adds
    simple = fit(macs[seen], seconds[seen], 2)
    title = f"{'digits' if name == 'digits_net' else 'ResNet-20'}, {deployed.replace('_', ' ')}"
    return Found(title, 1e3 * model.predict(told[new]), 1e3 * seconds[new], 1e3 * simple.predict(macs[new]), model)


def row(found: Found) -> str:
    errors = 100 * np.abs(found.predicted / found.measured - 1)
    by_macs = 100 * np.abs(found.by_macs / found.measured - 1)
    return (
        f"| {found.title} | {1e3 * found.model.original_seconds:.3f} | {np.median(errors):.1f} | "
        f"{np.quantile(errors, 0.9):.1f} | {spearmanr(found.predicted, found.measured)[0]:.3f} | "
        f"{np.median(by_macs):.1f}, {np.quantile(by_macs, 0.9):.1f} |"
    )


def draw(path: Path, found: list[Found]) -> None:
    figure, panels = plt.subplots(1, len(found), figsize=(4 * len(found), 4), layout="constrained", squeeze=False)
    for panel, one in zip(panels[0], found, strict=True):
        ends = [one.measured.min() * 0.95, np.quantile(one.measured, 0.95) * 1.1]
        panel.plot(ends, ends, color="#cccccc")
        panel.plot(one.measured, one.predicted, "o", color="#1f77b4", markersize=4)
        panel.set(title=one.title, xlabel="measured, ms", ylabel="predicted, ms", xlim=ends, ylim=ends)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
