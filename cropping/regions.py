"""From passed windows to crop windows: components, extents, splitting, growing, merging."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dmnet.core import boxes as box
from dmnet.core.boxes import Window
from dmnet.core.records import DensityMap, Size
from dmnet.cropping.windows import WindowScan

Cost = Callable[[Window, int], NDArray[np.float64]]
"""``cost(window, axis)``: price of cutting before pixel 1, 2, ... of the side; ``(side - 1,)``."""

Shrink = Callable[[Window], Window | None]
"""The part of a window that is worth keeping, or None."""


def components(scan: WindowScan, passed: NDArray[np.bool_], connectivity: int) -> list[Window]:
    """Exact half-open extents of the connected components of the mask, in scan order.

    Scan order is the order in which a row by row walk over the pixels meets the components.
    Labelling the elementary rectangles of the scan instead of pixels changes nothing: each is
    either inside the mask or outside, and they touch where their pixels touch.

    Args:
        scan: the window grid.
        passed: ``(rows, cols)`` windows that belong to the mask.
        connectivity: 4 or 8.
    """
    cells = np.ascontiguousarray(scan.cells(passed), np.uint8)
    if not cells.any():
        return []
    _, labels, extents, _ = cv2.connectedComponentsWithStats(cells, connectivity=connectivity)
    found, first = np.unique(labels, return_index=True)
    order = found[np.argsort(first)]
    corners = [(x, y, x + w, y + h) for x, y, w, h, _ in extents.tolist()]
    return [_extent(scan, *corners[label]) for label in order.tolist() if label]


def _extent(scan: WindowScan, left: int, top: int, right: int, bottom: int) -> Window:
    """The pixels of the scan's rectangles ``left`` to ``right`` and ``top`` to ``bottom``."""
    x, y = scan.x_edges, scan.y_edges
    return int(x[left]), int(y[top]), int(x[right]), int(y[bottom])


def reference_extent(window: Window) -> Window:
    """One pixel more at the top and at the left, none below or right (as the published code).

    With inclusive extents y0..y1, x0..x1 that code cuts ``[x0 - 1, x1 + 1)`` and ``[y0 - 1,
    y1 + 1)``, clipped into the image; `components` gives ``x1 + 1`` and ``y1 + 1`` already.
    """
    x1, y1, x2, y2 = window
    return max(0, x1 - 1), max(0, y1 - 1), x2, y2


def window_area(window: Window) -> int:
    """Square pixels of a window."""
    return (window[2] - window[0]) * (window[3] - window[1])


def density_cost(density: DensityMap) -> Cost:
    """Price of a cut: the objects in the two pixel lines beside it."""

    def cost(window: Window, axis: int) -> NDArray[np.float64]:
        s = density.stride
        x1, y1, x2, y2 = window
        part = density.values[y1 // s : -(-y2 // s), x1 // s : -(-x2 // s)]
        low, high = ((y1, y2), (x1, x2))[axis]
        line = part.sum(axis=1 - axis, dtype=np.float64).repeat(s)[low % s :][: high - low]
        return np.asarray(line[:-1] + line[1:], dtype=np.float64)

    return cost


def mask_shrink(scan: WindowScan, passed: NDArray[np.bool_]) -> Shrink:
    """Shrink a window to the extent of the mask inside it."""
    cells = scan.cells(passed)

    def shrink(window: Window) -> Window | None:
        x1, y1, x2, y2 = window
        top = int(np.searchsorted(scan.y_edges, y1, side="right")) - 1
        left = int(np.searchsorted(scan.x_edges, x1, side="right")) - 1
        bottom = int(np.searchsorted(scan.y_edges, y2))
        right = int(np.searchsorted(scan.x_edges, x2))
        rows, cols = np.nonzero(cells[top:bottom, left:right])
        if not len(rows):
            return None
        low, high = (left + cols.min(), top + rows.min()), (left + cols.max(), top + rows.max())
        hull = _extent(scan, *low, high[0] + 1, high[1] + 1)
        return max(x1, hull[0]), max(y1, hull[1]), min(x2, hull[2]), min(y2, hull[3])

    return shrink


def split(window: Window, limit: int, cost: Cost, shrink: Shrink) -> list[Window]:
    """Cut a window until no side is longer than ``limit`` pixels.

    The longer side is cut in its inner half where ``cost`` is least (nearest to the middle on a
    tie), both parts are shrunk, and so on. A window that cutting does not make smaller (its parts
    shrink to something as large) stays whole.
    """
    x1, y1, x2, y2 = window
    side = max(x2 - x1, y2 - y1)
    if side <= max(limit, 1):
        return [window]
    axis = 0 if y2 - y1 == side else 1
    at = _valley(cost(window, axis), side)
    if axis == 0:
        parts: list[Window] = [(x1, y1, x2, y1 + at), (x1, y1 + at, x2, y2)]
    else:
        parts = [(x1, y1, x1 + at, y2), (x1 + at, y1, x2, y2)]
    kept = [part for part in map(shrink, parts) if part is not None]
    if any(window_area(part) >= window_area(window) for part in kept):
        return [window]
    return [piece for part in kept for piece in split(part, limit, cost, shrink)]


def _valley(cost: NDArray[np.float64], side: int) -> int:
    """Position 1..side - 1 of the cheapest cut in the inner half."""
    cuts = np.arange(max(side // 4, 1), max(side - side // 4, 2))
    price = cost[cuts - 1]
    best = cuts[price <= price.min()]
    return int(best[np.argmin(np.abs(2 * best - side))])


def pad(window: Window, padding: int, size: Size) -> Window:
    """Add context on all four sides, inside the image of ``size`` ``(height, width)``."""
    x1, y1, x2, y2 = window
    height, width = size
    return (
        max(0, x1 - padding),
        max(0, y1 - padding),
        min(width, x2 + padding),
        min(height, y2 + padding),
    )


def grow(window: Window, side: int, size: Size) -> Window:
    """Lengthen short sides to ``side`` pixels about the centre, shifted into the image.

    A side of the image that is shorter than ``side`` is taken whole.
    """
    x1, x2 = _grow(window[0], window[2], side, size[1])
    y1, y2 = _grow(window[1], window[3], side, size[0])
    return x1, y1, x2, y2


def _grow(low: int, high: int, side: int, length: int) -> tuple[int, int]:
    side = min(max(side, high - low), length)
    low = min(max(0, low - (side - (high - low)) // 2), length - side)
    return low, low + side


def merge(
    windows: Sequence[Window], overlap: float, waste: float, limit: int | None = None
) -> list[Window]:
    """Join crops that say the same thing twice, cheapest pair first, until nothing changes.

    Two crops are joined into their common hull if they overlap by more than ``overlap`` of the
    smaller one, or if less than ``waste`` of the hull belongs to neither. 1 and 0 switch the two
    rules off. A hull with a side above ``limit`` pixels is never made.

    Returns:
        Windows sorted by ``(y1, x1, y2, x2)``.
    """
    kept = box.as_boxes(sorted(set(windows), key=_raster))
    wasted = _wasted(kept, kept, overlap, waste, limit)
    alive = np.ones(len(kept), dtype=np.bool_)
    np.fill_diagonal(wasted, np.inf)
    while wasted.size and np.isfinite(wasted).any():
        one, other = divmod(int(np.argmin(wasted)), len(kept))
        kept[one, :2] = np.minimum(kept[one, :2], kept[other, :2])
        kept[one, 2:] = np.maximum(kept[one, 2:], kept[other, 2:])
        alive[other] = False
        row = _wasted(kept[one][None], kept, overlap, waste, limit)[0]
        line = np.where(alive, row, np.inf)
        line[one] = np.inf
        wasted[one], wasted[:, one] = line, line
        wasted[other], wasted[:, other] = np.inf, np.inf
    found = kept[alive].astype(int).tolist()
    return sorted(((x1, y1, x2, y2) for x1, y1, x2, y2 in found), key=_raster)


def _raster(window: Window) -> Window:
    x1, y1, x2, y2 = window
    return y1, x1, y2, x2


def _wasted(
    a: box.Boxes, b: box.Boxes, overlap: float, waste: float, limit: int | None
) -> NDArray[np.float64]:
    """Share of each pair's hull that neither covers, ``(len(a), len(b))``; inf: keep apart."""
    inter = box.intersection(a, b)
    area, other = box.area(a)[:, None], box.area(b)[None, :]
    side = np.maximum(a[:, None, 2:], b[None, :, 2:]) - np.minimum(a[:, None, :2], b[None, :, :2])
    hull = side[..., 0] * side[..., 1]
    share = (hull - (area + other - inter)) / hull
    due = (inter > overlap * np.minimum(area, other)) | (share < waste)
    if limit is not None:
        due &= (side[..., 0] <= limit) & (side[..., 1] <= limit)
    return np.where(due, share, np.inf)
