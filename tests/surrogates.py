"""Surrogates made by hand, for tests: exact costs of a small network, accuracies told by random weights."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dsfp_env.channels.cost_tables import cost_tables
from dsfp_env.channels.graph import ChannelGraph
from dsfp_env.surrogates import files
from dsfp_env.surrogates.ensemble import Ensemble
from dsfp_env.tasks.layer_features import FIXED


class Residual(nn.Module):
    """Four convolutions of 8, 6, 8 and 10 filters, of which the first and the third are coupled; 6x6 images."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.inner, self.outer = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 10, 3)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        x = (x + self.outer(self.inner(x).relu())).relu()
        return self.head(self.last(x).relu().mean((2, 3)))


def make_surrogate(
    folder: Path, network=None, image: Sequence[int] = (1, 6, 6), images=200, measured=50, width=64
) -> Path:
    """Write a whole surrogate of a network, whose answers are of no use but for tests."""
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        graph = ChannelGraph.trace(network or Residual(), torch.zeros(1, *image))
    filters = {path: len(graph.kept({})[path]) for path in graph.layers}
    tables = cost_tables(graph, {path: torch.rand(count) for path, count in filters.items()})
    sets = len(tables.sizes)
    names = {path: f"conv_{number}" for number, path in enumerate(graph.layers)}
    whole = tables.costs(np.zeros((1, sets), np.int64))
    correct = {"validation": round(0.9 * images), "test": round(0.88 * images)}
    meta = {
        "schema": files.SCHEMA,
        "task": "hand",
        "splits": {"validation": images, "test": images},
        "agents": {
            name: {
                "path": path,
                "filters": filters[path],
                "coupled_with": [
                    names[other] for other in next(o for o in graph.sets if path in o) if other != path
                ],
                "features": [round(number / len(names), 3)] * len(FIXED),
            }
            for number, (path, name) in enumerate(names.items())
        },
        "original": {
            "correct": correct,
            "macs": int(whole.macs[0]),
            "params": int(whole.params[0]),
            "filters": int(whole.filters[0]),
        },
        "criterion": "dsfp",
        "fidelity": {"batches": 20, "batch_size": 64, "precision": "float32", "threads": 1, "kernels": "torch"},
        "task_seed": 0,
        "task_hash": "",
        "split_hash": "",
        "machines": [],
        "rows": measured,
        "sources": {"random": measured},
        "trust": {"noise": {"validation": 0.01, "test": 0.01, "correlation": 0.5}},
    }
    members = [_layers(rng, sets, width, 0.0) for _ in range(4)]
    ensemble = Ensemble(np.full(sets, 0.5), np.full(sets, 0.25), members, np.array(NOISE))
    lost = tables.classes_lost(rng.uniform(0.1, 0.9, (measured, len(names))))
    data = {
        "lost": lost.astype(np.uint16),
        "accuracy": rng.random((measured, 2), np.float32),
        "seeds": np.zeros(measured, np.int16),
    }
    folder.mkdir(parents=True)
    files.write(folder, meta, tables, ensemble, data)
    return folder


NOISE = [[-4.0, -4.0], [-0.3, -0.2], [-0.2, -0.1], [-2.0, -2.0], [2.0, 2.0]]  # deviations of about 0.02


def _layers(rng, sets, width, bias):
    """Random weights of a network of two hidden layers."""
    sizes = [(sets, width), (width, width), (width, 2)]
    return [
        (
            rng.normal(0, fan_in**-0.5, (fan_in, out)).astype(np.float32),
            np.full(out, bias * (out == 2), np.float32),
        )
        for fan_in, out in sizes
    ]
