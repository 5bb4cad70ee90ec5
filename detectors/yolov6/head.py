"""Efficient decoupled head: one 3x3 convolution a task and level (paper, section 3.3).

Anchor-free: a cell predicts class scores and the distances from its centre to the four sides of the
box, in strides. With bins (DFL), a distance is the mean of a distribution over 0..bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmnet.detectors.yolov6.blocks import Conv

STRIDES = (8, 16, 32)
FINE_STRIDES = (4, *STRIDES)
PRIOR = 0.01


class Outputs(NamedTuple):
    """Raw predictions of a batch; A cells of all levels together, level by level, row by row."""

    logits: Tensor
    """``[B, A, classes]``."""

    sides: Tensor
    """``[B, A, 4]`` or ``[B, A, 4 * (bins + 1)]``, before `distances`."""


class Cells(NamedTuple):
    """The cells of all levels."""

    centres: Tensor
    """``[A, 2]`` x, y in pixels."""

    strides: Tensor
    """``[A, 1]`` pixels."""

    grids: tuple[tuple[int, int], ...]
    """Rows and columns of each level."""

    levels: tuple[int, ...]
    """Stride of each level, pixels."""


def cells_of(
    grids: Sequence[tuple[int, int]], device: torch.device, levels: Sequence[int] = STRIDES
) -> Cells:
    """Cell centres of levels with these rows and columns and strides; offset 0.5."""
    centres, strides = [], []
    for (rows, columns), stride in zip(grids, levels, strict=True):
        y, x = torch.meshgrid(
            torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
        )
        centres.append((torch.stack([x, y], -1).reshape(-1, 2) + 0.5) * stride)
        strides.append(torch.full((rows * columns, 1), float(stride), device=device))
    return Cells(torch.cat(centres), torch.cat(strides), tuple(grids), tuple(levels))


def by_side(sides: Tensor, bins: int) -> Tensor:
    """Logits of the distributions: ``[..., 4 * (bins + 1)]`` -> ``[..., 4, bins + 1]``."""
    return sides.reshape(*sides.shape[:-1], 4, bins + 1)


def distances(sides: Tensor, bins: int) -> Tensor:
    """Distances to left, top, right, bottom in strides, ``[..., 4]``, never negative."""
    if bins == 0:
        return functional.softplus(sides)
    shares = by_side(sides, bins).softmax(-1)
    mean: Tensor = shares @ torch.arange(bins + 1, device=sides.device, dtype=shares.dtype)
    return mean


def to_boxes(distance: Tensor, cells: Cells) -> Tensor:
    """Distances ``[..., A, 4]`` in strides as boxes x1 y1 x2 y2 in pixels."""
    low, high = (distance * cells.strides).chunk(2, -1)
    return torch.cat([cells.centres - low, cells.centres + high], -1)


class Head(nn.Module):
    """Classes and sides of every cell."""

    def __init__(self, channels: Sequence[int], classes: int, bins: int) -> None:
        """Make a stem, two 3x3 convolutions and two predictors a level.

        Args:
            channels: of each level.
            classes: number of classes.
            bins: 0: sides are plain numbers; else the greatest distance of the distribution.
        """
        super().__init__()
        self.bins = bins
        self.stems = nn.ModuleList(Conv(c, c, act="silu") for c in channels)
        self.class_convs = nn.ModuleList(Conv(c, c, 3, act="silu") for c in channels)
        self.side_convs = nn.ModuleList(Conv(c, c, 3, act="silu") for c in channels)
        self.class_out = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in channels)
        self.side_out = nn.ModuleList(nn.Conv2d(c, 4 * (bins + 1), 1) for c in channels)
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        """Every class starts at `PRIOR`, every side at one stride.

        Bins halve from each to the next; even ones would start with boxes of 16 strides.
        """
        for layer in self.class_out:
            nn.init.normal_(layer.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.constant_(layer.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        halving = -math.log(2) * torch.arange(self.bins + 1).repeat(4)
        start = halving if self.bins else torch.full((4,), math.log(math.e - 1))
        for layer in self.side_out:
            nn.init.zeros_(layer.weight)  # type: ignore[arg-type]
            layer.bias.copy_(start)  # type: ignore[operator]

    def forward(self, features: Sequence[Tensor]) -> Outputs:
        """Features of the levels ``[B, c, h, w]`` -> `Outputs`."""
        logits, sides = [], []
        for i, feature in enumerate(features):
            x = self.stems[i](feature)
            logits.append(self.class_out[i](self.class_convs[i](x)).flatten(2))
            sides.append(self.side_out[i](self.side_convs[i](x)).flatten(2))
        return Outputs(torch.cat(logits, 2).transpose(1, 2), torch.cat(sides, 2).transpose(1, 2))
