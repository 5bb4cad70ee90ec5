"""Crops that look at nothing but the image's size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from dmnet.core.boxes import Window
from dmnet.core.ranges import Decay, Range, Settings, Side
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.cropping.base import Slicer
from dmnet.cropping.windows import starts


@dataclass(frozen=True)
class UniformCrops(Settings):
    """Rows x columns of equal parts."""

    rows: Annotated[int, Range(1, 1_000)] = 2
    """Rows of the uniform slicer."""
    cols: Annotated[int, Range(1, 1_000)] = 3
    """Columns of the uniform slicer."""

    def __str__(self) -> str:
        """What a table calls it."""
        return f"{self.rows}x{self.cols}"


@dataclass(frozen=True)
class GridCrops(Settings):
    """Fixed tiles that overlap."""

    tile: Side = 512
    """Side of a tile of the grid slicer, pixels."""
    overlap: Decay = 0.2
    """Share of a tile that its neighbour repeats (grid slicer)."""

    def __str__(self) -> str:
        """What a table calls it."""
        return f"tile {self.tile}, overlap {self.overlap:g}"


@dataclass(frozen=True)
class NoCrops(Settings):
    """The whole image alone has no settings."""

    def __str__(self) -> str:
        """What a table calls it."""
        return "-"


def uniform(
    config: UniformCrops, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    """Rows x columns, row by row."""
    height, width = size
    y = [height * i // config.rows for i in range(config.rows + 1)]
    x = [width * i // config.cols for i in range(config.cols + 1)]
    return [
        (x1, y1, x2, y2) for y1, y2 in pairwise(y) for x1, x2 in pairwise(x) if x1 < x2 and y1 < y2
    ]


def grid(
    config: GridCrops, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    """Tiles, row by row; the last ones are shifted back to end at the border."""
    height, width = size
    step = max(config.tile - int(config.tile * config.overlap), 1)
    h, w = min(config.tile, height), min(config.tile, width)
    return [
        (int(x), int(y), int(x) + w, int(y) + h)
        for y in starts(height, config.tile, step)
        for x in starts(width, config.tile, step)
    ]


def none(
    config: NoCrops, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    """No crops."""
    return []


UNIFORM = Slicer(uniform, Config=UniformCrops)
GRID = Slicer(grid, Config=GridCrops)
NONE = Slicer(none, Config=NoCrops)
