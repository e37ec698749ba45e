"""The times of the networks of a study: measured in turn, on one occasion, so that they can be compared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from agents.reporting.run_folder import write_json
from agents.reproduce import records
from dsfp_env.checkpoints import load_pruned
from dsfp_env.common.json_files import read_file
from dsfp_env.common.saying import remark
from dsfp_env.evaluation.latency import parse_meter
from dsfp_env.tasks.task import Task

LATENCIES = "latencies.json"


def read_latencies(folder: Path) -> dict[str, Any] | None:
    """What was measured of a study, as `records.Latencies` says; None if nothing was."""
    file = folder / LATENCIES
    if not file.exists():
        return None
    found: dict[str, Any] = read_file(file, records.Latencies, f"remove {file}, and times are measured anew")
    return found


def measure_latencies(folder: Path, task: Task, base: str, rows: Iterable[str], deployed: str) -> None:
    """Measure the original network and those of all rows, unless that was done.

    Args:
        folder: Of the study.
        task: With the original network.
        base: What the original network is called.
        rows: Names of those that are done; where the network itself is not there any more, there is no time.
        deployed: How networks are used and measured, see `latency.parse_meter`.
    """
    names, known = [name for name in rows if _network(folder, name).exists()], read_latencies(folder)
    if known is not None and known["deployed"] == deployed and {base, *names} <= known["of"].keys():
        return
    remark(f"timing {1 + len(names)} networks in turn")
    meter = parse_meter(deployed)
    networks = [load_pruned(_network(folder, name), task).to(task.device) for name in names]
    times = meter.measure_many([task.network, *networks], task.validation.images[: meter.batch_size])
    of = {
        name: {"seconds": time.seconds, "spread": time.spread}
        for name, time in zip((base, *names), times, strict=True)
    }
    write_json(folder / LATENCIES, {"deployed": deployed, "device": times[0].device, "of": of})


def _network(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
