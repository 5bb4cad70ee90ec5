"""Boxes: plain ``(N, 4)`` float64 arrays, ``x1, y1, x2, y2``.

Pixels, half-open (``x1 <= x < x2``), origin at the top-left corner of the first pixel. Only
`dmnet.core.formats` knows other conventions. A window is the same thing with integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.float64]
"""``(N, 4)`` float64, x1 y1 x2 y2."""

Window = tuple[int, int, int, int]
"""``(x1, y1, x2, y2)`` in whole pixels, half-open."""


def as_boxes(values: ArrayLike) -> Boxes:
    """Return ``values`` as a float64 array of shape ``(N, 4)``; an empty list becomes ``(0, 4)``.

    Raises:
        ValueError: the values do not form rows of four numbers.
    """
    boxes: Boxes = np.asarray(values, dtype=np.float64)
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have shape (N, 4), got {boxes.shape}")
    return boxes


def from_xywh(values: ArrayLike) -> Boxes:
    """Convert ``left, top, width, height`` rows to ``x1, y1, x2, y2``."""
    boxes = as_boxes(values).copy()
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def to_xywh(boxes: Boxes) -> Boxes:
    """Convert ``x1, y1, x2, y2`` rows to ``left, top, width, height``."""
    out = boxes.copy()
    out[:, 2:] -= out[:, :2]
    return out


def area(boxes: Boxes) -> NDArray[np.float64]:
    """Area of each box in square pixels, shape ``(N,)``."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def intersection(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Intersection area of every pair, shape ``(len(a), len(b))``."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    side = np.maximum(high - low, 0.0)
    product: NDArray[np.float64] = side[..., 0] * side[..., 1]
    return product


def clip(boxes: Boxes, size: tuple[int, int]) -> Boxes:
    """Clip boxes into an image of ``size`` ``(height, width)``."""
    height, width = size
    limits = np.array([width, height, width, height], dtype=np.float64)
    return np.clip(boxes, 0.0, limits)


def visible(boxes: Boxes, window: Window) -> NDArray[np.float64]:
    """Share of each box's area inside the window, shape ``(N,)``; 0 for boxes without area."""
    inter = intersection(boxes, as_boxes([window]))[:, 0]
    full = area(boxes)
    return np.divide(inter, full, out=np.zeros_like(inter), where=full > 0)


def inside(boxes: Boxes, window: Window) -> NDArray[np.bool_]:
    """Whether each box lies fully inside the window, shape ``(N,)``."""
    x1, y1, x2, y2 = window
    return np.asarray(
        (boxes[:, 0] >= x1) & (boxes[:, 1] >= y1) & (boxes[:, 2] <= x2) & (boxes[:, 3] <= y2)
    )
