"""What a slicer is worth, without any detector: region recall, pixels, cut objects, object scale.

Counts are whole numbers and add up exactly, so any grouping of images over workers gives the
same figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dmnet.core import boxes as box
from dmnet.core.boxes import Window
from dmnet.core.records import Annotations, Size

GROUPS = ("all", "small", "medium", "large")
"""Groups of objects that are counted before the classes: by COCO area (32^2, 96^2 pixels)."""

UNIT = 10**9
"""Shares and scales are summed as whole billionths."""

Counts = NDArray[np.int64]


def _zeros() -> Counts:
    return np.zeros(1, dtype=np.int64)  # takes the shape of what is added


@dataclass(frozen=True)
class SliceCounts:
    """What one image (or the sum of many) contributes to the figures of a slicer.

    ``objects``, ``covered``, ``cut``, ``lost`` are ``(G,)``, one a group of `GROUPS` and then one a
    class: objects, those fully inside a crop, those through which a crop border runs, those cut and
    nowhere whole. ``pixels`` is the
    crops' area over the image's; ``scale``, ``whole_scale`` and ``side`` are sums over covered
    objects: resize factor of the best crop, of the whole image, and side (root of the area) after
    resizing. These four are in billionths.
    """

    images: int = 0
    crops: int = 0
    pixels: int = 0
    scale: int = 0
    whole_scale: int = 0
    side: int = 0
    objects: Counts = field(default_factory=_zeros)
    covered: Counts = field(default_factory=_zeros)
    cut: Counts = field(default_factory=_zeros)
    lost: Counts = field(default_factory=_zeros)

    def __add__(self, other: SliceCounts) -> SliceCounts:
        """Counts of both."""
        return SliceCounts(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )


def merge_counts(parts: Iterable[SliceCounts]) -> SliceCounts:
    """Sum of the counts of many images, in any order or grouping."""
    return sum(parts, SliceCounts())


def resize_factor(size: Size, detector_input: tuple[int, int]) -> float:
    """Factor by which a detector enlarges an image of ``size`` ``(height, width)``.

    ``detector_input`` is ``(min_side, max_side)``: the shorter side becomes ``min_side`` unless the
    longer one would then exceed ``max_side``.
    """
    return min(detector_input[0] / min(size), detector_input[1] / max(size))


def count_crops(
    annotations: Annotations,
    windows: Sequence[Window],
    detector_input: tuple[int, int] = (600, 1000),
) -> SliceCounts:
    """Count what the crops of one image show of its objects.

    Args:
        annotations: ground truth; what is ignored is left out.
        windows: the crops.
        detector_input: ``(min_side, max_side)`` to which a detector resizes a crop; the published
            DMNet setting by default.
    """
    objects = annotations.objects
    group = _groups(objects)
    whole, part = _shown(objects.boxes, windows)
    covered = whole.any(axis=0)
    factors = np.array(
        [resize_factor((y2 - y1, x2 - x1), detector_input) for x1, y1, x2, y2 in windows]
    )
    best = np.where(whole, factors[:, None], 0.0).max(axis=0, initial=0.0)
    sides = np.sqrt(box.area(objects.boxes))
    height, width = annotations.size
    pixels = sum((y2 - y1) * (x2 - x1) for x1, y1, x2, y2 in windows)
    image_factor = resize_factor(annotations.size, detector_input)
    return SliceCounts(
        images=1,
        crops=len(windows),
        pixels=round(UNIT * pixels / (height * width)),
        scale=_billionths(best),
        whole_scale=round(UNIT * image_factor) * int(covered.sum()),
        side=_billionths(best * sides),
        objects=group.sum(axis=1),
        covered=group @ covered,
        cut=group @ part.any(axis=0),
        lost=group @ (part.any(axis=0) & ~covered),
    )


def _shown(
    boxes: box.Boxes, windows: Sequence[Window]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which object is whole, and which only in part, in which crop; each ``(crops, N)``."""
    frames = box.as_boxes(windows)[:, None, :]
    low, high = frames[..., :2], frames[..., 2:]
    whole = np.all((boxes[:, :2] >= low) & (boxes[:, 2:] <= high), axis=-1)
    touched = np.all((boxes[:, :2] < high) & (boxes[:, 2:] > low), axis=-1)
    return np.asarray(whole), np.asarray(touched & ~whole)


def _groups(objects: Annotations) -> Counts:
    """Membership of each object in each group and class, ``(G, N)`` 0 or 1."""
    area = box.area(objects.boxes)
    rows = [area >= 0, area < 32**2, (area >= 32**2) & (area < 96**2), area >= 96**2]
    rows += [objects.labels == label for label in objects.classes.scored]
    return np.asarray(rows, dtype=np.int64)


def _billionths(values: NDArray[np.float64]) -> int:
    return int(np.rint(UNIT * values).astype(np.int64).sum())
