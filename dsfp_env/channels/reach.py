"""Which convolutions run, but in vain: nothing that they write reaches the outputs of the network.

So it is with a wrapper that returns ``network(images)["out"]`` and drops the other heads. The labels tell who may
be one of them; then the network runs with NaN in place of what the convolution writes, and if no output hears of
it, that is so.
"""

from __future__ import annotations

import torch
from torch import nn

from dsfp_env.channels.coupling import Classes
from dsfp_env.channels.lent import Example
from dsfp_env.channels.tracing import Trace, share_parameters, tensors_of


def unheard(network: nn.Module, example: Example, trace: Trace, classes: Classes) -> set[str]:
    """Module paths of convolutions that run in evaluation mode, and do not matter to any output.

    Args:
        network: The network that was traced.
        example: That it was traced with.
        trace: Of the network.
        classes: Of its channels.
    """
    heard = _heard(trace, classes)
    convolutions = [path for path in trace.positions if classes.nodes[path].is_convolution]
    doubtful = [path for path in convolutions if not heard & set(classes.nodes[path].out_class.tolist())]
    return {path for path in doubtful if not _comes_out(network, example, path)}


def _heard(trace: Trace, classes: Classes) -> set[int]:
    """Classes that reach an output, as far as labels tell: back from there, layer by layer."""
    heard = set(classes.of_label[trace.outputs.long()].tolist())
    while True:
        before = len(heard)
        for node in classes.nodes.values():
            if heard & set(node.out_class.tolist()):
                heard |= set(node.in_class.tolist())
        if len(heard) == before:
            return heard


@torch.no_grad()
def _comes_out(network: nn.Module, example: Example, path: str) -> bool:
    """Whether NaN in what a module writes is heard in an output."""
    skeleton = share_parameters(network)
    skeleton.get_submodule(path).register_forward_hook(lambda module, inputs, output: output * torch.nan)
    try:
        outputs = tensors_of(example.copied().run(skeleton))
    except (ValueError, IndexError, AssertionError):  # somebody looks at what it writes
        return True
    return any(bool(one.isnan().any()) for one in outputs if one.is_floating_point())
