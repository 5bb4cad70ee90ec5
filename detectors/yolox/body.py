"""Backbone, neck and head: everything between pixels and raw predictions.

CSPDarknet, a path-aggregation network, and a decoupled head with a branch for classes and one for
box and objectness. Layers run in the order of the published code, so a file made of it can be read
by order (`folded`).

Source: Ge et al., "YOLOX" (arXiv 2107.08430), sections 2.1-2.3, and its published code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmnet.core.records import Size as ImageSize
from dmnet.detectors.yolox.blocks import Block, Conv, CspLayer, Focus, Spp, depthwise, plain

STRIDES = (8, 16, 32)
PRIOR = 0.01
"""Objectness and class scores start here."""


@dataclass(frozen=True)
class Size:
    """What distinguishes the sizes."""

    depth: float
    """factor of the bottlenecks, of which a stage has 3 or 9"""
    width: float
    """factor of the channels, of which the stem has 64 and the head 256"""
    depthwise: bool = False
    """3x3 convolutions a channel, followed by 1x1"""

    @property
    def block(self) -> Block:
        """The 3x3 convolution of this size."""
        return depthwise if self.depthwise else plain

    def repeats(self, count: int) -> int:
        """Bottlenecks of a stage of ``count``, at least a third of it."""
        return max(1, round(self.depth * 3)) * count // 3

    def channels(self, count: int) -> int:
        """Channels of a layer of ``count``."""
        return int(self.width * count)


SIZES: dict[str, Size] = {
    "yolox-nano": Size(0.33, 0.25, depthwise=True),
    "yolox-tiny": Size(0.33, 0.375),
    "yolox-s": Size(0.33, 0.50),
}
"""Name -> size."""


class Outputs(NamedTuple):
    """Raw predictions of a batch; A cells of all levels together, level by level, row by row."""

    logits: Tensor
    """``[B, A, classes]``."""

    objectness: Tensor
    """``[B, A]``, before the sigmoid."""

    boxes: Tensor
    """``[B, A, 4]`` centre from the cell's corner, and logarithm of width and height, in strides.
    """

    grids: tuple[ImageSize, ...]
    """Rows and columns of each level."""


class Darknet(nn.Module):
    """CSPDarknet: stem at stride 2, then four stages."""

    def __init__(self, size: Size) -> None:
        """Make the stages of a size."""
        super().__init__()
        wide = [size.channels(count) for count in (64, 128, 256, 512, 1024)]
        self.stem = Focus(wide[0])
        stages = []
        for i, count in enumerate((3, 9, 9, 3)):
            cin, cout, last = wide[i], wide[i + 1], i == 3
            pool = [Spp(cout)] if last else []
            csp = CspLayer(cout, cout, size.repeats(count), size.block, shortcut=not last)
            stages.append(nn.Sequential(size.block(cin, cout, 2), *pool, csp))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` -> features at strides 4, 8, 16, 32."""
        x, features = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Pafpn(nn.Module):
    """Down from stride 32 to 8 by nearest neighbours, and up again by strided convolutions."""

    def __init__(self, size: Size) -> None:
        """Make both ways."""
        super().__init__()
        c3, c4, c5 = (size.channels(count) for count in (256, 512, 1024))
        block, count = size.block, size.repeats(3)
        self.reduce5 = Conv(c5, c4)
        self.down4 = CspLayer(2 * c4, c4, count, block, shortcut=False)
        self.reduce4 = Conv(c4, c3)
        self.down3 = CspLayer(2 * c3, c3, count, block, shortcut=False)
        self.stride3 = block(c3, c3, 2)
        self.up4 = CspLayer(2 * c3, c4, count, block, shortcut=False)
        self.stride4 = block(c4, c4, 2)
        self.up5 = CspLayer(2 * c4, c5, count, block, shortcut=False)

    def forward(self, c3: Tensor, c4: Tensor, c5: Tensor) -> list[Tensor]:
        """Features at strides 8, 16, 32, in and out."""
        f5 = self.reduce5(c5)
        f4 = self.reduce4(self.down4(torch.cat([doubled(f5), c4], 1)))
        p3 = self.down3(torch.cat([doubled(f4), c3], 1))
        p4 = self.up4(torch.cat([self.stride3(p3), f4], 1))
        p5 = self.up5(torch.cat([self.stride4(p4), f5], 1))
        return [p3, p4, p5]


def doubled(x: Tensor) -> Tensor:
    """Twice the rows and columns, by nearest neighbours."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


class Level(nn.Module):
    """The decoupled head of one level."""

    def __init__(self, cin: int, channels: int, classes: int, block: Block) -> None:
        """Two 3x3 convolutions a branch."""
        super().__init__()
        self.stem = Conv(cin, channels)
        self.class_convs = nn.Sequential(*(block(channels, channels, 1) for _ in range(2)))
        self.class_out = nn.Conv2d(channels, classes, 1)
        self.box_convs = nn.Sequential(*(block(channels, channels, 1) for _ in range(2)))
        self.box_out = nn.Conv2d(channels, 4, 1)
        self.object_out = nn.Conv2d(channels, 1, 1)
        for layer in (self.class_out, self.object_out):
            assert layer.bias is not None
            nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, cin, h, w]`` -> classes, objectness, box, each ``[B, c, h * w]``."""
        x = self.stem(x)
        classes = self.class_out(self.class_convs(x))
        x = self.box_convs(x)
        box, objectness = self.box_out(x), self.object_out(x)
        return classes.flatten(2), objectness.flatten(2), box.flatten(2)


class Body(nn.Module):
    """Backbone, neck and head."""

    def __init__(self, size: Size, classes: int) -> None:
        """Put a size together."""
        super().__init__()
        self.backbone, self.neck = Darknet(size), Pafpn(size)
        inner = size.channels(256)
        self.levels = nn.ModuleList(
            Level(size.channels(count), inner, classes, size.block) for count in (256, 512, 1024)
        )

    def forward(self, images: Tensor) -> Outputs:
        """``[B, 3, H, W]``, RGB 0..1, sides multiples of 32 -> `Outputs`."""
        x = images.flip(1) * 255  # BGR 0..255, as the published weights expect it
        features: list[Tensor] = self.neck(*self.backbone(x)[1:])
        found = [level(feature) for level, feature in zip(self.levels, features, strict=True)]
        classes, objectness, boxes = (torch.cat(parts, 2) for parts in zip(*found, strict=True))
        grids = tuple((f.shape[2], f.shape[3]) for f in features)
        return Outputs(classes.transpose(1, 2), objectness[:, 0], boxes.transpose(1, 2), grids)


class Cells(NamedTuple):
    """The cells of all levels."""

    corners: Tensor
    """``[A, 2]`` column and row."""

    strides: Tensor
    """``[A, 1]`` pixels."""


def cells_of(grids: Sequence[ImageSize], device: torch.device) -> Cells:
    """Cells of levels with these rows and columns at `STRIDES`."""
    corners, strides = [], []
    for (rows, columns), stride in zip(grids, STRIDES, strict=True):
        y, x = torch.meshgrid(
            torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
        )
        corners.append(torch.stack([x, y], -1).reshape(-1, 2))
        strides.append(torch.full((rows * columns, 1), stride, device=device))
    return Cells(torch.cat(corners).float(), torch.cat(strides).float())


def to_boxes(raw: Tensor, cells: Cells) -> Tensor:
    """Raw boxes ``[..., A, 4]`` as x1 y1 x2 y2 in pixels of the input."""
    centre = (raw[..., :2] + cells.corners) * cells.strides
    half = raw[..., 2:].exp() * cells.strides / 2
    return torch.cat([centre - half, centre + half], -1)
