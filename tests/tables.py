"""Tables made by hand, for tests."""

from itertools import product
from pathlib import Path

import numpy as np

from dsfp_env.tables import files as table_files
from dsfp_env.tables.files import FIDELITIES, NETWORK


def all_levels(agents, levels):
    """Every joint action in order, ``[levels ** agents, agents]``."""
    return np.array(list(product(range(levels), repeat=agents)))


def make_table(folder: Path, levels=(10, 50, 90), agents=2, seeds=(0, 1, 2), images=100, correct=None) -> Path:
    """Write a whole table of layers with 10 filters, whose MACs are the products of what neighbours keep.

    Unless given, accuracies fall with the ratios and differ a little between seeds, splits and fidelities.
    """
    names = [f"conv_{index}" for index in range(agents)]
    fidelity = {"batches": 20, "batch_size": 64, "precision": "float32", "threads": 1, "kernels": "torch"}
    meta = {
        "schema": table_files.SCHEMA,
        "task": "hand",
        "task_seed": 0,
        "task_hash": "",
        "split_hash": "",
        "splits": {"validation": images, "test": images},
        "agents": {
            name: {"path": f"layer{i}", "filters": 10, "coupled_with": [], "features": [i / agents] * 8}
            for i, name in enumerate(names)
        },
        "original": {
            "correct": {"validation": images, "test": images},
            "macs": 100 * agents,
            "params": 100 * agents,
            "filters": 10 * agents,
        },
        "levels": list(levels),
        "criterion": "dsfp",
        "fidelities": dict(zip(FIDELITIES, ({**fidelity, "batches": 0}, fidelity), strict=True)),
        "seeds": list(seeds),
        "machines": [],
    }
    rows = all_levels(agents, len(levels))
    kept = np.rint(10 * (1 - np.array(levels)[rows] / 100)).astype(np.int64)  # [rows, agents]
    inputs = np.concatenate([np.full((len(kept), 1), 10), kept[:, :-1]], axis=1)
    macs = (kept * inputs).sum(1)
    folder.mkdir(parents=True)
    (folder / NETWORK).write_bytes(b"")
    table_files.create(folder, meta, np.stack([macs, macs, kept.sum(1)], axis=1), kept)
    arrays = table_files.open_arrays(folder, meta, writable=True)
    if correct is None:
        worth = np.rint(images * (kept.mean(1) / 10) ** 0.5).astype(np.int64)
        noise = np.random.default_rng(0).integers(-3, 4, arrays.correct.shape)
        correct = np.clip(worth[:, None, None, None] + noise, 0, images)
    arrays.correct[:], arrays.seconds[:] = correct, 0.5
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
    table_files.finish(folder, meta)
    return folder
