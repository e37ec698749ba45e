"""Something large in the memory of a node once, for all processes that want it: they map one copy.

It is in memory without a name (`memfd_create`), of which each of them holds a descriptor: it is gone with the last
of them, whatever ends that one, and there is nothing to clean up. A process finds it among the descriptors of the
others of its user; one at a time looks, or makes it. Whoever writes into what it has mapped gets a copy of its own
of that page, so nobody's network can spoil it for others.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


def load_shared(key: str, content: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """What `torch.save` has written, mapped.

    Args:
        key: Tells it from everything else on the node; letters and digits.
        content: Fetches its bytes, if no process of this node has them in memory yet.

    Returns:
        It, and how to let go of it: for those who come later, not for what was mapped.

    Raises:
        OSError: If there is no room.
        Exception: Whatever unpickling raises.
    """
    if not hasattr(os, "memfd_create"):
        return _loaded_alone(content)
    name = f"dsfp_env-{key}"
    with _alone_on_node(name):
        memory = _found(name)
        if memory is None:
            memory = os.memfd_create(name)
            with open(memory, "wb", closefd=False) as file:
                file.write(content())
    return torch.load(f"/proc/self/fd/{memory}", mmap=True, weights_only=False), lambda: os.close(memory)


def _found(name: str) -> int | None:
    """A descriptor of our own for what another process holds."""
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it is another user's, or has just ended
            for descriptor in os.listdir(f"/proc/{process}/fd"):
                path = f"/proc/{process}/fd/{descriptor}"
                if os.readlink(path).startswith(f"/memfd:{name} "):
                    return os.open(path, os.O_RDWR)
    return None


@contextmanager
def _alone_on_node(name: str) -> Iterator[None]:
    """One process of the node at a time: it has a socket of this name, which is free again when it ends."""
    with socket.socket(socket.AF_UNIX) as lock:
        while True:
            try:
                lock.bind(f"\0{name}")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                time.sleep(0.01)
        yield


def _loaded_alone(content: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """Where there is no such memory: a file that is gone as soon as it is mapped, by this process alone."""
    with tempfile.NamedTemporaryFile(prefix="dsfp_env-") as file:
        file.write(content())
        file.flush()
        return torch.load(file.name, mmap=True, weights_only=False), lambda: None
