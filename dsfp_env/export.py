"""Out of Python: a (pruned) network as a `torch.export` program or as an ONNX file, for any batch size.

ONNX needs the extra ``pip install 'dsfp_env[onnx]'``.
"""

from __future__ import annotations

import copy
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dsfp_env.common.errors import InputError
from dsfp_env.common.machine_errors import raise_if_of_the_machine


def export_program(network: nn.Module, example_input: torch.Tensor) -> torch.export.ExportedProgram:
    """Export a network in evaluation mode with `torch.export`.

    Args:
        network: The network; it is left as it is.
        example_input: One or more images ``[N, C, ...]``; all but N is fixed.

    Raises:
        InputError: If torch cannot export it.
    """
    network, image = _ready(network, example_input)
    try:
        return torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # whatever torch.export raises
        raise_if_of_the_machine(error, f"exporting {type(network).__name__}", "the example image")
        raise InputError(
            f"{type(network).__name__} cannot be exported ({error}): expected a network that torch.export accepts."
        ) from error


def export_onnx(path: str | Path, network: nn.Module, example_input: torch.Tensor) -> None:
    """Write a network in evaluation mode as ONNX; the input is called ``images``, the output ``logits``.

    Args:
        path: The file, conventionally ``*.onnx``.
        network: The network; it is left as it is.
        example_input: One or more images ``[N, C, ...]``; all but N is fixed.

    Raises:
        InputError: If the extra is not installed, or torch cannot export the network.
    """
    check_onnx()
    network, image = _ready(network, example_input)
    exporters: list[dict[str, Any]] = [
        {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch", min=1)},)},
        {"dynamo": False, "dynamic_axes": {"images": {0: "batch"}, "logits": {0: "batch"}}},  # for torch 2.6
    ]
    errors = []
    for options in exporters:
        options |= {
            "input_names": ["images"],
            "output_names": ["logits"],
            "external_data": False,
            "verbose": False,
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about torch's own insides
                torch.onnx.export(network, (image,), str(path), **options)
            return
        except Exception as error:  # whatever an exporter raises
            raise_if_of_the_machine(error, f"exporting {type(network).__name__}", "the example image")
            errors.append(error)
    raise InputError(
        f"{type(network).__name__} cannot be written to {path} as ONNX ({errors[0]}): expected a network that "
        "torch.export accepts, and a path in a folder that exists."
    ) from errors[0]


def check_onnx() -> None:
    """Refuse to write ONNX files without what that needs.

    Raises:
        InputError: If the extra is not installed.
    """
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"ONNX files need the package(s) {', '.join(missing)}: install them with pip install 'dsfp_env[onnx]'."
        )


def _ready(network: nn.Module, example_input: torch.Tensor) -> tuple[nn.Module, torch.Tensor]:
    """A copy in evaluation mode, and two images: with one alone, torch takes the batch size for fixed."""
    network = copy.deepcopy(network).eval()
    device = next(network.parameters()).device
    return network, torch.cat([example_input[:1], example_input[:1]]).to(device)
