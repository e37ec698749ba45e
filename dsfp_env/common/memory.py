"""How much memory is free: on a device, or for this process."""

from __future__ import annotations

import os
from pathlib import Path

import torch

_LIMIT, _USED = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
_ASSUMED = 4 << 30  # where nothing can be asked


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; for the CPU, and devices that share its memory: for this process."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = _number(Path("/proc/meminfo"), "MemAvailable:")
    if free is not None:
        free *= 1024
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2  # half of all there is
    else:
        free = _ASSUMED
    limit, used = _number(_LIMIT), _number(_USED)  # of a container
    return free if limit is None or used is None else max(0, min(free, limit - used))


def _number(file: Path, name: str = "") -> int | None:
    """The number in a file, behind a name if there is one."""
    try:
        words = file.read_text().split()
        return int(words[words.index(name) + 1 if name else 0])
    except (OSError, ValueError, IndexError):
        return None
