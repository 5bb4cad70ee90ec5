"""Bringing the detections of crops back into the image and joining them with the whole image's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import Boxes, Window, area, inside
from dmnet.core.overlaps import Floats, Index, Ints
from dmnet.core.ranges import Factor, PositiveShare, Range, Settings
from dmnet.core.records import Crop, Detections, Size
from dmnet.fusion.merge import MergeConfig, merge


@dataclass(frozen=True)
class FuseConfig(Settings):
    """How the detections of one image and of its crops become one list."""

    merge: MergeConfig = field(default_factory=MergeConfig)
    """How overlapping boxes are merged."""
    edge_margin: Annotated[float, Range(0, 100_000)] | None = 1.0
    """Pixels: a crop detection this close to an inner crop border counts as cut by it, and is
    dropped if a detection from elsewhere covers it. Leave empty to keep such detections."""
    edge_cover: PositiveShare = 0.8
    """Share of a cut detection's area that the other detection has to contain."""
    inside: Literal["keep", "drop_inside"] = "keep"
    """What happens to whole-image detections that lie fully inside a crop."""
    whole_weight: Factor = 1.0
    """Factor on the scores of whole-image detections."""
    crop_weight: Factor = 1.0
    """Factor on the scores of crop detections."""


@dataclass(frozen=True)
class Origin:
    """Detections of one origin: the whole image, a crop, another detector, a flipped image.

    ``detections`` are in the coordinates of ``window``, or of the image if that is None. ``weight``
    multiplies the scores. ``group`` tells detectors apart: weighted box fusion counts groups.
    """

    detections: Detections
    window: Window | None = None
    weight: float = 1.0
    group: int = 0


def into_image(detections: Detections, window: Window) -> Detections:
    """Shift crop detections into the image; the given arrays stay as they are."""
    boxes = Crop("", window).to_image(detections.boxes)
    return Detections(boxes, detections.scores.copy(), detections.labels.copy())


def touches_inner_border(
    boxes: Boxes, window: Window, size: Size, margin: float
) -> NDArray[np.bool_]:
    """Boxes (image coordinates) within ``margin`` px of a crop border that is no image border.

    Args:
        boxes: ``(N, 4)`` x1 y1 x2 y2.
        window: the crop's window.
        size: ``(height, width)`` of the image.
        margin: pixels.

    Returns:
        ``(N,)`` mask.
    """
    x1, y1, x2, y2 = window
    height, width = size
    inner = np.array([x1 > 0, y1 > 0, x2 < width, y2 < height])
    gap = np.stack([boxes[:, 0] - x1, boxes[:, 1] - y1, x2 - boxes[:, 2], y2 - boxes[:, 3]], axis=1)
    return np.asarray(((gap <= margin) & inner).any(axis=1))


def covered(
    boxes: Boxes, labels: Ints | None, origin: Ints, suspects: NDArray[np.bool_], cover: float
) -> NDArray[np.bool_]:
    """Suspects of which a larger box of another origin contains at least ``cover``.

    A box of equal area covers only if it comes earlier, so that two like boxes never remove each
    other.

    Args:
        boxes: ``(N, 4)`` in image coordinates.
        labels: ``(N,)`` to compare only boxes of a class, or None.
        origin: ``(N,)`` number of the source.
        suspects: ``(N,)`` mask of the boxes that may be dropped.
        cover: share of the suspect's area, above 0.

    Returns:
        ``(N,)`` mask of covered suspects.
    """
    out = np.zeros(len(boxes), dtype=bool)
    rows = np.flatnonzero(suspects)
    if len(rows) == 0:
        return out
    full = area(boxes)
    bound = min(cover, 1.0) * (1 - 1e-9)  # the index compares with >, the rule is >=
    for query, other in Index(boxes, bound, "ios").pairs(boxes[rows]):
        suspect = rows[query]
        larger = (full[other] > full[suspect]) | (
            (full[other] == full[suspect]) & (other < suspect)
        )
        good = larger & (origin[other] != origin[suspect])
        if labels is not None:
            good &= labels[other] == labels[suspect]
        out[suspect[good]] = True
    return out


def inside_any(boxes: Boxes, windows: Sequence[Window]) -> NDArray[np.bool_]:
    """Whether each box lies fully inside at least one window, shape ``(N,)``."""
    out = np.zeros(len(boxes), dtype=bool)
    for window in windows:
        out |= inside(boxes, window)
    return out


def gather(
    sources: Sequence[Origin], size: Size, config: FuseConfig
) -> tuple[Detections, Ints, Floats]:
    """Place, weight and thin out the detections of all sources, before merging.

    Returns:
        Detections in image coordinates, in the order of the sources; the group of each row; the
        weight of each row (already multiplied into the scores).
    """
    windows = [source.window for source in sources if source.window is not None]
    parts, origin, suspects, weights = [], [], [], []
    for number, source in enumerate(sources):
        part = (
            source.detections
            if source.window is None
            else into_image(source.detections, source.window)
        )
        cut = np.zeros(len(part), dtype=bool)
        if source.window is None and config.inside == "drop_inside":
            keep = ~inside_any(part.boxes, windows)
            part, cut = part[keep], cut[keep]
        if source.window is not None and config.edge_margin is not None:
            cut = touches_inner_border(part.boxes, source.window, size, config.edge_margin)
        parts.append(Detections(part.boxes, part.scores * source.weight, part.labels))
        origin.append(np.full(len(part), number))
        weights.append(np.full(len(part), source.weight))
        suspects.append(cut)
    if not parts:
        return Detections.empty(), np.zeros(0, np.int64), np.zeros(0)
    joined, number_of = Detections.concat(parts), np.concatenate(origin)
    labels = None if config.merge.class_agnostic else joined.labels
    keep = ~covered(joined.boxes, labels, number_of, np.concatenate(suspects), config.edge_cover)
    group = np.array([source.group for source in sources])[number_of]
    return joined[keep], group[keep], np.concatenate(weights)[keep]


def fuse(sources: Sequence[Origin], size: Size, config: FuseConfig | None = None) -> Detections:
    """Fuse any number of sources of one image.

    Args:
        sources: in order; on equal scores the earlier source wins.
        size: ``(height, width)`` of the image.
        config: settings; ``whole_weight`` and ``crop_weight`` are not used here, each source
            carries its own weight.

    Returns:
        Detections in image coordinates, by descending score, at most ``config.merge.top_n``.
    """
    config = config or FuseConfig()
    joined, group, weight = gather(sources, size, config)
    return merge(joined, config.merge, group=group, weight=weight)


def fuse_image(
    whole: Detections,
    crops: Sequence[tuple[Window, Detections]],
    size: Size,
    config: FuseConfig | None = None,
) -> Detections:
    """Fuse the detections of a whole image with those of its crops.

    Args:
        whole: detections on the whole image, image coordinates.
        crops: window and detections (crop coordinates) of each crop.
        size: ``(height, width)`` of the image.
        config: settings.

    Returns:
        Detections in image coordinates, by descending score (ties: whole image first, then crops
        in order), at most ``config.merge.top_n``.

    >>> whole = Detections([[10, 10, 60, 60]], [0.8], [4])
    >>> crop = Detections([[1, 1, 50, 50], [80, 80, 90, 95]], [0.6, 0.9], [4, 1])
    >>> fuse_image(whole, [((10, 10, 110, 110), crop)], (200, 200)).boxes.tolist()
    [[90.0, 90.0, 100.0, 105.0], [10.0, 10.0, 60.0, 60.0]]
    """
    config = config or FuseConfig()
    sources = [Origin(whole, None, config.whole_weight, 0)]
    sources += [Origin(found, window, config.crop_weight, 1) for window, found in crops]
    return fuse(sources, size, config)
