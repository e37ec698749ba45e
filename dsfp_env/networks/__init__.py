"""The networks that tasks are made of.

| network      | convolutions                                        | filters | parameters | MACs          |
|--------------|-----------------------------------------------------|---------|------------|---------------|
| `digits_net` | 16, 32, M, 32, 64                                   | 144     | 33 338     | 747 136       |
| `alexnet`    | 64, M, 192, M, 384, 2 x 256, M                      | 1 152   | 6 976 842  | 171 643 904   |
| `alexnet_bn` | the same with batch normalisation                   | 1 152   | 6 979 146  | 171 643 904   |
| `small_vgg`  | 2 x 16, M, 2 x 32, M, 2 x 64                        | 224     | 73 178     | 9 880 192     |
| `vgg16`      | 2 x 64, M, 2 x 128, M, 3 x 256, M, twice 3 x 512, M | 4 224   | 14 848 586 | 313 330 176   |
| `vgg16_bn`   | the same with batch normalisation                   | 4 224   | 14 857 034 | 313 330 176   |
| `vgg16_dcff` | the same without a hidden linear layer              | 4 224   | 14 728 266 | 313 201 664   |
| `resnet20`   | 7 x 16, 6 x 32, 6 x 64                              | 688     | 269 722    | 40 551 040    |
| `resnet32`   | 11 x 16, 10 x 32, 10 x 64                           | 1 136   | 464 154    | 68 862 592    |
| `resnet56`   | 19 x 16, 18 x 32, 18 x 64                           | 2 032   | 853 018    | 125 485 696   |
| `resnet110`  | 37 x 16, 36 x 32, 36 x 64                           | 4 048   | 1 727 962  | 252 887 680   |
| `googlenet`  | 192, and 9 inception modules of 7                   | 7 904   | 6 166 250  | 1 521 756 160 |

M: 2x2 max pooling, n x c: n convolutions of c filters; parameters and MACs with 10 classes and images of 3x32x32
pixels (digits: 1x8x8); a test checks the table. Beside these,
`make_network` knows every classification model of torchvision by its name; ``torchvision.vgg16`` is theirs where
both have one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from dsfp_env.common.choices import choose
from dsfp_env.networks.googlenet import CifarGoogLeNet as CifarGoogLeNet
from dsfp_env.networks.googlenet import googlenet
from dsfp_env.networks.plain import DigitsNet as DigitsNet
from dsfp_env.networks.plain import PlainNet as PlainNet
from dsfp_env.networks.plain import alexnet, alexnet_bn, digits_net, small_vgg, vgg16, vgg16_bn, vgg16_dcff
from dsfp_env.networks.resnet import CifarResNet as CifarResNet
from dsfp_env.networks.resnet import resnet20, resnet32, resnet56, resnet110

NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "digits_net": digits_net,
    "alexnet": alexnet,
    "alexnet_bn": alexnet_bn,
    "small_vgg": small_vgg,
    "vgg16": vgg16,
    "vgg16_bn": vgg16_bn,
    "vgg16_dcff": vgg16_dcff,
    "resnet20": resnet20,
    "resnet32": resnet32,
    "resnet56": resnet56,
    "resnet110": resnet110,
    "googlenet": googlenet,
}


def make_network(name: str, num_classes: int = 10) -> nn.Module:
    """A network with random weights, by name.

    Args:
        name: A key of `NETWORKS` (a dash counts as an underscore), a classification model of torchvision such as
            ``"resnet18"`` or ``"torchvision.vgg16"``, or ``"package.module:function"`` of ``(num_classes)``.
        num_classes: Logits.

    Raises:
        InputError: If there is no such network.
    """
    return _maker(name)(num_classes)


def check_network(name: str) -> None:
    """Refuse a name that `make_network` does not know.

    Raises:
        InputError: If there is no such network.
    """
    _maker(name)


def _maker(name: str) -> Callable[[int], nn.Module]:
    plain = name if ":" in name else name.replace("-", "_")
    if plain not in NETWORKS and ":" not in plain:
        import torchvision  # takes seconds

        if (theirs := plain.removeprefix("torchvision.")) in torchvision.models.list_models(torchvision.models):
            return _from_torchvision(theirs)
    return choose("network of this package or torchvision", plain, NETWORKS, importable=True)


def _from_torchvision(name: str) -> Callable[[int], nn.Module]:
    import torchvision

    def make(num_classes: int) -> nn.Module:
        # Auxiliary heads would make logits something else in training mode.
        special = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
        return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **special)

    return make
