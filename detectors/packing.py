"""Crops of an image on shared canvases: a detector with a fixed input pays a pass for each input.

Foreground packing (Huang et al., "UFPMP-Det", AAAI 2022): crops are scaled, laid side by side on
grey canvases of the detector's input size, detected in one pass each, and their boxes mapped back.
Which crop lies where is a problem of two-dimensional bin packing, solved by the library `rectpack`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import cv2
import numpy as np
import rectpack

from dmnet.core import boxes as box
from dmnet.core.boxes import Window
from dmnet.core.errors import ConfigError
from dmnet.core.ranges import Range, Settings
from dmnet.core.records import Detections, Image, Size

if TYPE_CHECKING:
    from dmnet.detectors.load import Detector

GREY = 114
"""Value of the canvas between the crops, as the letterbox of the YOLO family has it."""

ROWS = 32
"""Canvases end at a multiple of so many rows below their last crop."""

SHRINK = (1.0, 0.95, 0.9, 0.85)
"""Scales that are tried for all crops together; the largest one with the fewest canvases wins."""


@dataclass(frozen=True)
class PackConfig(Settings):
    """How crops of an image share passes of the detector."""

    side: Annotated[int, Range(0, 16_384)] = 0
    """side of the canvases that crops share, pixels: the detector's input size; 0: no packing"""
    zoom: Annotated[float, Range(0, 16, above=True)] = 1.5
    """crops are enlarged at most this many times"""
    gap: Annotated[int, Range(0, 256)] = 8
    """grey pixels between crops on a canvas"""


@dataclass(frozen=True)
class Placement:
    """Where a crop of ``size`` lies: the canvas, and its half-open window there in pixels."""

    size: Size
    canvas: int
    window: Window

    def back(self, boxes: box.Boxes) -> box.Boxes:
        """Boxes on the canvas as boxes of the crop, clipped into it; ``(N, 4)``."""
        x1, y1, x2, y2 = self.window
        height, width = self.size
        ratio = np.array([(x2 - x1) / width, (y2 - y1) / height] * 2)
        shift = np.array([x1, y1, x1, y1], dtype=np.float64)
        return box.clip((boxes - shift) / ratio, self.size)


def pack(sizes: Sequence[Size], config: PackConfig) -> list[Placement]:
    """Place crops on the fewest canvases, without overlap and without turning.

    Each is scaled by ``min(side / height, side / width, zoom)``, and by one common factor of
    `SHRINK` where that saves a canvas. The same sizes give the same places.

    Args:
        sizes: ``(height, width)`` of each crop, pixels.
        config: canvas side, bounds.

    Returns:
        One placement a crop, in the same order; canvases are numbered from 0.
    """
    if not sizes:
        return []
    tried = [_pack([_scaled(size, config, factor) for size in sizes], config) for factor in SHRINK]
    best = min(tried, key=lambda places: max(canvas for canvas, _ in places))
    return [Placement(size, *place) for size, place in zip(sizes, best, strict=True)]


def _scaled(size: Size, config: PackConfig, factor: float) -> Size:
    height, width = size
    scale = min(config.side / height, config.side / width, config.zoom) * factor
    return tuple(min(config.side, max(1, round(s * scale))) for s in size)  # type: ignore[return-value]


def _pack(sizes: Sequence[Size], config: PackConfig) -> list[tuple[int, Window]]:
    """Canvas and window of each scaled crop; the gap is part of every rectangle."""
    packer = rectpack.newPacker(
        mode=rectpack.PackingMode.Offline,
        bin_algo=rectpack.PackingBin.BFF,
        pack_algo=rectpack.MaxRectsBssf,
        sort_algo=rectpack.SORT_AREA,
        rotation=False,
    )
    for index, (height, width) in enumerate(sizes):
        packer.add_rect(width + config.gap, height + config.gap, index)
    packer.add_bin(config.side + config.gap, config.side + config.gap, count=float("inf"))
    packer.pack()
    found: dict[int, tuple[int, Window]] = {}
    for canvas, x, y, _, _, index in packer.rect_list():
        height, width = sizes[index]
        found[index] = canvas, (x, y, x + width, y + height)
    return [found[index] for index in range(len(sizes))]


def draw(images: Sequence[Image], places: Sequence[Placement], side: int) -> list[Image]:
    """The canvases, ``side`` pixels wide, cut off below the last crop at a multiple of `ROWS`."""
    count = 1 + max(place.canvas for place in places)
    bottoms = [max(p.window[3] for p in places if p.canvas == i) for i in range(count)]
    heights = [min(side, -(-bottom // ROWS) * ROWS) for bottom in bottoms]
    canvases: list[Image] = [np.full((height, side, 3), GREY, np.uint8) for height in heights]
    for image, place in zip(images, places, strict=True):
        x1, y1, x2, y2 = place.window
        canvases[place.canvas][y1:y2, x1:x2] = _resized(image, (y2 - y1, x2 - x1))
    return canvases


def _resized(image: Image, size: Size) -> Image:
    if image.shape[:2] == size:
        return image
    how = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=how), np.uint8)


def split(found: Sequence[Detections], places: Sequence[Placement]) -> list[Detections]:
    """Detections of the canvases as detections of the crops.

    A box belongs to the crop that holds its centre and is clipped to it, so none crosses a seam;
    one whose centre lies between crops is dropped.
    """
    parts = []
    for place in places:
        there = found[place.canvas]
        x1, y1, x2, y2 = place.window
        centre = (there.boxes[:, :2] + there.boxes[:, 2:]) / 2
        inside = np.all((centre >= [x1, y1]) & (centre < [x2, y2]), axis=1)
        mine = there[inside]
        boxes = place.back(mine.boxes)
        whole = np.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        parts.append(Detections(boxes[whole], mine.scores[whole], mine.labels[whole]))
    return parts


@dataclass
class Usage:
    """Passes of the detector and how much of their input was image."""

    passes: int = 0
    """inputs that went through the network"""
    pixels: int = 0
    """of all inputs"""
    padded: int = 0
    """of them not covered by an image"""

    @property
    def padded_share(self) -> float:
        """Share of the inputs' pixels that no image covers."""
        return self.padded / self.pixels if self.pixels else 0.0

    def add(self, inputs: Sequence[Size], covered: int) -> None:
        """Count inputs of which ``covered`` pixels show images."""
        pixels = sum(height * width for height, width in inputs)
        self.passes += len(inputs)
        self.pixels += pixels
        self.padded += pixels - covered

    def join(self, other: Usage) -> None:
        """Count what ``other`` has counted."""
        self.passes += other.passes
        self.pixels += other.pixels
        self.padded += other.padded


def input_of(detector: Detector, image: Image) -> Size:
    """Size of the network's input for an image; the image's own where it is not known."""
    tell: Callable[[Size], Size] | None = getattr(detector, "input_shape", None)
    size = (image.shape[0], image.shape[1])
    return size if tell is None else tell(size)


def fitted(size: Size, room: Size) -> int:
    """Pixels of an image of ``size`` that is scaled to fit into ``room``, its aspect kept."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return min(room[0] * room[1], round(size[0] * scale) * round(size[1] * scale))


@dataclass
class PackedDetector:
    """A `Detector` that detects the images of a call together, packed onto shared canvases.

    What an image gives depends on the others of the same call, so calls should hold the crops of
    one image.
    """

    detector: Detector
    config: PackConfig
    batch: int = 1
    """canvases detected at once, at most"""
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        """Check that there is a canvas.

        Raises:
            ConfigError: the side is 0.
        """
        if self.config.side < 1:
            raise ConfigError("pack.side: packing needs the side of the canvases, in pixels")

    def predict(self, images: Sequence[Image]) -> list[Detections]:
        """See `dmnet.detectors.load.Detector.predict`."""
        if not images:
            return []
        places = pack([(image.shape[0], image.shape[1]) for image in images], self.config)
        canvases = draw(images, places, self.config.side)
        found: list[Detections] = []
        for start in range(0, len(canvases), self.batch):
            found += self.detector.predict(canvases[start : start + self.batch])
        covered = sum((x2 - x1) * (y2 - y1) for p in places for x1, y1, x2, y2 in [p.window])
        self.usage.add([input_of(self.detector, canvas) for canvas in canvases], covered)
        return split(found, places)
