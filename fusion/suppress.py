"""Suppressing overlapping detections: which boxes stay.

Boxes are ``(N, 4)`` x1 y1 x2 y2 in pixels. Everything is class-wise unless ``class_agnostic``.
Order is by descending score, ties by input order, so results depend neither on the machine nor on
the number of workers.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dmnet.core.boxes import Boxes, as_boxes
from dmnet.core.errors import ConfigError
from dmnet.core.overlaps import Floats, Index, Ints, Metric, overlap_matrix
from dmnet.core.records import Detections, Labels

Decay = Literal["linear", "gaussian"]
"""How soft-NMS lowers scores."""

_DENSE = 384
"""Up to this many boxes the full matrix is quicker than the grid."""

_FIRST_BATCH = 32


def columns_of(
    boxes: ArrayLike, scores: ArrayLike, labels: ArrayLike
) -> tuple[Boxes, NDArray[np.float64], Labels]:
    """Boxes, scores and labels as checked arrays of one length.

    Raises:
        ValueError: lengths differ, or a value is not finite.
    """
    detections = Detections(as_boxes(boxes), np.asarray(scores), np.asarray(labels))
    return detections.boxes, detections.scores, detections.labels


def descending(scores: Floats) -> Ints:
    """Indices in descending score, ties by input order, shape ``(N,)``."""
    return np.argsort(-scores, kind="stable")


def nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    iou_threshold: float,
    *,
    class_agnostic: bool = False,
    plus_one: bool = False,
    metric: Metric = "iou",
) -> Ints:
    """Greedy non-maximum suppression.

    A box is dropped if its overlap with a kept box of higher score (and of its class) is greater
    than the threshold.

    Args:
        boxes: ``(N, 4)`` x1 y1 x2 y2, x1 <= x2 and y1 <= y2.
        scores: ``(N,)``.
        labels: ``(N,)`` category ids.
        iou_threshold: 0 to 1.
        class_agnostic: compare boxes of different classes too.
        plus_one: sides are ``x2 - x1 + 1`` (inclusive pixels), as in older software.
        metric: ``iou``, or ``ios`` for intersection over the smaller area.

    Returns:
        Indices of the kept boxes in descending score, ties by input order.
    """
    array, score, label = columns_of(boxes, scores, labels)
    owner = suppressors(
        array, score, label, iou_threshold, class_agnostic, plus_one=plus_one, metric=metric
    )
    order = descending(score)
    return np.asarray(order[owner[order] == order])


def suppressors(
    boxes: Boxes,
    scores: Floats,
    labels: Labels,
    threshold: float,
    class_agnostic: bool = False,
    *,
    plus_one: bool = False,
    metric: Metric = "iou",
) -> Ints:
    """The kept box that each box yields to in greedy suppression (itself if kept), ``(N,)``."""
    if not 0 <= threshold <= 1:
        raise ConfigError(f"the overlap threshold must be between 0 and 1, got {threshold}")
    if plus_one:
        boxes = boxes + np.array([0.0, 0.0, 1.0, 1.0])
    owner = np.arange(len(boxes))
    order = descending(scores)
    groups = [order]
    if not class_agnostic and len(boxes) > _DENSE:
        groups = [order[labels[order] == value] for value in np.unique(labels)]
    for group in groups:
        ranked = boxes[group]
        if len(group) <= _DENSE:
            apart = None if class_agnostic else labels[group]
            owner[group] = group[_greedy_dense(ranked, apart, threshold, metric)]
        else:
            owner[group] = group[_greedy(ranked, threshold, metric)]
    return owner


def _greedy_dense(boxes: Boxes, labels: Labels | None, threshold: float, metric: Metric) -> Ints:
    """Owners among boxes sorted by descending score, from the full matrix."""
    above = np.triu(overlap_matrix(boxes, boxes, metric) > threshold, 1)
    if labels is not None:
        above &= labels[:, None] == labels[None, :]
    source, target = np.nonzero(above)
    owner = np.full(len(boxes), len(boxes))
    _settle(owner, source, target)
    return np.where(owner == len(boxes), np.arange(len(boxes)), owner)


def _greedy(boxes: Boxes, threshold: float, metric: Metric) -> Ints:
    """Owners among boxes sorted by descending score, batch by batch through the grid.

    Batches grow, since the first ones remove most of a crowd; boxes already dropped leave the
    index once they are the majority.
    """
    count = len(boxes)
    owner = np.full(count, count)
    pool = np.arange(count)
    index = Index(boxes, threshold, metric)
    begin, size = 0, _FIRST_BATCH
    while begin < count:
        alive = begin + np.flatnonzero(owner[begin:] == count)
        batch, rest = alive[:size], alive[size:]
        if len(batch) == 0:
            break
        if 2 * len(alive) < len(pool):
            pool, index = alive, Index(boxes[alive], threshold, metric)
        pieces = [(batch[q], pool[p]) for q, p in index.pairs(boxes[batch]) if len(q)]
        later = [(s[s < t], t[s < t]) for s, t in pieces]
        source = np.concatenate([s for s, _ in later] or [np.zeros(0, np.int64)])
        target = np.concatenate([t for _, t in later] or [np.zeros(0, np.int64)])
        _settle(owner, source, target)
        begin = int(rest[0]) if len(rest) else count
        size *= 2
    return np.where(owner == count, np.arange(count), owner)


def _settle(owner: Ints, source: Ints, target: Ints) -> None:
    """Apply suppression pairs ``source < target`` in place, in rank order of the sources.

    ``owner`` holds ``len(owner)`` for a box nobody suppresses. All pairs of a source have to come
    in the same call, after every source of lower rank was settled.
    """
    free = len(owner)
    contested = np.zeros(free, dtype=bool)
    contested[target] = True
    waits = contested[source]
    # a source that is no target is kept for certain: its pairs count at once
    np.minimum.at(owner, target[~waits], source[~waits])
    source, target = source[waits], target[waits]
    live = owner[source] == free
    source, target = source[live], target[live]
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    heads, starts = np.unique(source, return_index=True)
    edges = np.append(starts, len(source)).tolist()
    for head, start, stop in zip(heads.tolist(), edges[:-1], edges[1:], strict=True):
        if owner[head] == free:
            mine = target[start:stop]
            owner[mine] = np.minimum(owner[mine], head)


def soft_nms(
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    iou_threshold: float,
    *,
    class_agnostic: bool = False,
    decay: Decay = "gaussian",
    sigma: float = 0.5,
    min_score: float = 0.001,
    plus_one: bool = False,
) -> tuple[Ints, Floats]:
    """Soft non-maximum suppression: overlapping boxes lose score instead of being dropped.

    Source: Bodla et al., "Soft-NMS", ICCV 2017, eq. 3 (linear) and 4 (gaussian).

    Args:
        boxes: ``(N, 4)`` x1 y1 x2 y2.
        scores: ``(N,)``.
        labels: ``(N,)`` category ids.
        iou_threshold: ``linear``: overlap above which a score is multiplied by 1 - IoU;
            ``gaussian`` does without a threshold.
        class_agnostic: compare boxes of different classes too.
        decay: ``gaussian`` multiplies by exp(-IoU^2 / sigma).
        sigma: width of the gaussian.
        min_score: boxes that fall below are dropped.
        plus_one: sides are ``x2 - x1 + 1``.

    Returns:
        Indices of the kept boxes in descending final score, and those scores.
    """
    array, score, label = columns_of(boxes, scores, labels)
    if sigma <= 0:
        raise ConfigError(f"sigma of soft-nms must be above 0, got {sigma}")
    if plus_one:
        array = array + np.array([0.0, 0.0, 1.0, 1.0])
    final = score.copy()
    groups = [np.arange(len(array))]
    if not class_agnostic:
        groups = [np.flatnonzero(label == value) for value in np.unique(label)]
    for group in groups:
        final[group] = _soften(array[group], score[group], iou_threshold, decay, sigma, min_score)
    keep = descending(final)
    keep = keep[final[keep] >= min_score]
    return keep, final[keep]


def _soften(
    boxes: Boxes, scores: Floats, threshold: float, decay: Decay, sigma: float, floor: float
) -> Floats:
    """Final scores; the rest shrinks as boxes are chosen or fall below the floor."""
    final = scores.copy()
    rest = np.flatnonzero(scores >= floor)
    while len(rest):
        best = int(np.argmax(final[rest]))  # the first of equals: input order
        chosen, rest = rest[best], np.delete(rest, best)
        overlap = overlap_matrix(boxes[[chosen]], boxes[rest])[0]
        if decay == "gaussian":
            final[rest] *= np.exp(-(overlap**2) / sigma)
        else:
            final[rest] *= np.where(overlap > threshold, 1 - overlap, 1.0)
        rest = rest[final[rest] >= floor]
    return final


def legacy_topn_fault(
    boxes: ArrayLike,
    scores: ArrayLike,
    labels: ArrayLike,
    iou_threshold: float,
    top_n: int,
    *,
    class_agnostic: bool = False,
) -> Ints:
    """The published fusion with its fault, for comparison only.

    After class-wise NMS (+1 areas) the kept boxes, class by class, are cut to the ``top_n`` best,
    but the positions within that subset are then used on the full list: wrong boxes whenever more
    than ``top_n`` survive.

    Returns:
        Indices into the input.
    """
    _, score, label = columns_of(boxes, scores, labels)
    keep = nms(boxes, scores, labels, iou_threshold, class_agnostic=class_agnostic, plus_one=True)
    if len(keep) <= top_n:
        return keep
    by_class = keep if class_agnostic else keep[np.argsort(label[keep], kind="stable")]
    return descending(score[by_class])[:top_n]
