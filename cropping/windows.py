"""Window scan: the sum of density in every window of a grid, and the mask of those that pass.

The scan never looks at a pixel twice. Along each axis the window borders cut the image into
elementary intervals; one sum per elementary rectangle is enough for the sum of every window, for
the mask and (in `dmnet.cropping.regions`) for the connected components, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dmnet.core.errors import ConfigError
from dmnet.core.records import DensityMap, Size

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

SLACK = 1e-6
"""Relative slack of ``sum >= threshold``: maps are float32, a sum is known to about 1e-7."""


def starts(length: int, window: int, step: int | None = None) -> Ints:
    """First pixel of every window along one axis, shape ``(n,)``.

    Windows stand at multiples of ``step`` (default: the window's length); the last one is shifted
    back so that it ends at the border. An axis shorter than the window has one window, at 0.

    Raises:
        ConfigError: a window or a step below one pixel.
    """
    step = window if step is None else step
    if window < 1 or step < 1:
        raise ConfigError(f"window and step must be at least 1 pixel, got {window} and {step}")
    last = max(length - window, 0)
    return np.append(np.arange(0, last, step, dtype=np.int64), last)


@dataclass(frozen=True)
class WindowScan:
    """Density sums of all windows of one image.

    ``sums`` ``(rows, cols)`` float64, objects per window; ``top`` ``(rows,)`` and ``left``
    ``(cols,)`` first pixels; ``window`` ``(h, w)`` cut to the image; ``y_edges`` and ``x_edges``
    the borders of the elementary intervals, first 0, last the side of the image.
    """

    sums: Floats
    top: Ints
    left: Ints
    window: Size
    y_edges: Ints
    x_edges: Ints

    @property
    def size(self) -> Size:
        """``(height, width)`` of the image in pixels."""
        return int(self.y_edges[-1]), int(self.x_edges[-1])

    def passed(self, threshold: float) -> NDArray[np.bool_]:
        """Windows whose sum reaches the threshold, shape ``(rows, cols)``.

        Li et al. 2020, section 3.2: sum of density in the window >= threshold.
        """
        return np.asarray(self.sums >= threshold * (1.0 - SLACK))

    def cells(self, passed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Spread window flags ``(rows, cols)`` over the elementary rectangles they cover.

        Returns:
            Flags of shape ``(len(y_edges) - 1, len(x_edges) - 1)``: the mask at the coarsest
            resolution that loses nothing.
        """
        y0, y1 = _span(self.y_edges, self.top, self.window[0])
        x0, x1 = _span(self.x_edges, self.left, self.window[1])
        rise = np.zeros((len(self.y_edges), len(self.x_edges)), dtype=np.int64)
        rows, cols = np.nonzero(passed)
        np.add.at(rise, (y0[rows], x0[cols]), 1)
        np.add.at(rise, (y0[rows], x1[cols]), -1)
        np.add.at(rise, (y1[rows], x0[cols]), -1)
        np.add.at(rise, (y1[rows], x1[cols]), 1)
        return np.asarray(rise.cumsum(axis=0).cumsum(axis=1)[:-1, :-1] > 0)

    def mask(self, threshold: float) -> NDArray[np.bool_]:
        """Pixel mask ``(height, width)`` of the windows that reach the threshold."""
        cells = self.cells(self.passed(threshold))
        return cells.repeat(np.diff(self.y_edges), axis=0).repeat(np.diff(self.x_edges), axis=1)


def window_grid(size: Size, window: Size, step: Size | None = None) -> WindowScan:
    """The windows of an image of ``size`` ``(height, width)``, all sums 0.

    Args:
        size: of the image, pixels.
        window: ``(height, width)`` in pixels.
        step: distance of neighbouring windows in pixels ``(y, x)``; default the window itself.
    """
    step = window if step is None else step
    top, left = starts(size[0], window[0], step[0]), starts(size[1], window[1], step[1])
    cut = min(window[0], size[0]), min(window[1], size[1])
    sums = np.zeros((len(top), len(left)))
    return WindowScan(sums, top, left, cut, _edges(top, cut[0]), _edges(left, cut[1]))


def scan_windows(density: DensityMap, window: Size, step: Size | None = None) -> WindowScan:
    """Sum the density in every window; float64, at any stride, without upsampling.

    A map at stride ``s`` is read as if each cell's objects lay evenly over the pixels it covers,
    so a window border inside a cell takes its share and sums are counts at every stride.

    Args:
        density: ``(h, w)`` objects per cell.
        window: ``(height, width)`` in pixels.
        step: distance of neighbouring windows in pixels ``(y, x)``; default the window itself.
    """
    grid = window_grid(density.size, window, step)
    sums = rectangle_sums(density, grid.y_edges, grid.x_edges)
    total = np.zeros((len(grid.y_edges), len(grid.x_edges)))
    total[1:, 1:] = sums.cumsum(axis=0).cumsum(axis=1)
    y0, y1 = _span(grid.y_edges, grid.top, grid.window[0])
    x0, x1 = _span(grid.x_edges, grid.left, grid.window[1])
    rows = total[y1] - total[y0]
    return replace(grid, sums=rows[:, x1] - rows[:, x0])


def rectangle_sums(density: DensityMap, y_edges: Ints, x_edges: Ints) -> Floats:
    """Density between neighbouring edges, ``(len(y_edges) - 1, len(x_edges) - 1)`` float64.

    Edges are ascending pixel positions; the first is 0 and the last the side of the image.
    """
    rows = _interval_sums(density.values, y_edges, density.stride, density.size[0])
    return _interval_sums(rows.T, x_edges, density.stride, density.size[1]).T


def _interval_sums(values: NDArray[np.floating], edges: Ints, stride: int, length: int) -> Floats:
    """Sum ``(n, m)`` values along axis 0 between neighbouring edges (pixels)."""
    if stride == 1:
        out = np.empty((len(edges) - 1, values.shape[1]))
        for index, (low, high) in enumerate(pairwise(edges)):
            np.add.reduce(values[low:high], axis=0, dtype=np.float64, out=out[index])
        return out
    total = np.zeros((values.shape[0] + 1, values.shape[1]))
    np.cumsum(values, axis=0, dtype=np.float64, out=total[1:])
    cell = np.minimum(edges // stride, values.shape[0] - 1)
    covered = np.minimum(stride, length - cell * stride)  # the last cell may reach over the border
    share = (edges - cell * stride) / covered
    at_edge = total[cell] + share[:, None] * (total[cell + 1] - total[cell])
    return np.diff(at_edge, axis=0)


def _edges(first: Ints, side: int) -> Ints:
    return np.unique(np.concatenate([first, first + side]))


def _span(edges: Ints, first: Ints, side: int) -> tuple[Ints, Ints]:
    return np.searchsorted(edges, first), np.searchsorted(edges, first + side)
