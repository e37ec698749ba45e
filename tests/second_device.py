"""A second device for tests: tensors that say they are elsewhere, computed on the CPU.

It behaves as a GPU does where that can go wrong: whoever mixes devices gets an error, and so do its two places,
``second:0`` and ``second:1``, with each other. It counts what costs time on a GPU: operations that are launched,
waits for an answer (a value read on the host, a shape that depends on values), and tensors that are sent there.

`install` registers it with torch, for good, and catches every operation from then on; so that is done in a process
of its own. It needs a torch that lets Python be a device (`LACKS` says what is missing).
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "second"
LACKS = (
    ""
    if hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
    else f"torch {torch.__version__} lets no Python code be a device"
)
WAITS = {
    "_local_scalar_dense", "nonzero", "masked_select", "equal", "bincount", "unique_dim", "_unique2",
    "unique_consecutive", "is_nonzero",
}  # fmt: skip
aten = torch.ops.aten


@dataclass
class Counts:
    """What was asked of the device."""

    launches: int = 0
    waits: Counter = field(default_factory=Counter)  # where in our code, and what
    uploads: Counter = field(default_factory=Counter)  # where in our code
    operations: Counter = field(default_factory=Counter)


class Elsewhere(torch.Tensor):
    """A tensor of the second device. It is the numbers on the CPU that it holds."""

    @staticmethod
    def __new__(cls, numbers, device):
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=device,
        )
        made.numbers = numbers
        return made

    def __tensor_flatten__(self):
        return ["numbers"], self.device

    @staticmethod
    def __tensor_unflatten__(inner, device, size, stride):
        return Elsewhere(inner["numbers"], device)

    def __repr__(self):
        return f"Elsewhere({self.numbers!r})"

    def __reduce_ex__(self, protocol):
        return self.detach().cpu().__reduce_ex__(protocol)  # in files, a tensor is of the CPU

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


class _Backend(getattr(backend_registration, "_DummyBackendModule", object)):
    """What torch asks of a device's module, and what ``torch.cuda`` has too."""

    def __init__(self):
        self.current = 0
        self.states = [torch.Generator().manual_seed(index) for index in range(2)]

    def device_count(self):
        return len(self.states)

    def current_device(self):
        return self.current

    def synchronize(self, device=None):
        pass

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def get_rng_state(self, device=None):
        return self.states[self._index(device)].get_state()

    def set_rng_state(self, state, device=None):
        self.states[self._index(device)].set_state(state)

    def manual_seed(self, seed):
        self.states[self.current].manual_seed(seed)

    def manual_seed_all(self, seed):
        for state in self.states:
            state.manual_seed(seed)

    @contextmanager
    def device(self, device):
        before, self.current = self.current, self._index(device)
        try:
            yield
        finally:
            self.current = before

    def _index(self, device):
        index = device if isinstance(device, int) else device and torch.device(device).index
        return self.current if index is None else index


class _Everywhere(TorchDispatchMode):
    """Catches what makes tensors of the device: factories, and copies to it."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


backend = None
without_float64 = False  # as MPS
_counts = Counts()


def install():
    """Register the device. Backward passes run in the thread that asks for them, where they are caught."""
    global backend
    backend = _Backend()
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend)
    torch.autograd.set_multithreading_enabled(False)
    _Everywhere().__enter__()


@contextmanager
def counted():
    """What is asked of the device within this context."""
    global _counts
    outer, _counts = _counts, Counts()
    try:
        yield _counts
    finally:
        _counts = outer


def _run(func, args, kwargs):
    name = func._schema.name.removeprefix("aten::")
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    wanted = _place(kwargs.get("device"))
    if not here and wanted is None:
        return func(*args, **kwargs)
    if name == "copy_":
        return _copied_into(func, *args[:2])
    if name in ("_to_copy", "to"):
        return _copied(args[0], {**kwargs, **(_of_to(args[1:]) if name == "to" else {})})
    device = _only_device(name, tensors, here) if here else wanted
    _count(func, name, args)
    numbers = tree_map(_numbers, (tuple(args), dict(kwargs)))
    if "device" in kwargs:
        numbers[1]["device"] = torch.device("cpu")
    numbers[1].pop("pin_memory", None)
    with _drawing_there(func, device):
        answer = func(*numbers[0], **numbers[1])
    return return_and_correct_aliasing(func, args, kwargs, tree_map(lambda one: _elsewhere(one, device), answer))


def _place(device):
    """The place of the second device that is meant, if it is."""
    if device is None or (device := torch.device(device)).type != NAME:
        return None
    return device if device.index is not None else torch.device(NAME, backend.current)


def _numbers(value):
    return value.numbers if isinstance(value, Elsewhere) else value


def _elsewhere(value, device):
    if not isinstance(value, torch.Tensor) or isinstance(value, Elsewhere):
        return value
    if without_float64 and value.dtype == torch.float64:
        raise TypeError("Cannot convert a tensor to float64 there: the device has none.")
    with torch.inference_mode(False):  # or torch would not let a view be one of a tensor from outside of the mode
        return Elsewhere(value, device)


def _only_device(name, tensors, here):
    """The one device of all tensors; numbers, and indices on the CPU, may go with any."""
    devices = {tensor.device for tensor in here}
    foreign = [tensor for tensor in tensors if not isinstance(tensor, Elsewhere) and tensor.dim() > 0]
    indexed = name.startswith(("index.", "index_put", "_index_put")) or name == "index"
    if len(devices) > 1 or (foreign and not (indexed and isinstance(tensors[0], Elsewhere))):
        raise RuntimeError(f"{name}: expected all tensors on one device, found {devices}, cpu; at {_where()}")
    return devices.pop()


def _copied_into(func, target, source):
    if isinstance(source, Elsewhere) and source.device != target.device:
        _counts.waits[f"{_where()}: copy"] += 1
    if isinstance(target, Elsewhere):
        _launched("copy_")
        if not isinstance(source, Elsewhere) and source.dim():
            _counts.uploads[_where()] += 1
    func(_numbers(target), _numbers(source))
    return target


def _of_to(given):
    """Device and type that ``tensor.to`` was given."""
    wanted = {}
    for value in given:
        if isinstance(value, torch.Tensor):
            wanted |= {"device": value.device, "dtype": value.dtype}
        elif isinstance(value, torch.device):
            wanted["device"] = value
        elif isinstance(value, torch.dtype):
            wanted["dtype"] = value
    return wanted


def _copied(source, wanted):
    """A copy of another type, on another device."""
    device = torch.device(wanted["device"]) if wanted.get("device") is not None else source.device
    place = _place(device)
    if isinstance(source, Elsewhere) and place != source.device:
        _counts.waits[f"{_where()}: copy"] += 1
    if place is not None:
        _launched("_to_copy")
        if not isinstance(source, Elsewhere):
            _counts.uploads[_where()] += 1
    options = {name: wanted[name] for name in ("dtype", "memory_format") if wanted.get(name) is not None}
    copied = aten._to_copy.default(_numbers(source), **options)
    return copied if place is None else _elsewhere(copied, place)


@contextmanager
def _drawing_there(func, device):
    """An operation that draws random numbers takes them from the device's own generator."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        yield
        return
    there, here = backend.states[device.index], torch.get_rng_state()
    torch.set_rng_state(there.get_state())
    try:
        yield
    finally:
        there.set_state(torch.get_rng_state())
        torch.set_rng_state(here)


def _count(func, name, args):
    if name in WAITS:
        _counts.waits[f"{_where()}: {name}"] += 1
    if name == "index":
        chosen = [index for index in args[1] if index is not None]
        if any(index.dtype in (torch.bool, torch.uint8) for index in chosen):
            _counts.waits[f"{_where()}: a mask as an index"] += 1
        if any(not isinstance(index, Elsewhere) for index in chosen):
            _counts.uploads[_where()] += 1
    returns = func._schema.returns
    is_view = bool(returns) and returns[0].alias_info is not None and not returns[0].alias_info.is_write
    if not is_view and name not in ("_local_scalar_dense", "_unsafe_view"):
        _launched(name)


def _launched(name):
    _counts.launches += 1
    _counts.operations[name] += 1


def _where():
    """The innermost line of the product that runs."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if "/dsfp_env/" in file or "/agents/" in file or file.endswith("train_agents.py"):
            return f"{'/'.join(file.split('/')[-2:])} {frame.f_code.co_name}:{frame.f_lineno}"
        frame = frame.f_back
    return "a test"
