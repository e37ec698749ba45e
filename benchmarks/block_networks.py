"""Networks of the blocks that people prune today, written plainly: a stem, stages of one kind of block, a head.

Each is small but real: the block as published, at the widths of a published network. They need torch only. What
answers is always called ``head``. `NETWORKS` has them all by name:

- ``yolo``: C2f blocks (chunk, a list of bottlenecks, one concatenation), SPPF, a pyramid up and down, three maps;
- ``csp``: cross stage partial blocks, one half goes around the residual blocks;
- ``res2net``: the pieces of a split go through 3x3 convolutions one after another;
- ``repvgg``: before fusing, 3x3 + 1x1 + identity, each with its normalisation;
- ``hrnet``: branches of several resolutions, fused by sums;
- ``ghostnet``: ghost modules, half of their channels are made by a depthwise convolution; squeeze and excitation;
- ``unet``: skips are concatenated; answers a map;
- ``convnext_linear``, ``convnext_conv``: depthwise 7x7, LayerNorm over channels, four times wider inside, layer
  scale; the wide layers are linear or 1x1 convolutions;
- ``resnest``: split attention, softmax over the splits;
- ``mobilenetv4_conv``, ``mobilenetv4_hybrid``: universal inverted bottlenecks; with multi-query attention;
- ``shufflenet``: units of ShuffleNetV2 with a shuffle by view and transpose.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


def unit(
    inputs: int,
    filters: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution, normalisation, activation (none if ``act`` is None)."""
    convolution = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(filters), act() if act else nn.Identity())


class Classifier(nn.Module):
    """Features, their mean over the image, a linear head."""

    def __init__(self, features: nn.Module, width: int, classes: int = 1000) -> None:
        super().__init__()
        self.features, self.head = features, nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


# ---- YOLO


class Bottleneck(nn.Module):
    """Two 3x3 convolutions and, in the backbone, their input."""

    def __init__(self, width: int, add: bool) -> None:
        super().__init__()
        self.first, self.second, self.add = unit(width, width, act=nn.SiLU), unit(width, width, act=nn.SiLU), add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(self.first(x))
        return x + y if self.add else y


class C2f(nn.Module):
    """One half goes on as it is, the other through bottlenecks; all that came on the way is concatenated."""

    def __init__(self, inputs: int, filters: int, depth: int, add: bool = False) -> None:
        super().__init__()
        half = filters // 2
        self.enter = unit(inputs, 2 * half, 1, act=nn.SiLU)
        self.blocks = nn.ModuleList(Bottleneck(half, add) for _ in range(depth))
        self.leave = unit((2 + depth) * half, filters, 1, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            y.append(block(y[-1]))
        return self.leave(torch.cat(y, 1))


class SPPF(nn.Module):
    """Pooled once, twice and three times, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = unit(width, width // 2, 1, act=nn.SiLU), unit(2 * width, width, 1, act=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = [self.enter(x)]
        for _ in range(3):
            y.append(self.pool(y[-1]))
        return self.leave(torch.cat(y, 1))


class Detector(nn.Module):
    """Two branches, boxes and classes, to one map."""

    def __init__(self, inputs: int, boxes: int, classes: int) -> None:
        super().__init__()
        self.boxes = nn.Sequential(unit(inputs, boxes, act=nn.SiLU), unit(boxes, boxes, act=nn.SiLU))
        self.classes = nn.Sequential(unit(inputs, classes, act=nn.SiLU), unit(classes, classes, act=nn.SiLU))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.boxes(x), self.classes(x)


class YOLO(nn.Module):
    """Backbone, pyramid and decoupled heads as in YOLOv8; ``n`` has width 16."""

    def __init__(self, width: int = 16, classes: int = 80) -> None:
        super().__init__()
        w, down = [width * 2**i for i in range(5)], {"stride": 2, "act": nn.SiLU}
        self.stem = nn.Sequential(unit(3, w[0], **down), unit(w[0], w[1], **down), C2f(w[1], w[1], 1, True))
        self.stage3 = nn.Sequential(unit(w[1], w[2], **down), C2f(w[2], w[2], 2, True))
        self.stage4 = nn.Sequential(unit(w[2], w[3], **down), C2f(w[3], w[3], 2, True))
        self.stage5 = nn.Sequential(unit(w[3], w[4], **down), C2f(w[4], w[4], 1, True), SPPF(w[4]))
        self.up4, self.up3 = C2f(w[4] + w[3], w[3], 1), C2f(w[3] + w[2], w[2], 1)
        self.down3, self.out4 = unit(w[2], w[2], **down), C2f(w[2] + w[3], w[3], 1)
        self.down4, self.out5 = unit(w[3], w[3], **down), C2f(w[3] + w[4], w[4], 1)
        boxes, middle = 4 * width, max(4 * width, classes)
        self.detectors = nn.ModuleList(Detector(inputs, boxes, middle) for inputs in w[2:])
        self.head = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(boxes, 64, 1), nn.Conv2d(middle, classes, 1)]) for _ in w[2:]
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        p3 = self.stage3(self.stem(x))
        p4 = self.stage4(p3)
        p5 = self.stage5(p4)
        up4 = self.up4(torch.cat([F.interpolate(p5, scale_factor=2.0), p4], 1))
        out3 = self.up3(torch.cat([F.interpolate(up4, scale_factor=2.0), p3], 1))
        out4 = self.out4(torch.cat([self.down3(out3), up4], 1))
        out5 = self.out5(torch.cat([self.down4(out4), p5], 1))
        answers = []
        for detector, heads, level in zip(self.detectors, self.head, (out3, out4, out5), strict=True):
            answers.append(torch.cat([head(y) for head, y in zip(heads, detector(level), strict=True)], 1))
        return answers


# ---- CSP


class Residual(nn.Module):
    """1x1, then 3x3, plus the input, as in Darknet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = unit(width, width, 1, act=nn.LeakyReLU), unit(width, width, act=nn.LeakyReLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(self.first(x))


class CSPStage(nn.Module):
    """Down, wider, split in halves: one through residual blocks and a transition, both concatenated."""

    def __init__(self, inputs: int, filters: int, depth: int) -> None:
        super().__init__()
        self.half = filters // 2
        self.down = unit(inputs, filters, stride=2, act=nn.LeakyReLU)
        self.enter = unit(filters, filters, 1, act=nn.LeakyReLU)
        self.blocks = nn.Sequential(*(Residual(self.half) for _ in range(depth)))
        self.transition = unit(self.half, self.half, 1, act=nn.LeakyReLU)
        self.leave = unit(filters, filters, 1, act=nn.LeakyReLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        around, through = self.enter(self.down(x)).split(self.half, 1)
        return self.leave(torch.cat([around, self.transition(self.blocks(through))], 1))


def csp(width: int = 32) -> Classifier:
    """As CSPDarknet53, of which it has four of five stages."""
    w = [width * 2**i for i in range(5)]
    stages = [CSPStage(w[i], w[i + 1], depth) for i, depth in enumerate((1, 2, 4, 2))]
    return Classifier(nn.Sequential(unit(3, width, act=nn.LeakyReLU), *stages), w[4])


# ---- Res2Net


class Res2Block(nn.Module):
    """A bottleneck whose 3x3 convolution is ``scale - 1`` small ones, each of which also gets what came before."""

    def __init__(self, inputs: int, filters: int, piece: int, scale: int = 4, stride: int = 1) -> None:
        super().__init__()
        self.piece, self.first_of_stage = piece, inputs != filters or stride > 1
        self.enter = unit(inputs, scale * piece, 1)
        self.pieces = nn.ModuleList(unit(piece, piece, stride=stride) for _ in range(scale - 1))
        self.pool = nn.AvgPool2d(3, stride, 1)
        self.leave = unit(scale * piece, filters, 1, act=None)
        self.shortcut = unit(inputs, filters, 1, stride, act=None) if self.first_of_stage else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pieces = torch.split(self.enter(x), self.piece, 1)
        y: list[torch.Tensor] = []
        for convolution, piece in zip(self.pieces, pieces, strict=False):
            y.append(convolution(piece if self.first_of_stage or not y else piece + y[-1]))
        y.append(self.pool(pieces[-1]) if self.first_of_stage else pieces[-1])
        return F.relu(self.leave(torch.cat(y, 1)) + self.shortcut(x))


def res2net(width: int = 64) -> Classifier:
    """Three stages of Res2Net-50 26w x 4s."""
    features, inputs = [unit(3, width, 7, 2), nn.MaxPool2d(3, 2, 1)], width
    for stage, depth in enumerate((3, 4, 3)):
        filters, piece = 4 * width * 2**stage, width * 2**stage * 26 // 64
        for i in range(depth):
            features.append(Res2Block(inputs, filters, piece, stride=2 if stage and not i else 1))
            inputs = filters
    return Classifier(nn.Sequential(*features), inputs)


# ---- RepVGG


class RepVGGBlock(nn.Module):
    """3x3 + 1x1 + identity, each normalised, before they are fused into one convolution."""

    def __init__(self, inputs: int, filters: int, stride: int = 1) -> None:
        super().__init__()
        self.large = unit(inputs, filters, 3, stride, act=None)
        self.small = unit(inputs, filters, 1, stride, act=None)
        self.identity = nn.BatchNorm2d(inputs) if inputs == filters and stride == 1 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.large(x) + self.small(x)
        return F.relu(y if self.identity is None else y + self.identity(x))


def repvgg(width: int = 48) -> Classifier:
    """RepVGG-A0: 48 filters to 192, then 1280."""
    features, inputs = [RepVGGBlock(3, width, 2)], width
    for stage, depth in enumerate((2, 4, 14)):
        for i in range(depth):
            features.append(RepVGGBlock(inputs, width * 2**stage, 1 if i else 2))
            inputs = width * 2**stage
    last = width * 80 // 3
    return Classifier(nn.Sequential(*features, RepVGGBlock(inputs, last, 2)), last)


# ---- HRNet


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = unit(width, width), unit(width, width, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.second(self.first(x)) + x)


class Exchange(nn.Module):
    """Blocks on every branch; then each branch becomes the sum of all, brought to its resolution and width."""

    def __init__(self, widths: Sequence[int], depth: int = 2) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w) for _ in range(depth))) for w in widths)
        self.ways = nn.ModuleList(
            nn.ModuleList(self._way(widths, i, j) for j in range(len(widths))) for i in range(len(widths))
        )

    @staticmethod
    def _way(widths: Sequence[int], to: int, of: int) -> nn.Module:
        if to == of:
            return nn.Identity()
        if of > to:
            up = nn.Upsample(scale_factor=2 ** (of - to), mode="nearest")
            return nn.Sequential(unit(widths[of], widths[to], 1, act=None), up)
        steps = [unit(widths[of], widths[of], stride=2) for _ in range(to - of - 1)]
        return nn.Sequential(*steps, unit(widths[of], widths[to], stride=2, act=None))

    def forward(self, x: list[torch.Tensor]) -> list[torch.Tensor]:
        x = [branch(one) for branch, one in zip(self.branches, x, strict=True)]
        answers = []
        for ways in self.ways:
            y = ways[0](x[0])
            for way, one in zip(ways[1:], x[1:], strict=True):
                y = y + way(one)
            answers.append(F.relu(y))
        return answers


class HRNet(nn.Module):
    """HRNet-W18 of three branches; all of them, enlarged and concatenated, make the features (HRNetV2)."""

    def __init__(self, width: int = 18, classes: int = 1000) -> None:
        super().__init__()
        w, stem = [width, 2 * width, 4 * width], 4 * width
        self.stem = nn.Sequential(unit(3, stem, stride=2), unit(stem, stem, stride=2), BasicBlock(stem))
        self.to2 = nn.ModuleList([unit(stem, w[0]), unit(stem, w[1], stride=2)])
        self.stage2 = Exchange(w[:2])
        self.to3 = unit(w[1], w[2], stride=2)
        self.stage3 = nn.ModuleList([Exchange(w), Exchange(w)])
        self.last, self.head = unit(sum(w), 20 * width, 1), nn.Linear(20 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.stage2([to(x) for to in self.to2])
        y = [*y, self.to3(y[-1])]
        for exchange in self.stage3:
            y = exchange(y)
        size = y[0].shape[2:]
        y = [y[0], *(F.interpolate(one, size=size, mode="bilinear", align_corners=False) for one in y[1:])]
        return self.head(self.last(torch.cat(y, 1)).mean((2, 3)))


# ---- GhostNet


class Ghost(nn.Module):
    """Half of the channels by a convolution, the others from them by a cheap depthwise one."""

    def __init__(self, inputs: int, filters: int, act: Callable[[], nn.Module] | None = nn.ReLU) -> None:
        super().__init__()
        self.filters, half = filters, -(-filters // 2)
        self.primary = unit(inputs, half, 1, act=act)
        self.cheap = unit(half, half, 3, groups=half, act=act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)[:, : self.filters]


class SqueezeExcitation(nn.Module):
    """A gate for every channel, from the means of all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = max(4, width // 4)
        self.reduce, self.expand = nn.Conv2d(width, inner, 1), nn.Conv2d(inner, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class GhostBottleneck(nn.Module):
    """Ghost module, depthwise convolution where it strides, gate, ghost module, shortcut."""

    def __init__(self, inputs: int, inner: int, filters: int, kernel: int, stride: int, gate: bool) -> None:
        super().__init__()
        self.enter = Ghost(inputs, inner)
        self.down = unit(inner, inner, kernel, stride, inner, act=None) if stride > 1 else nn.Identity()
        self.gate = SqueezeExcitation(inner) if gate else nn.Identity()
        self.leave = Ghost(inner, filters, act=None)
        self.shortcut = (
            nn.Identity()
            if inputs == filters and stride == 1
            else nn.Sequential(
                unit(inputs, inputs, kernel, stride, inputs, act=None), unit(inputs, filters, 1, act=None)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(self.gate(self.down(self.enter(x)))) + self.shortcut(x)


def ghostnet(width: int = 16) -> Classifier:
    """GhostNet 1.0 without the repetitions of its last stages; widths in eighths of the first."""
    rows = [  # inner width, width, kernel, stride, gate
        (8, 8, 3, 1, False), (24, 12, 3, 2, False), (36, 12, 3, 1, False), (36, 20, 5, 2, True),
        (60, 20, 5, 1, True), (120, 40, 3, 2, False), (100, 40, 3, 1, False), (240, 56, 3, 1, True),
        (336, 80, 5, 2, True), (480, 80, 5, 1, True),
    ]  # fmt: skip
    features, inputs = [unit(3, width, stride=2)], width
    for inner, filters, kernel, stride, gate in rows:
        inner, filters = inner * width // 8, filters * width // 8
        features.append(GhostBottleneck(inputs, inner, filters, kernel, stride, gate))
        inputs = filters
    return Classifier(nn.Sequential(*features, unit(inputs, 60 * width, 1)), 60 * width)


# ---- U-Net


class UNet(nn.Module):
    """Four times down and up again; answers a map of classes of the image's size."""

    def __init__(self, width: int = 32, classes: int = 21) -> None:
        super().__init__()
        w = [width * 2**i for i in range(5)]
        self.downs = nn.ModuleList(self._twice(a, b) for a, b in zip([3, *w[:-1]], w, strict=True))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(2 * one, one, 2, 2) for one in w[-2::-1])
        self.joins = nn.ModuleList(self._twice(2 * one, one) for one in w[-2::-1])
        self.head = nn.Conv2d(width, classes, 1)

    @staticmethod
    def _twice(inputs: int, filters: int) -> nn.Sequential:
        return nn.Sequential(unit(inputs, filters), unit(filters, filters))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for i, down in enumerate(self.downs):
            x = down(F.max_pool2d(x, 2) if i else x)
            skips.append(x)
        for up, join, skip in zip(self.ups, self.joins, skips[-2::-1], strict=True):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


# ---- ConvNeXt


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, four times wider, back, layer scale; plus the input."""

    def __init__(self, width: int, linear: bool) -> None:
        super().__init__()
        self.linear = linear
        self.spatial = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6) if linear else ChannelNorm(width, eps=1e-6)
        self.wide = nn.Linear(width, 4 * width) if linear else nn.Conv2d(width, 4 * width, 1)
        self.narrow = nn.Linear(4 * width, width) if linear else nn.Conv2d(4 * width, width, 1)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.spatial(x)
        if self.linear:
            y = self.narrow(F.gelu(self.wide(self.norm(y.permute(0, 2, 3, 1)))))
            return x + (self.scale * y).permute(0, 3, 1, 2)
        return x + self.scale[:, None, None] * self.narrow(F.gelu(self.wide(self.norm(y))))


def convnext(width: int = 40, linear: bool = True) -> Classifier:
    """ConvNeXt Atto: 40 channels to 320."""
    features: list[nn.Module] = [nn.Conv2d(3, width, 4, 4), ChannelNorm(width, eps=1e-6)]
    for stage, depth in enumerate((2, 2, 6, 2)):
        own = width * 2**stage
        if stage:
            features += [ChannelNorm(own // 2, eps=1e-6), nn.Conv2d(own // 2, own, 2, 2)]
        features += [ConvNeXtBlock(own, linear) for _ in range(depth)]
    return Classifier(nn.Sequential(*features), own)


# ---- ResNeSt


class SplitAttention(nn.Module):
    """A convolution in groups makes ``radix`` splits; a softmax says how much of each goes into their sum."""

    def __init__(self, width: int, radix: int = 2, cardinality: int = 1) -> None:
        super().__init__()
        self.radix, self.cardinality, inner = radix, cardinality, max(32, width * radix // 4)
        self.splits = unit(width, width * radix, groups=cardinality * radix)
        self.reduce, self.norm = nn.Conv2d(width, inner, 1, groups=cardinality), nn.BatchNorm2d(inner)
        self.expand = nn.Conv2d(inner, width * radix, 1, groups=cardinality)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.splits(x)
        n, channels = y.shape[:2]
        y = y.reshape(n, self.radix, channels // self.radix, *y.shape[2:])
        gates = self.expand(F.relu(self.norm(self.reduce(y.sum(1).mean((2, 3), keepdim=True)))))
        gates = gates.view(n, self.cardinality, self.radix, -1).transpose(1, 2).softmax(1)
        return (y * gates.reshape(n, self.radix, channels // self.radix, 1, 1)).sum(1)


class ResNeStBlock(nn.Module):
    """A bottleneck with split attention; it strides by pooling."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.enter, self.attend = unit(inputs, width, 1), SplitAttention(width)
        self.pool = nn.AvgPool2d(3, stride, 1) if stride > 1 else nn.Identity()
        self.leave = unit(width, 4 * width, 1, act=None)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != 4 * width or stride > 1:
            pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
            self.shortcut = nn.Sequential(pool, unit(inputs, 4 * width, 1, act=None))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.leave(self.pool(self.attend(self.enter(x)))) + self.shortcut(x))


def resnest(width: int = 64) -> Classifier:
    """Three stages of ResNeSt-50, with its deep stem."""
    half = width // 2
    features = [unit(3, half, stride=2), unit(half, half), unit(half, width), nn.MaxPool2d(3, 2, 1)]
    inputs = width
    for stage, depth in enumerate((3, 4, 3)):
        own = width * 2**stage
        for i in range(depth):
            features.append(ResNeStBlock(inputs, own, 2 if stage and not i else 1))
            inputs = 4 * own
    return Classifier(nn.Sequential(*features), inputs)


# ---- MobileNetV4


class InvertedBottleneck(nn.Module):
    """The universal one: a depthwise convolution before it widens, inside, both, or none (kernel 0)."""

    def __init__(
        self, inputs: int, filters: int, before: int, inside: int, stride: int = 1, wider: int = 4
    ) -> None:
        super().__init__()
        inner = inputs * wider
        self.before = (
            unit(inputs, inputs, before, 1 if inside else stride, inputs, None) if before else nn.Identity()
        )
        self.widen = unit(inputs, inner, 1)
        self.inside = unit(inner, inner, inside, stride, inner) if inside else nn.Identity()
        self.narrow = unit(inner, filters, 1, act=None)
        self.add = inputs == filters and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.narrow(self.inside(self.widen(self.before(x))))
        return x + y if self.add else y


class MultiQueryAttention(nn.Module):
    """Heads have queries of their own and share keys and values, of half the resolution."""

    def __init__(self, width: int, heads: int, size: int) -> None:
        super().__init__()
        self.heads, self.size = heads, size
        self.norm = nn.BatchNorm2d(width)
        self.query = nn.Conv2d(width, heads * size, 1, bias=False)
        self.key_down, self.value_down = (unit(width, width, 3, 2, width, None) for _ in range(2))
        self.key, self.value = (nn.Conv2d(width, size, 1, bias=False) for _ in range(2))
        self.project = nn.Conv2d(heads * size, width, 1, bias=False)
        self.scale = nn.Parameter(torch.full((width, 1, 1), 0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        query = self.query(y).reshape(len(y), self.heads, self.size, -1)
        key, value = self.key(self.key_down(y)).flatten(2), self.value(self.value_down(y)).flatten(2)
        weights = (torch.einsum("nhdp,ndm->nhpm", query, key) * self.size**-0.5).softmax(-1)
        mixed = torch.einsum("nhpm,ndm->nhdp", weights, value)
        return x + self.scale * self.project(mixed.reshape(len(y), -1, *y.shape[2:]))


def mobilenetv4(width: int = 32, attention: bool = False) -> Classifier:
    """As MobileNetV4 Medium: fused stem, then universal inverted bottlenecks, with attention in the hybrid."""
    w = [width, 3 * width // 2, 5 * width // 2, 5 * width]
    features = [unit(3, w[0], stride=2), unit(w[0], 4 * w[0], stride=2), unit(4 * w[0], w[1], 1, act=None)]
    features += [InvertedBottleneck(w[1], w[2], 3, 5, 2), InvertedBottleneck(w[2], w[2], 3, 3)]
    features += [InvertedBottleneck(w[2], w[3], 3, 5, 2, 6), InvertedBottleneck(w[3], w[3], 3, 3)]
    features += [InvertedBottleneck(w[3], w[3], 3, 5)]
    for before, inside in ((3, 0), (0, 3), (0, 0)):
        if attention:
            features.append(MultiQueryAttention(w[3], 4, 2 * width))
        features.append(InvertedBottleneck(w[3], w[3], before, inside))
    return Classifier(nn.Sequential(*features, unit(w[3], 30 * width, 1)), 30 * width)


# ---- ShuffleNetV2


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """Channels of the two halves by turns."""
    n, channels, height, width = x.shape
    return x.view(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


class ShuffleUnit(nn.Module):
    """One half goes around, or both halves stride."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__()
        half, self.stride = filters // 2, stride
        own = inputs if stride > 1 else half
        self.main = nn.Sequential(unit(own, half, 1), unit(half, half, 3, stride, half, None), unit(half, half, 1))
        self.side = (
            nn.Sequential(unit(inputs, inputs, 3, 2, inputs, None), unit(inputs, half, 1)) if stride > 1 else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride > 1:
            return shuffled(torch.cat([self.side(x), self.main(x)], 1))
        around, through = x.chunk(2, 1)
        return shuffled(torch.cat([around, self.main(through)], 1))


def shufflenet(width: int = 116) -> Classifier:
    """ShuffleNetV2 1.0."""
    inputs = max(4, width * 24 // 116)
    features = [unit(3, inputs, stride=2), nn.MaxPool2d(3, 2, 1)]
    for stage, depth in enumerate((4, 8, 4)):
        own = width * 2**stage
        for i in range(depth):
            features.append(ShuffleUnit(inputs, own, 1 if i else 2))
            inputs = own
    return Classifier(nn.Sequential(*features, unit(inputs, 1024, 1)), 1024)


@dataclass(frozen=True)
class Network:
    """How to make one."""

    make: Callable[..., nn.Module]  # with a width, or none for that of the published network
    narrow: int  # a width for tests
    size: int = 224  # of an image


NETWORKS = {
    "yolo": Network(YOLO, 4, 320),
    "csp": Network(csp, 4),
    "res2net": Network(res2net, 8),
    "repvgg": Network(repvgg, 6),
    "hrnet": Network(HRNet, 4),
    "ghostnet": Network(ghostnet, 4),
    "unet": Network(UNet, 4),
    "convnext_linear": Network(convnext, 8),
    "convnext_conv": Network(lambda *width: convnext(*width, linear=False), 8),
    "resnest": Network(resnest, 8),
    "mobilenetv4_conv": Network(mobilenetv4, 4),
    "mobilenetv4_hybrid": Network(lambda *width: mobilenetv4(*width, attention=True), 4),
    "shufflenet": Network(shufflenet, 8),
}


def settled(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """In evaluation mode, with slopes, shifts and statistics that are not all alike, as after training."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d | nn.LayerNorm)]
    for module in norms:
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias, 0, 0.1)
    batch_norms = [module for module in norms if isinstance(module, nn.BatchNorm2d)]
    for module in batch_norms:
        module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    for module in batch_norms:
        module.momentum = 0.1
    return network.eval()
