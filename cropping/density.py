"""Crops where a density map holds objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from dmnet.core.boxes import Window
from dmnet.core.errors import MissingInputError
from dmnet.core.ranges import Factor, Positive, Range
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.cropping import regions
from dmnet.cropping.base import Slicer
from dmnet.cropping.shape import ShapeConfig, shaped
from dmnet.cropping.windows import WindowScan, scan_windows

CANDIDATES = 32
"""Thresholds tried at most when a target (`max_crops`, `pixel_budget`) is given."""


@dataclass(frozen=True)
class DensityCrops(ShapeConfig):
    """Crops of the regions where windows of a density map pass a threshold."""

    preset: Literal["corrected", "reference"] = "corrected"
    """``reference`` repeats the published code: 4-connected, one pixel more at the top and left,
    objects labelled only if fully inside; padding, min_side, max_side, merge_*, min_objects and
    targets are not used. ``corrected`` is 8-connected with exact extents."""
    threshold: Factor = 0.08
    """Objects in a window (sum of density) from which on it belongs to a crop."""
    min_area: Annotated[int, Range(0, 10_000_000_000)] = 4900
    """Components with a smaller extent are dropped, square pixels."""
    min_objects: Annotated[float, Range(0, 1_000_000)] = 0.0
    """Crops that hold fewer objects (sum of density) are dropped: what a pass of the detector has
    to promise. Crowded images then get more crops, empty ones few or none; 0: all are kept."""
    max_crops: Positive | None = None
    """Target: at most so many crops per image, the heaviest ones; thresholds from the given one up
    are tried and the one that then covers most objects is taken; none: no target."""
    pixel_budget: Factor | None = None
    """Target instead of a threshold: the crops' pixels, relative to the image, stay within this;
    thresholds are tried and the one that then covers most objects is taken; none: no target."""

    def __str__(self) -> str:
        """What a table calls it."""
        targets = [
            f"{name.replace('_', ' ')} {value:g}"
            for name in ("max_crops", "pixel_budget")
            if (value := getattr(self, name)) is not None and self.preset != "reference"
        ]
        told = ", ".join(targets) or f"threshold {self.threshold:g}"
        return f"{told}, min objects {self.min_objects:g}" if self.min_objects else told


def by_density(
    config: DensityCrops, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    """Crops of a density map.

    Raises:
        MissingInputError: there is none.
    """
    if density is None:
        raise MissingInputError(
            "slicer 'density' needs a density map of the image: make one with `make density` or "
            "`make predict-density`, give a folder of maps with DENSITY=..., or choose another "
            "slicer with --crop.slicer"
        )
    return density_windows(config, density, scan_windows(density, config.window))


def density_windows(config: DensityCrops, density: DensityMap, scan: WindowScan) -> list[Window]:
    """Crops of a scanned density map (the scan is shared when many thresholds are tried)."""
    if config.preset == "reference":
        return _reference(config, scan)
    if config.max_crops is None and config.pixel_budget is None:
        return _corrected(config, density, scan, config.threshold)
    return _targeted(config, density, scan)


def _reference(config: DensityCrops, scan: WindowScan) -> list[Window]:
    found = regions.components(scan, scan.passed(config.threshold), connectivity=4)
    crops = [regions.reference_extent(window) for window in found]
    return [crop for crop in crops if regions.window_area(crop) >= config.min_area]


def _corrected(
    config: DensityCrops, density: DensityMap, scan: WindowScan, threshold: float
) -> list[Window]:
    passed = scan.passed(threshold)
    found = regions.components(scan, passed, connectivity=8)
    kept = [window for window in found if regions.window_area(window) >= config.min_area]
    cost, shrink = regions.density_cost(density), regions.mask_shrink(scan, passed)
    crops = shaped(config, density.size, kept, cost, shrink)
    if config.min_objects == 0:
        return crops
    return [crop for crop in crops if _mass(density, [crop]) >= config.min_objects]


def _targeted(config: DensityCrops, density: DensityMap, scan: WindowScan) -> list[Window]:
    """Try thresholds; take the one at which the crops that fit the targets hold most objects."""
    if config.pixel_budget is None:
        levels = np.append(config.threshold, scan.sums[scan.sums > config.threshold])
    else:
        levels = scan.sums[scan.sums > 0]
    levels = np.unique(levels)
    picks = np.unique(np.linspace(0, len(levels) - 1, CANDIDATES).round().astype(int))
    best: list[Window] = []
    most = 0.0
    for threshold in levels[picks].tolist() if len(levels) else []:
        crops = _corrected(config, density, scan, threshold)
        kept = _fitting(config, crops, density)
        held = _mass(density, kept)
        if held > most:
            best, most = kept, held
    return best


def _fitting(config: DensityCrops, crops: list[Window], density: DensityMap) -> list[Window]:
    """The crops that fit the targets, heaviest first (densest first under a pixel budget)."""
    area = [regions.window_area(crop) for crop in crops]
    worth = [_mass(density, [crop]) for crop in crops]
    left = np.inf
    if config.pixel_budget is not None:
        left = config.pixel_budget * density.size[0] * density.size[1]
        worth = [mass / pixels for mass, pixels in zip(worth, area, strict=True)]
    kept: list[int] = []
    for index in sorted(range(len(crops)), key=lambda i: (-worth[i], i)):
        if area[index] <= left and (config.max_crops is None or len(kept) < config.max_crops):
            kept.append(index)
            left -= area[index]
    return [crops[i] for i in sorted(kept)]


def _mass(density: DensityMap, crops: list[Window]) -> float:
    """Objects inside any of the crops, to the cell."""
    s = density.stride
    cells = [(slice(y1 // s, -(-y2 // s)), slice(x1 // s, -(-x2 // s))) for x1, y1, x2, y2 in crops]
    if len(cells) == 1:
        return float(density.values[cells[0]].sum(dtype=np.float64))
    inside = np.zeros(density.values.shape, dtype=np.bool_)
    for part in cells:
        inside[part] = True
    return float(density.values.sum(dtype=np.float64, where=inside))


DENSITY = Slicer(by_density, "map", DensityCrops)
