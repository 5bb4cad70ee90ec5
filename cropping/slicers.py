"""Slicers: ways to choose the crops of an image, behind one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np

from dmnet.core import boxes as box
from dmnet.core.boxes import Window
from dmnet.core.config import own_settings
from dmnet.core.errors import ConfigError, MissingInputError
from dmnet.core.plugins import Choice, find
from dmnet.core.ranges import Decay, Factor, Margin, Positive, Range, Settings, Share, Side
from dmnet.core.records import Annotations, DensityMap, Size
from dmnet.cropping import oracle, regions
from dmnet.cropping.windows import WindowScan, scan_windows, starts, window_grid

CANDIDATES = 32
"""Thresholds tried at most when a target (`max_crops`, `pixel_budget`) is given."""


@dataclass(frozen=True)
class CropConfig(Settings):
    """How crop windows are chosen (config section ``crop``).

    The defaults of padding, min_side, max_side and merge_* were chosen on VisDrone train with true
    maps and threshold 0.08: the fewest pixels at which at least 98 % of the objects are whole in a
    crop, with at most 5 crops per image.

    >>> CropConfig(slicer="grid", tile=640).overlap
    0.2
    """

    slicer: Annotated[str, Choice(SLICERS)] = "density"
    """``density``: windows of a density map; ``uniform``: rows x cols; ``grid``: fixed tiles with
    overlap; ``none``: no crops, the whole image only; ``oracle``: from the ground-truth boxes."""
    preset: Literal["corrected", "reference"] = "corrected"
    """``reference`` repeats the published code: 4-connected, one pixel more at the top and left,
    objects labelled only if fully inside; padding, min_side, max_side, merge_* and targets are not
    used. ``corrected`` is 8-connected with exact extents."""
    window: tuple[Side, Side] = (70, 70)
    """Height and width of the scanned window, pixels."""
    threshold: Factor = 0.08
    """Objects in a window (sum of density) from which on it belongs to a crop."""
    min_area: Annotated[int, Range(0, 10_000_000_000)] = 4900
    """Components with a smaller extent are dropped, square pixels."""
    padding: Margin = 20
    """Context added on every side of a component, pixels."""
    min_side: Margin = 200
    """Shorter sides are lengthened to this, inside the image, pixels."""
    max_side: Side | None = 800
    """Longer crops are split along the valley of least density, pixels; none: no limit."""
    merge_overlap: Share = 0.3
    """Crops that overlap by more than this share of the smaller one are joined; 1: never."""
    merge_waste: Share = 0.1
    """Crops are joined if less than this share of their hull belongs to neither; 0: never."""
    max_crops: Positive | None = None
    """Target: at most so many crops per image, the heaviest ones; thresholds from the given one up
    are tried and the one that then covers most objects is taken; none: no target."""
    pixel_budget: Factor | None = None
    """Target instead of a threshold: the crops' pixels, relative to the image, stay within this;
    thresholds are tried and the one that then covers most objects is taken; none: no target."""
    rows: Annotated[int, Range(1, 1_000)] = 2
    """Rows of the uniform slicer."""
    cols: Annotated[int, Range(1, 1_000)] = 3
    """Columns of the uniform slicer."""
    tile: Side = 512
    """Side of a tile of the grid slicer, pixels."""
    overlap: Decay = 0.2
    """Share of a tile that its neighbour repeats (grid slicer)."""
    min_visible: Share = 0.5
    """Share of an object's area that must be inside a crop for it to be labelled there; what is
    cut below becomes an ignored region. The reference preset uses 1."""
    own: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Settings of a slicer that brings its own."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a value outside its range, or two that contradict each other.
        """
        super().__post_init__()
        if self.max_side is not None and self.max_side < max(2 * self.padding + 1, self.min_side):
            raise ValueError(
                f"max_side {self.max_side} is too small for min_side {self.min_side} and twice "
                f"padding {self.padding}: raise it, or lower the others"
            )

        _slicer_of(self)

    @property
    def needs(self) -> str:
        """What the slicer looks at: ``nothing``, ``map`` or ``annotations``."""
        return _slicer_of(self)[0].needs

    @property
    def label_bound(self) -> float:
        """Visible share from which on an object is labelled in a crop."""
        return 1.0 if self.preset == "reference" else self.min_visible


def slice_image(
    config: CropConfig,
    size: Size,
    density: DensityMap | None = None,
    annotations: Annotations | None = None,
) -> list[Window]:
    """Crop windows of one image, in a stable order.

    Args:
        config: slicer and settings.
        size: ``(height, width)`` of the image in pixels.
        density: density map, needed by ``density``.
        annotations: ground truth, needed by ``oracle``.

    Returns:
        Half-open windows inside the image; for ``reference`` density crops in scan order of the
        components, else row by row.

    Raises:
        MissingInputError: the slicer needs a map or boxes and has none.
        ConfigError: map or boxes belong to an image of another size.

    >>> slice_image(CropConfig(slicer="uniform", rows=1, cols=2), (100, 300))
    [(0, 0, 150, 100), (150, 0, 300, 100)]
    """
    if size[0] < 1 or size[1] < 1:
        raise ConfigError(f"an image must have at least one pixel, got size {size} (h, w)")
    for name, given in (("density map", density), ("annotations", annotations)):
        if given is not None and tuple(given.size) != tuple(size):
            raise ConfigError(
                f"the {name} is for an image of {given.size[0]}x{given.size[1]} (h x w), "
                f"the image has {size[0]}x{size[1]}: give the one made for this image"
            )
    slicer, own = _slicer_of(config)
    windows = slicer.cut(own, size, density, annotations)
    for x1, y1, x2, y2 in windows:
        if not (0 <= x1 < x2 <= size[1] and 0 <= y1 < y2 <= size[0]):
            raise ConfigError(
                f"slicer '{config.slicer}' cut {x1, y1, x2, y2} out of an image of "
                f"{size[0]}x{size[1]} (h x w): windows are half-open and inside the image"
            )
    return windows


Cut = Callable[[Any, Size, DensityMap | None, Annotations | None], list[Window]]
"""``cut(settings, size, density, annotations)``: windows inside the image, in a stable order."""


@dataclass(frozen=True)
class Slicer:
    """A way to choose the crops of an image, and what it looks at besides the image's size."""

    cut: Cut
    needs: Literal["nothing", "map", "annotations"] = "nothing"
    Config: type[Any] | None = None
    """Class of its settings, filled from ``own``; None: it gets the `CropConfig`."""


def _slicer_of(config: CropConfig) -> tuple[Slicer, Any]:
    """The slicer and its settings.

    Raises:
        ValueError: there is no such slicer, or it has no such settings.
    """
    try:
        slicer = find(config.slicer, SLICERS, Slicer)
    except ConfigError as error:
        raise ValueError(f"slicer: {error}") from error
    return slicer, own_settings(slicer.Config, config)


def _none(
    config: CropConfig, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    return []


def _uniform(
    config: CropConfig, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    height, width = size
    y = [height * i // config.rows for i in range(config.rows + 1)]
    x = [width * i // config.cols for i in range(config.cols + 1)]
    return [
        (x1, y1, x2, y2) for y1, y2 in pairwise(y) for x1, x2 in pairwise(x) if x1 < x2 and y1 < y2
    ]


def _grid(
    config: CropConfig, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    height, width = size
    step = max(config.tile - int(config.tile * config.overlap), 1)
    h, w = min(config.tile, height), min(config.tile, width)
    return [
        (int(x), int(y), int(x) + w, int(y) + h)
        for y in starts(height, config.tile, step)
        for x in starts(width, config.tile, step)
    ]


def _density(
    config: CropConfig, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    if density is None:
        raise MissingInputError(
            "slicer 'density' needs a density map of the image: make one with `make density` or "
            "`make predict-density`, give a folder of maps with DENSITY=..., or choose another "
            "slicer with --crop.slicer"
        )
    return density_windows(config, density, scan_windows(density, config.window))


def density_windows(config: CropConfig, density: DensityMap, scan: WindowScan) -> list[Window]:
    """Crops of a scanned density map (the scan is shared when many thresholds are tried)."""
    if config.preset == "reference":
        return _reference(config, scan)
    if config.max_crops is None and config.pixel_budget is None:
        return _corrected(config, density, scan, config.threshold)
    return _targeted(config, density, scan)


def _reference(config: CropConfig, scan: WindowScan) -> list[Window]:
    found = regions.components(scan, scan.passed(config.threshold), connectivity=4)
    crops = [regions.reference_extent(window) for window in found]
    return [crop for crop in crops if regions.window_area(crop) >= config.min_area]


def _corrected(
    config: CropConfig, density: DensityMap, scan: WindowScan, threshold: float
) -> list[Window]:
    passed = scan.passed(threshold)
    found = regions.components(scan, passed, connectivity=8)
    kept = [window for window in found if regions.window_area(window) >= config.min_area]
    cost, shrink = regions.density_cost(density), regions.mask_shrink(scan, passed)
    return _shape(config, density.size, kept, cost, shrink)


def _shape(
    config: CropConfig,
    size: Size,
    windows: list[Window],
    cost: regions.Cost,
    shrink: regions.Shrink,
) -> list[Window]:
    """Split, pad, lengthen and merge."""
    if config.max_side is not None:
        limit = config.max_side - 2 * config.padding
        windows = [
            part for window in windows for part in regions.split(window, limit, cost, shrink)
        ]
    padded = [regions.pad(window, config.padding, size) for window in windows]
    grown = [regions.grow(window, config.min_side, size) for window in padded]
    return regions.merge(grown, config.merge_overlap, config.merge_waste, config.max_side)


def _targeted(config: CropConfig, density: DensityMap, scan: WindowScan) -> list[Window]:
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


def _fitting(config: CropConfig, crops: list[Window], density: DensityMap) -> list[Window]:
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


def _oracle(
    config: CropConfig, size: Size, density: DensityMap | None, annotations: Annotations | None
) -> list[Window]:
    if annotations is None:
        raise MissingInputError(
            "slicer 'oracle' needs the annotations of the image; this split has none: choose "
            "another slicer with --crop.slicer"
        )
    objects = box.clip(annotations.objects.boxes, size)
    objects = objects[box.area(objects) > 0]
    scan = window_grid(size, config.window)
    shrink = oracle.hull_of(objects)
    found = regions.components(scan, oracle.touched(scan, objects), connectivity=8)
    hulls = [hull for hull in map(shrink, found) if hull is not None]
    return _shape(config, size, hulls, oracle.boxes_cut(objects), shrink)


SLICERS: dict[str, Slicer] = {
    "density": Slicer(_density, "map"),
    "uniform": Slicer(_uniform),
    "grid": Slicer(_grid),
    "none": Slicer(_none),
    "oracle": Slicer(_oracle, "annotations"),
}
"""The slicers by name."""
