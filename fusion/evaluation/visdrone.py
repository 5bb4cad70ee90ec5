"""The official VisDrone-DET protocol, exactly, and its plain class mean.

What differs from COCO: detections are capped per image over all classes, in file order; ground
truth and detections in ignored regions are removed first; average precision is the area under the
whole precision envelope (VOC); the class mean is weighted by the number of images that hold the
class.
Source: VisDrone2018-DET-toolkit, ``calcAccuracy`` and the functions it calls; P. Dollar's
``bbGt.evalRes``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

import numpy as np

from dmnet.core.classes import IGNORED_REGION
from dmnet.core.overlaps import Floats, Ints
from dmnet.core.records import Size
from dmnet.fusion.evaluation.matching import Rows, by_score, flat, match
from dmnet.fusion.evaluation.precision_recall import average_precisions
from dmnet.fusion.evaluation.scored_images import ScoredImage

CAPS = (1, 10, 100, 500)
"""Detections kept per image, all classes together."""

IOUS: Floats = 0.5 + 0.05 * np.arange(10.0)
"""The toolkit's ``0.5:0.05:0.95`` to the last bit: the eighth is just above 0.85."""


@dataclass(frozen=True)
class VisDroneTables:
    """What the toolkit counts, per cent.

    ``labels`` the C scored classes; ``precision`` ``(C, 10 IoU)`` average precision at cap 500;
    ``recall`` ``(C, 10, 4 caps)`` greatest recall; ``images`` ``(C,)`` number of images with the
    class.
    """

    labels: tuple[int, ...]

    precision: Floats
    recall: Floats
    images: Ints

    def ap(self, iou: float | None = None, label: int | None = None, macro: bool = False) -> float:
        """Average precision in per cent at one IoU (None: mean of ten), for a class or the mean.

        ``macro`` takes the plain mean over the classes present instead of the weighted one.
        """
        chosen = slice(None) if iou is None else np.isclose(IOUS, iou)
        return self._mean(self.precision[:, chosen].mean(axis=1), label, macro)

    def ar(self, cap: int = 500, label: int | None = None, macro: bool = False) -> float:
        """Greatest recall in per cent at a cap of 1, 10, 100 or 500, mean over the ten IoUs."""
        return self._mean(self.recall[..., CAPS.index(cap)].mean(axis=1), label, macro)

    def _mean(self, values: Floats, label: int | None, macro: bool) -> float:
        if label is not None:
            row = self.labels.index(label)
            return float(values[row]) if self.images[row] else float("nan")
        weight = np.minimum(self.images, 1) if macro else self.images
        return float(values @ weight / weight.sum()) if weight.any() else float("nan")


def half_away(values: Floats) -> Floats:
    """Round to whole numbers, halves away from zero (MATLAB's ``round``)."""
    whole = np.trunc(values)
    return np.asarray(whole + np.sign(values) * (np.abs(values - whole) >= 0.5))


def ignored_share(xywh: Floats, regions: Floats, size: Size) -> Floats:
    """Share of each box that lies in ignored regions, as the toolkit computes it.

    The toolkit paints a mask with 1-based inclusive ends and reads an integral image; the same
    whole numbers come here from the grid that the regions' edges span.

    Args:
        xywh: ``(N, 4)`` left, top, width, height.
        regions: ``(K, 4)`` likewise.
        size: ``(height, width)`` of the image.

    Returns:
        ``(N,)``; the denominator is the rounded width x height of the box.
    """
    height, width = size
    first = np.maximum(half_away(regions), 1)
    last = np.minimum(first[:, :2] + first[:, 2:], [width, height])
    left, cols = _strips(first[:, 0], last[:, 0])
    top, rows = _strips(first[:, 1], last[:, 1])
    inside_x = (first[:, 0] <= left[:, None]) & (left[:, None] <= last[:, 0])
    inside_y = (first[:, 1] <= top[:, None]) & (top[:, None] <= last[:, 1])
    mask = (inside_y[:, None, :] & inside_x[None, :, :]).any(axis=2).astype(np.float64)

    box = np.maximum(half_away(xywh), 1)
    x, y = np.minimum(box[:, 0], width), np.minimum(box[:, 1], height)
    x2, y2 = np.minimum(x + box[:, 2], width), np.minimum(y + box[:, 3], height)

    def covered(until: Floats, start: Floats, length: Floats) -> Floats:
        """Pixels of each strip up to and including a coordinate, ``(N, strips)``."""
        return np.clip(until[:, None] - (start - 1), 0, length)

    span_x = covered(x2, left, cols) - covered(x, left, cols)
    span_y = covered(y2, top, rows) - covered(y, top, rows)
    inter = ((span_y @ mask) * span_x).sum(axis=1)
    return np.asarray(inter / (box[:, 2] * box[:, 3]))


def _strips(first: Floats, last: Floats) -> tuple[Floats, Floats]:
    """Start and length of the strips between the edges of inclusive 1-based spans."""
    edges = np.unique(np.concatenate([first, last + 1]))
    return edges[:-1], np.diff(edges)


def drop_ignored(image: ScoredImage) -> ScoredImage:
    """Remove the ignored regions and every row of which at least half lies in them.

    Raises:
        ValueError: there are ignored regions but the size of the image is not known.
    """
    regions = image.truth[image.truth[:, 5] == IGNORED_REGION][:, :4]
    if len(regions) == 0:
        return image
    if image.size is None:
        raise ValueError(f"{image.image_id}: has ignored regions, so the image size is needed")
    truth = (image.truth[:, 5] != IGNORED_REGION) & (
        ignored_share(image.truth[:, :4], regions, image.size) < 0.5
    )
    found = ignored_share(image.found[:, :4], regions, image.size) < 0.5
    areas = None if image.areas is None else image.areas[truth]
    return replace(image, truth=image.truth[truth], found=image.found[found], areas=areas)


def count(images: Iterable[ScoredImage], classes: Collection[int]) -> VisDroneTables:
    """Run the protocol.

    Args:
        images: every image of the set, in the order of their names (it settles equal scores).
        classes: labels of the scored categories; VisDrone's 11 (others) never is one.
    """
    labels = tuple(sorted(classes))
    base = max(labels, default=0) + 1
    kept = [drop_ignored(image) for image in images]
    truth, image_t, _ = flat([image.truth for image in kept])
    found, image_d, position = flat([image.found for image in kept])
    scored = np.isin(found[:, 5], labels)
    found, image_d, position = found[scored], image_d[scored], position[scored]
    scored = np.isin(truth[:, 5], labels)
    truth, image_t = truth[scored], image_t[scored]
    group_t = image_t * base + truth[:, 5].astype(np.int64)
    group_d = image_d * base + found[:, 5].astype(np.int64)
    rows_t, ignore = Rows(group_t, truth[:, :4]), truth[:, 4] == 0
    positives = np.bincount(truth[:, 5].astype(np.int64), minlength=base)
    images_with = np.bincount(np.unique(group_t) % base, minlength=base)
    recall = np.zeros((len(labels), len(IOUS), len(CAPS)))
    precision = np.zeros((len(labels), len(IOUS)))
    for column, cap in enumerate(CAPS):
        within = position < cap
        rows_d = Rows(group_d[within], found[within, :4])
        chosen = match(rows_d, found[within, 4], rows_t, ignore, IOUS)
        label_d = found[within, 5].astype(np.int64)
        order = by_score(rows_d.group, found[within, 4])
        for row, label in enumerate(labels):
            mine = chosen[order[label_d[order] == label]]
            total = max(1, int(positives[label]))
            recall[row, :, column] = (mine >= 0).sum(axis=0) / total * 100
            if cap == CAPS[-1]:
                precision[row] = 100 * average_precisions(mine, total, "voc")
    return VisDroneTables(labels, precision, recall, images_with[list(labels)])
