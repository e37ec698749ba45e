"""The same work again and again, launched on a GPU as one: a CUDA graph.

A batch of training is some hundred kernels of a few microseconds each. The interpreter takes longer to launch them
than the GPU to run them; recorded as a graph, they are launched at once, with the same numbers.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache

import torch

Work = Callable[..., None]  # of tensors; it does the same whatever is in them, and changes tensors where they are


@contextmanager
def launched_as_one(work: Work, device: torch.device) -> Iterator[Work]:
    """A context in which some work is done as a graph, from its second call on; where it cannot be, as it is.

    Args:
        work: On one GPU. Recorded once, it must not wait for the GPU, nor depend on what Python holds besides. It
            is called with tensors of the same shapes every time.
        device: The GPU.

    Yields:
        What to call in place of the work.
    """
    stage = _stage(device)
    stage.stream.wait_stream(torch.cuda.current_stream(device))
    try:
        with torch.cuda.stream(stage.stream):
            yield _Graphed(work, stage)
    finally:
        torch.cuda.current_stream(device).wait_stream(stage.stream)


def gives_the_same(run: Callable[[bool], Sequence[torch.Tensor | None]], device: torch.device) -> bool:
    """Whether work gives the same tensors, to the last bit, when it is launched as one, and can be recorded.

    Args:
        run: Does some work, launched as one if it is told so, and gives what came of it.
        device: The GPU.
    """
    stage = _stage(device)
    before = stage.refused
    pairs = zip(run(False), run(True), strict=True)
    same = all(
        one is other or (one is not None and other is not None and torch.equal(one, other)) for one, other in pairs
    )
    return same and stage.refused == before


class _Stage:
    """Where graphs of a GPU are recorded and run; their memory is one, as one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()
        self.last: torch.cuda.CUDAGraph | None = None  # which keeps the memory for the next
        self.refused = 0

    def record(self, work: Callable[[], None]) -> torch.cuda.CUDAGraph:
        """A graph of some work, which is not done.

        Raises:
            RuntimeError: Whatever work raises that cannot be recorded.
        """
        graph, collecting = torch.cuda.CUDAGraph(), gc.isenabled()
        gc.disable()  # what it frees might not be freed now
        try:
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with suppress(RuntimeError):  # the first error is the one to tell
                    graph.capture_end()
                raise
            graph.capture_end()
        except BaseException:
            self._forget()
            raise
        finally:
            if collecting:
                gc.enable()
        self.last = graph
        return graph

    def _forget(self) -> None:
        """Go on after a recording that broke off: not in its memory, nor with a generator that still records."""
        self.pool, self.last = torch.cuda.graph_pool_handle(), None
        generator = torch.cuda.default_generators[self.device.index or 0]
        fresh = torch.Generator(self.device)
        fresh.set_state(generator.get_state())
        generator.graphsafe_set_state(fresh.graphsafe_get_state())


class _Graphed:
    """Work that is done once as it is, then recorded, and from then on replayed."""

    def __init__(self, work: Work, stage: _Stage) -> None:
        self._work, self._stage = work, stage
        self._called = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._read: list[torch.Tensor] = []  # where the graph looks for what it is called with

    def __call__(self, *tensors: torch.Tensor) -> None:
        self._called += 1
        if self._called == 2:  # the first has made what is made once: states, plans of convolutions
            self._record(tensors)
        if self._graph is None:
            self._work(*tensors)
            return
        for place, tensor in zip(self._read, tensors, strict=True):
            place.copy_(tensor)
        self._graph.replay()

    def _record(self, tensors: tuple[torch.Tensor, ...]) -> None:
        self._read = [tensor.clone() for tensor in tensors]
        try:
            self._graph = self._stage.record(lambda: self._work(*self._read))
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except RuntimeError:  # a forward pass or a loss that waits for the GPU
            self._stage.refused += 1


@lru_cache
def _stage(device: torch.device) -> _Stage:
    return _Stage(device)
