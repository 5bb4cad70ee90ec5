"""Crops from the ground-truth boxes: the bound that no density map can pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmnet.core import boxes as box
from dmnet.core.boxes import Window
from dmnet.core.errors import MissingInputError
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.cropping.base import Slicer
from dmnet.cropping.regions import Cost, Shrink, components
from dmnet.cropping.shape import ShapeConfig, shaped
from dmnet.cropping.windows import WindowScan, window_grid


@dataclass(frozen=True)
class OracleCrops(ShapeConfig):
    """Crops of the regions that ground-truth boxes touch."""

    def __str__(self) -> str:
        """What a table calls it."""
        return "-"


def by_objects(
    config: OracleCrops, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    """Crops of the annotated objects.

    Raises:
        MissingInputError: there are no annotations.
    """
    if annotations is None:
        raise MissingInputError(
            "slicer 'oracle' needs the annotations of the image; this split has none: choose "
            "another slicer with --crop.slicer"
        )
    objects = box.clip(annotations.objects.boxes, size)
    objects = objects[box.area(objects) > 0]
    scan = window_grid(size, config.window)
    shrink = hull_of(objects)
    found = components(scan, touched(scan, objects), connectivity=8)
    hulls = [hull for hull in map(shrink, found) if hull is not None]
    return shaped(config, size, hulls, boxes_cut(objects), shrink)


def touched(scan: WindowScan, objects: box.Boxes) -> NDArray[np.bool_]:
    """Windows that any of the boxes touches, shape ``(rows, cols)``."""
    passed = np.zeros(scan.sums.shape, dtype=np.bool_)
    height, width = scan.window
    for x1, y1, x2, y2 in objects:
        rows = (scan.top < y2) & (scan.top + height > y1)
        cols = (scan.left < x2) & (scan.left + width > x1)
        passed |= rows[:, None] & cols[None, :]
    return passed


def hull_of(objects: box.Boxes) -> Shrink:
    """Shrink a window to the hull of the boxes centred in it."""
    centre = (objects[:, :2] + objects[:, 2:]) / 2

    def shrink(window: Window) -> Window | None:
        low, high = window[:2], window[2:]
        mine = objects[((centre >= low) & (centre < high)).all(axis=1)]
        if not len(mine):
            return None
        x1, y1 = np.floor(mine[:, :2].min(axis=0)).astype(int).tolist()
        x2, y2 = np.ceil(mine[:, 2:].max(axis=0)).astype(int).tolist()
        return x1, y1, x2, y2

    return shrink


def boxes_cut(objects: box.Boxes) -> Cost:
    """Price of a cut: the boxes it goes through."""

    def cost(window: Window, axis: int) -> NDArray[np.float64]:
        across, along = axis, 1 - axis  # axis 0 cuts y: compare columns 1 and 3
        low, high = window[along], window[along + 2]
        other = (objects[:, across] < window[across + 2]) & (
            objects[:, across + 2] > window[across]
        )
        mine = objects[other]
        cuts = np.arange(low + 1, high)
        opened = np.searchsorted(np.sort(mine[:, along]), cuts, side="left")
        closed = np.searchsorted(np.sort(mine[:, along + 2]), cuts, side="right")
        return np.asarray(opened - closed, dtype=np.float64)

    return cost


ORACLE = Slicer(by_objects, "annotations", OracleCrops)
