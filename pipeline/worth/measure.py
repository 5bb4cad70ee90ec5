"""What crops are worth with a detector: average precision, passes and milliseconds of many slicers.

Every image is decoded once; each window that any slicer asks for is detected once, and the time of
its pass is kept, so that a slicer's price is the sum over its windows. Packed crops are detected on
their canvases, which differ from slicer to slicer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dmnet.core.boxes import Window
from dmnet.core.records import Annotations, DensityMap, Detections, Image, Size
from dmnet.cropping.slicers import CropConfig, slice_image
from dmnet.detectors.load import Detector, at_side
from dmnet.detectors.packing import PackConfig, PackedDetector, Usage, fitted, input_of
from dmnet.fusion.fuse import FuseConfig, fuse_image

Predict = Callable[[Image], DensityMap]
"""The density network on one image."""

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds that pass, or seconds of processor time over all threads, which other programs on the
machine disturb less."""


Packing = tuple[tuple[Window, ...], PackConfig]
"""Windows of an image, and the canvases that they share."""


@dataclass(frozen=True)
class Setup:
    """One way to look at an image: a slicer, and whether its crops share passes."""

    name: str
    crop: CropConfig
    pack: PackConfig | None = None
    """canvases that the crops share; none: a pass for each crop"""
    setting: str = ""
    """what distinguishes it, in a few words; none: what tells its slicer's settings apart"""
    whole_side: int = 0
    """longer side of the detector's input for the whole image, pixels; 0: as for crops"""

    @property
    def packed(self) -> bool:
        """Whether crops share passes."""
        return self.pack is not None


@dataclass
class Price:
    """What one setup costs on one image."""

    crops: int = 0
    crop_pixels: int = 0
    usage: Usage = field(default_factory=Usage)
    density_ms: float = 0.0
    detect_ms: float = 0.0

    @property
    def row(self) -> dict[str, float]:
        """JSON-ready figures of one image."""
        return {
            "crops": self.crops,
            "crop_pixels": self.crop_pixels,
            "passes": self.usage.passes,
            "input_pixels": self.usage.pixels,
            "padded_pixels": self.usage.padded,
            "density_ms": self.density_ms,
            "detect_ms": self.detect_ms,
        }


@dataclass
class Looks:
    """Detections of the windows of one image, each made once.

    The whole image stands under the longer side of its input, packed windows under their packing.
    """

    detector: Detector
    image: Image
    clock: Callable[[], float] = time.perf_counter
    seen: dict[Window | int, tuple[Detections, float]] = field(default_factory=dict)
    shared: dict[Packing, tuple[list[Detections], Price]] = field(default_factory=dict)

    def whole(self, side: int, price: Price) -> Detections:
        """Detections of the whole image at an input of ``side`` pixels; adds to ``price``."""
        return self._look(side, self.image, at_side(self.detector, side), price)

    def at(self, window: Window, price: Price) -> Detections:
        """Detections of a window in its own pixels; its pass is added to ``price``."""
        x1, y1, x2, y2 = window
        return self._look(window, self.image[y1:y2, x1:x2], self.detector, price)

    def _look(
        self, key: Window | int, pixels: Image, detector: Detector, price: Price
    ) -> Detections:
        if key not in self.seen:
            start = self.clock()
            (found,) = detector.predict([pixels])
            self.seen[key] = found, 1000 * (self.clock() - start)
        found, ms = self.seen[key]
        room = input_of(detector, pixels)
        price.usage.add([room], fitted((pixels.shape[0], pixels.shape[1]), room))
        price.detect_ms += ms
        return found

    def packed(
        self, windows: Sequence[Window], config: PackConfig, price: Price
    ) -> list[Detections]:
        """Detections of windows that share canvases."""
        key = (tuple(windows), config)
        if key not in self.shared:
            own = Price()
            cuts = [self.image[y1:y2, x1:x2] for x1, y1, x2, y2 in windows]
            start = self.clock()
            found = PackedDetector(self.detector, config, usage=own.usage).predict(cuts)
            own.detect_ms = 1000 * (self.clock() - start)
            self.shared[key] = found, own
        found, own = self.shared[key]
        price.usage.join(own.usage)
        price.detect_ms += own.detect_ms
        return found


@dataclass(frozen=True)
class Look:
    """What one setup saw on one image, before fusion."""

    windows: list[Window]
    sources: list[Detections]
    """on the whole image, then on each window, each in its own pixels"""
    price: dict[str, float]


def measure(
    image: Image,
    truth: Annotations | None,
    predict: Predict | None,
    detector: Detector,
    setups: Sequence[Setup],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Look]:
    """Detections and price of every setup on one image.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        truth: annotations, for the slicer ``oracle``.
        predict: the density network, for the slicer ``density``.
        detector: any detector.
        setups: ways to look at the image.
        clock: one of `CLOCKS`.
    """
    size = (image.shape[0], image.shape[1])
    looks = Looks(detector, image, clock)
    density: DensityMap | None = None
    density_ms = 0.0
    if predict is not None and any(setup.crop.needs == "map" for setup in setups):
        start = clock()
        density = predict(image)
        density_ms = 1000 * (clock() - start)
    found = []
    for setup in setups:
        price = Price()
        start = clock()
        windows = slice_image(setup.crop, size, density, truth)
        if setup.crop.needs == "map":
            price.density_ms = density_ms + 1000 * (clock() - start)
        price.crops = len(windows)
        price.crop_pixels = sum((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in windows)
        whole = looks.whole(setup.whole_side, price)
        if setup.pack is not None:
            cuts = looks.packed(windows, setup.pack, price)
        else:
            cuts = [looks.at(window, price) for window in windows]
        found.append(Look(windows, [whole, *cuts], price.row))
    return found


def fused(
    windows: Sequence[Sequence[int]], sources: Sequence[Detections], size: Size, how: FuseConfig
) -> Detections:
    """Whole image and crops of one image as one list."""
    cuts = [(as_window(w), found) for w, found in zip(windows, sources[1:], strict=True)]
    return fuse_image(sources[0], cuts, size, how)


def as_window(values: Sequence[int]) -> Window:
    """Four whole numbers as a window."""
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2


@dataclass(frozen=True)
class Row:
    """One line of the table: means per image, and scores."""

    name: str
    setting: str
    packed: bool
    figures: dict[str, float]
    whole_side: int = 0

    @property
    def title(self) -> str:
        """The slicer, whether its crops are packed, and the whole image's own input."""
        whole = f", whole at {self.whole_side}" if self.whole_side else ""
        return self.name + (", packed" if self.packed else "") + whole

    @property
    def ms(self) -> float:
        """Milliseconds per image, everything included but decoding."""
        return sum(self.figures[part] for part in ("density_ms", "detect_ms", "fuse_ms"))

    @property
    def flat(self) -> dict[str, Any]:
        """As one mapping, for CSV and JSON."""
        head = {
            "slicer": self.name,
            "setting": self.setting,
            "packed": self.packed,
            "whole_side": self.whole_side,
        }
        return {**head, **self.figures, "ms": self.ms}


def frontier(rows: Sequence[Row]) -> list[bool]:
    """Whether no other row has at least its AP in at most its time, and is better in one."""

    def beats(a: Row, b: Row) -> bool:
        ap, other = a.figures["AP"], b.figures["AP"]
        return ap >= other and a.ms <= b.ms and (ap > other or a.ms < b.ms)

    return [not any(beats(other, row) for other in rows) for row in rows]


def break_even(dense: Row, grid: Row) -> float | None:
    """Milliseconds per pass from which on ``dense`` is the cheaper way; None: never.

    Both are priced as ``density + passes * price + fusion``; 0 where ``dense`` costs less at any
    price. A pass has the grid's mean input; a larger one counts by its pixels.
    """
    a_pass = grid.figures["input_pixels"] / grid.figures["passes"]
    saved = (grid.figures["input_pixels"] - dense.figures["input_pixels"]) / a_pass
    extra = (dense.figures["density_ms"] + dense.figures["fuse_ms"]) - grid.figures["fuse_ms"]
    if saved <= 0:
        return 0.0 if extra <= 0 and saved == 0 else None
    return max(0.0, extra / saved)


def figures_of(prices: Sequence[Mapping[str, float]], pixels: int) -> dict[str, float]:
    """Means per image of one setup's prices.

    Args:
        prices: `Price.row` of every image.
        pixels: of all images together.
    """
    count = max(1, len(prices))
    total = {key: sum(price[key] for price in prices) for key in Price().row}
    return {
        "crops": total["crops"] / count,
        "pixels": total["crop_pixels"] / max(1, pixels),
        "passes": total["passes"] / count,
        "input_pixels": total["input_pixels"] / count,
        "padded": total["padded_pixels"] / max(1.0, total["input_pixels"]),
        **{key: total[key] / count for key in ("density_ms", "detect_ms")},
    }


def to_json(rows: Sequence[Row], best: Sequence[bool]) -> bytes:
    """The table as JSON."""
    listed = [{**row.flat, "frontier": mark} for row, mark in zip(rows, best, strict=True)]
    return (json.dumps(listed, indent=1) + "\n").encode()
