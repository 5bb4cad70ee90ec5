"""How the defaults of `CropConfig` were chosen: a grid of settings and one rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from dmnet.core.errors import ConfigError
from dmnet.cropping.report import Row, Setting
from dmnet.cropping.slicers import CropConfig

PADDING = (10, 20, 30)
MIN_SIDE = (150, 200, 250)
MAX_SIDE = (600, 700, 800, 1000)
MERGE_WASTE = (0.1, 0.2, 0.3)
MERGE_OVERLAP = (0.3, 0.5, 0.7)
"""The grid, pixels and shares."""


def candidates(base: CropConfig) -> list[Setting]:
    """Every setting of the grid at the threshold and window of ``base``, in grid order."""
    grid = product(PADDING, MIN_SIDE, MAX_SIDE, MERGE_WASTE, MERGE_OVERLAP)
    return [
        (
            f"padding {padding}, sides {low} to {high}, waste {waste:g}, overlap {overlap:g}",
            replace(
                base,
                padding=padding,
                min_side=low,
                max_side=high,
                merge_waste=waste,
                merge_overlap=overlap,
            ),
        )
        for padding, low, high, waste, overlap in grid
    ]


def choose(
    settings: Sequence[Setting],
    rows: Sequence[Row],
    min_recall: float = 0.98,
    max_crops: float = 5.0,
) -> CropConfig:
    """The setting with the fewest pixels among those that meet both bounds; the first on a tie.

    Args:
        settings: what was tried.
        rows: the slicer report over a training set, one row a setting.
        min_recall: share of the objects that must be whole in a crop.
        max_crops: crops an image at most, on average.

    Raises:
        ConfigError: no setting meets the bounds.
    """
    best: tuple[float, CropConfig] | None = None
    for (_, config), row in zip(settings, rows, strict=True):
        recall, crops, pixels = (
            row[name] for name in ("recall_all", "crops_per_image", "relative_pixels")
        )
        if not (isinstance(recall, float) and isinstance(crops, float)):
            continue
        if recall >= min_recall and crops <= max_crops and isinstance(pixels, float):
            best = (pixels, config) if best is None or pixels < best[0] else best
    if best is None:
        raise ConfigError(
            f"none of the {len(settings)} settings reaches a region recall of {min_recall:g} with "
            f"at most {max_crops:g} crops an image: lower the recall, allow more crops, or give "
            f"images with objects"
        )
    return best[1]
