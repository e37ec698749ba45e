"""A pruned network in one file, without pickle, that anyone can load who has the code of the original.

The file is safetensors: the weights and all buffers, and under the metadata key ``dsfp_env`` a JSON text:

    format        3
    task          name of the task that the network was cut from
    architecture  name and number of classes for `networks.make_network`, or null if that cannot make it
    layers        module path -> {"filters", "of", "ratio", "kept"}: how many filters stayed, of how many, the
                  fraction that is gone, and which stayed
    widths        module path -> attributes that say the new widths, for every module that has any
    extra_state   what modules gave as ``get_extra_state``, if any did and it is no tensor
    checksum      SHA-256 of the weights and of all of the above
    versions      of the packages that wrote it
    about         whatever the writer added
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import safetensors
import safetensors.torch
import torch
from msgspec import Meta, Struct
from torch import nn

from dsfp_env.channels.graph import ChannelGraph, Keep
from dsfp_env.channels.layers import Convolution, Weighted, kind_of, widths
from dsfp_env.channels.lent import unwrapped
from dsfp_env.common.errors import InputError
from dsfp_env.common.files import check_regular, write_whole
from dsfp_env.common.hashing import add_tensors
from dsfp_env.common.schemas import Hash, Natural, Positive, Share, Strict, read_json
from dsfp_env.networks import make_network
from dsfp_env.tasks.loading import load_task
from dsfp_env.tasks.task import Task

FORMAT = 3
_SIGNED = ("format", "task", "architecture", "layers", "widths")  # parts of the header under the checksum


class _Layer(Strict):
    filters: Positive
    of: Positive
    ratio: Share
    kept: Annotated[list[Natural], Meta(min_length=1)]


class _Header(Strict):
    """See the top of this file."""

    format: int
    task: str
    architecture: tuple[str, Positive] | None
    layers: dict[str, _Layer]
    widths: dict[str, dict[str, Positive]]
    checksum: Hash
    versions: dict[str, str]
    about: dict[str, Any]
    extra_state: dict[str, Any] | None = None


class _Format(Struct):
    """What every version of the header has."""

    format: int


def save_pruned(
    path: str | Path,
    network: nn.Module,
    keep: Keep,
    task: Task | ChannelGraph,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a pruned network.

    Args:
        path: The file, conventionally ``*.safetensors``.
        network: The slim network.
        keep: The filters it kept, by module path.
        task: The task whose original network it was cut from; or, if there is none, the channel graph of that
            network.
        about: More to store beside it; anything that JSON can say.

    Raises:
        InputError: If the file cannot be written.
    """
    network = unwrapped(network)
    graph, name, architecture = task, f"a {type(network).__name__}", None
    if isinstance(task, Task):
        graph, name, architecture = task.graph, task.name, task.architecture
    if not isinstance(graph, ChannelGraph):
        raise InputError(f"The task is a {type(task).__name__}: expected a dsfp_env.Task, or a ChannelGraph.")
    layers = graph.layers
    if isinstance(keep, Mapping) and (unknown := keep.keys() - layers.keys()):
        first = min(map(str, unknown))
        raise InputError(f"Task {name!r} has no prunable layer {first!r}: give the keep of this task.")
    keep = graph.kept(keep)
    try:
        _check_filters(network, {path: len(kept) for path, kept in keep.items()})
    except ValueError as error:
        raise InputError(
            f"The network has not kept these filters: {error}. Give the keep it was cut with."
        ) from error
    header: dict[str, Any] = {
        "format": FORMAT,
        "task": name,
        "architecture": architecture and list(architecture),
        "layers": _layers(graph, keep),
        "widths": _widths(network, graph),
    }
    state = _state_of(network)
    if extra := {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}:
        header["extra_state"] = _as_json(extra)
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    header["checksum"] = _checksum(header, tensors)
    header["versions"] = {
        "python": platform.python_version(),
        **{package: _version(package) for package in ("dsfp_env", "torch")},
    }
    try:
        header["about"] = json.loads(json.dumps(dict(about or {})))
    except (TypeError, ValueError) as error:
        raise InputError(f"What is to be stored beside the network cannot be written ({error}).") from error
    content = safetensors.torch.save(tensors, {"dsfp_env": json.dumps(header)})
    try:
        if not Path(path).parent.is_dir():
            raise FileNotFoundError(f"there is no folder {Path(path).parent}")
        write_whole(Path(path), lambda file: file.write(content))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} cannot be written ({error}): expected a path in a folder that exists, with room."
        ) from error


def load_pruned(path: str | Path, task: Task | None = None, network: nn.Module | None = None) -> nn.Module:
    """Read a pruned network, ready to use: on the CPU, in evaluation mode.

    Args:
        path: The file.
        task: The task it was cut from. If neither this nor ``network`` is given, the architecture is made by its
            name; or, if it has none, the task is loaded. A file cannot name code of your own for that.
        network: Instead of a task, a network of the original architecture, with any weights; it is left as it is.

    Raises:
        InputError: If the file is absent, damaged or not one of these, or does not fit the task or network.
    """
    header, tensors = read_pruned(path)
    if network is not None:
        what = f"this {type(network).__name__}"
    elif task is not None:
        network, what = task.network, f"task {task.name!r}"
    else:
        network, what = _named_network(path, header)
    slim = copy.deepcopy(unwrapped(network)).cpu()
    try:
        _set_state(slim, {**tensors, **header.get("extra_state", {})}, header["widths"])
        _check_filters(slim, {path: layer["filters"] for path, layer in header["layers"].items()})
        _check_filters(unwrapped(network), {path: layer["of"] for path, layer in header["layers"].items()})
    except ValueError as error:
        raise InputError(
            f"{path} was cut from task {header['task']!r} and does not fit {what}: {error}."
        ) from error
    return slim.eval()


def _named_network(path: str | Path, header: Mapping[str, Any]) -> tuple[nn.Module, str]:
    """The original architecture by the names in a file, and what it is, in words."""
    architecture = header["architecture"]
    name = architecture[0] if architecture else header["task"]
    if ":" in name:  # to import what a file says would be to run it
        raise InputError(
            f"{path} was cut from {name!r}, which is no network of this package: give the task "
            "it was cut from, or a network of its architecture, as load_pruned(path, network=...)."
        )
    if architecture:
        return make_network(*architecture), f"the network {name!r}"
    return load_task(name, device="cpu").network, f"task {name!r}"


def read_pruned(path: str | Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The header (see the top of this file) and the weights of a pruned network.

    Raises:
        InputError: If the file is absent, damaged or not one of these.
    """
    try:
        check_regular(path)
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {})["dsfp_env"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        version = read_json(text, _Format, "its header").format
        if version != FORMAT:
            raise ValueError(f"its format is {version}, and this version reads {FORMAT}")
        _check_layers(read_json(text, _Header, "its header"))
        header = json.loads(text)
        if header["checksum"] != _checksum(header, tensors):
            raise ValueError("its checksum does not match its content")
    except (OSError, safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is not a pruned network that can be read ({type(error).__name__}: {error}): expected a whole "
            "file written by dsfp_env.save_pruned."
        ) from error
    return header, tensors


def _layers(graph: ChannelGraph, keep: Keep) -> dict[str, dict[str, Any]]:
    """Module path -> what is told of a layer's filters; see the top of this file."""
    return {
        path: {
            "filters": len(kept),
            "of": graph.layers[path].out_channels,
            "ratio": 1 - len(kept) / graph.layers[path].out_channels,
            "kept": kept.tolist(),
        }
        for path, kept in keep.items()
    }


def _widths(network: nn.Module, graph: ChannelGraph) -> dict[str, dict[str, int]]:
    """Module path -> attributes that say the widths: of layers, and of the user's own modules where they do."""
    found = {path: widths(module) for path, module in network.named_modules()}
    for path, node in graph.nodes.items():
        found[path] |= {name: getattr(network.get_submodule(path), name) for name in node.counts}
    return {path: attributes for path, attributes in found.items() if attributes}


def _check_layers(header: _Header) -> None:
    """Refuse what its layers say of themselves if it cannot be."""
    for path, layer in header.layers.items():
        rising = all(first < second for first, second in zip(layer.kept, layer.kept[1:], strict=False))
        if not rising or layer.kept[-1] >= layer.of or layer.filters != len(layer.kept):
            expected = f"{layer.filters} rising numbers below {layer.of}"
            raise ValueError(f"the kept filters of {path!r} are not {expected}")
        if abs(layer.ratio - (1 - layer.filters / layer.of)) > 1e-9:
            raise ValueError(f"the ratio of {path!r} is {layer.ratio}, but {layer.filters} of {layer.of} stayed")


def _state_of(network: nn.Module) -> dict[str, Any]:
    """All that a network holds, by name: its state dict, and the buffers that are not in it."""
    buffers = dict(network.named_buffers(remove_duplicate=False))
    return {**buffers, **network.state_dict(keep_vars=True)}


def _as_json(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What modules keep by ``get_extra_state``, as it comes back from JSON."""
    try:
        return json.loads(json.dumps(extra))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"The extra state {next(iter(extra))!r} of the network cannot be written ({error}): expected what "
            "JSON can say from get_extra_state."
        ) from error


def _set_state(network: nn.Module, tensors: Mapping[str, Any], widths_of: Mapping[str, Mapping[str, int]]) -> None:
    """Make a network of full width one of the widths and with the state given, in place.

    Args:
        network: The network.
        tensors: Its new state, by name, as `_state_of` gives it; buffers that are no part of a state dict may be
            absent.
        widths_of: Module path -> what `widths` is to be.

    Raises:
        ValueError: If they do not fit the network.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    state, told = _state_of(network), network.state_dict().keys()
    if different := sorted((told - tensors.keys()) | (tensors.keys() - state.keys())):
        raise ValueError(f"{different[0]!r} is in only one of the two")
    for path, new in widths_of.items():
        if path not in modules or not _may_have(modules[path], new):
            raise ValueError(f"{path!r} is no layer of the same kind")
        for name, value in new.items():
            setattr(modules[path], name, value)
    _check_kinds(state, tensors)
    replaced: dict[int, nn.Parameter] = {}  # id of a parameter -> its successor; modules may share it
    for name, tensor in tensors.items():
        old = state[name]
        path, _, attribute = name.rpartition(".")
        if attribute == "_extra_state":
            modules[path].set_extra_state(tensor)
            continue
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name!r} is no tensor")
        if tensor.dim() != old.dim() or any(new > size for new, size in zip(tensor.shape, old.shape, strict=True)):
            raise ValueError(
                f"{name!r} has shape {tuple(tensor.shape)}, which cannot be cut from {tuple(old.shape)}"
            )
        if isinstance(old, nn.Parameter):
            tensor = replaced.setdefault(id(old), nn.Parameter(tensor, old.requires_grad))
        setattr(modules[path], attribute, tensor)
    for path, module in modules.items():
        kind = kind_of(module)
        if isinstance(kind, Weighted):
            shape, expected = tuple(kind.weight(module).shape), kind.weight_shape(module)
            if shape != expected:
                raise ValueError(f"the weight of {path!r} has shape {shape}, not {expected}")


def _check_kinds(state: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """See that tensors of one type are of one type again: integers remain, floats are as precise as each other.

    Raises:
        ValueError: If they are not.
    """
    became: dict[torch.dtype, torch.dtype] = {}
    for name, tensor in tensors.items():
        if not (isinstance(tensor, torch.Tensor) and isinstance(old := state[name], torch.Tensor)):
            continue
        precise = old.is_floating_point() and tensor.is_floating_point()
        if (not precise and tensor.dtype != old.dtype) or became.setdefault(
            old.dtype, tensor.dtype
        ) != tensor.dtype:
            raise ValueError(f"{name!r} is of {tensor.dtype}, and {became.get(old.dtype, old.dtype)} was expected")


def _may_have(module: nn.Module, attributes: Mapping[str, int]) -> bool:
    """Whether a module may get these widths: those of its kind, and numbers of its own, none above what it has."""
    own, of_kind = vars(module), widths(module).keys()
    return of_kind <= attributes.keys() and all(
        name in of_kind or (type(own.get(name)) is int and value <= own[name])
        for name, value in attributes.items()
    )


def _check_filters(network: nn.Module, filters: Mapping[str, int]) -> None:
    """See that layers have so many filters.

    Raises:
        ValueError: If one has not.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    for path, expected in filters.items():
        module: Any = modules.get(path)
        kind = None if module is None else kind_of(module)
        came = kind.out_width(module) if isinstance(kind, Convolution) else "no"
        if came != expected:
            raise ValueError(f"{path!r} has {came} filters, not {expected}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # run from a checkout


def _checksum(header: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    content = {name: header[name] for name in _SIGNED}
    content |= {name: header[name] for name in ("extra_state",) if name in header}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    add_tensors(digest, tensors)
    return digest.hexdigest()
