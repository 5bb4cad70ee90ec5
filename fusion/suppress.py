"""Suppressing overlapping detections: which boxes stay.

Boxes are ``(N, 4)`` x1 y1 x2 y2 in pixels. Everything is class-wise unless ``class_agnostic``.
Order is by descending score, ties by input order, so results depend neither on the machine nor on
the number of workers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dmnet.core.boxes import Boxes
from dmnet.core.overlaps import Floats, Index, Ints, Metric, overlap_matrix
from dmnet.core.ranges import Count, Factor, NonNegative, Settings, Share
from dmnet.core.records import Detections, Labels

_DENSE = 384
"""Up to this many boxes the full matrix is quicker than the grid."""

_FIRST_BATCH = 32


@dataclass(frozen=True)
class RuleConfig(Settings):
    """What the built-in rules heed; `dmnet.fusion.merge.MergeConfig` says which rule it is."""

    method: str = "nms"
    """Name of the rule."""
    iou: Share = 0.7
    """Overlap above which two boxes are one object, 0 to 1."""
    metric: Literal["iou", "ios"] = "iou"
    """Intersection over union, or over the smaller of the two areas (nms and nmm)."""
    class_agnostic: bool = False
    """Merge boxes of different classes too."""
    top_n: Count = 500
    """Detections kept per image after merging, best first; 0 keeps all."""
    min_score: NonNegative = 0.0
    """Detections below this score are left out before merging."""
    plus_one: bool = False
    """Compute sides as x2 - x1 + 1 (inclusive pixels), as older software does."""
    decay: Literal["linear", "gaussian"] = "gaussian"
    """soft-nms: multiply scores by 1 - IoU, or by exp(-IoU^2 / sigma)."""
    sigma: Factor = 0.5
    """soft-nms: width of the gaussian."""
    floor: NonNegative = 0.001
    """soft-nms: boxes whose lowered score falls below this are dropped."""
    until_stable: bool = False
    """nmm: repeat until no joined boxes overlap."""
    rescale: bool = False
    """wbf: lower the score of boxes that not all detectors found, as published."""


def descending(scores: Floats) -> Ints:
    """Indices in descending score, ties by input order, shape ``(N,)``."""
    return np.argsort(-scores, kind="stable")


def nms(found: Detections, config: RuleConfig) -> Ints:
    """Greedy non-maximum suppression.

    A box is dropped if its overlap with a kept box of higher score (and of its class) is greater
    than the threshold.

    Args:
        found: boxes with x1 <= x2 and y1 <= y2.
        config: its ``iou``, ``class_agnostic``, ``plus_one`` and ``metric`` count.

    Returns:
        Indices of the kept boxes in descending score, ties by input order.
    """
    owner = suppressors(found, config)
    order = descending(found.scores)
    return np.asarray(order[owner[order] == order])


def suppressors(found: Detections, config: RuleConfig) -> Ints:
    """The kept box that each box yields to in greedy suppression (itself if kept), ``(N,)``."""
    boxes, labels = _sides(found, config), found.labels
    owner = np.arange(len(boxes))
    order = descending(found.scores)
    groups = [order]
    if not config.class_agnostic and len(boxes) > _DENSE:
        groups = [order[labels[order] == value] for value in np.unique(labels)]
    for group in groups:
        ranked = boxes[group]
        if len(group) <= _DENSE:
            apart = None if config.class_agnostic else labels[group]
            owner[group] = group[_greedy_dense(ranked, apart, config.iou, config.metric)]
        else:
            owner[group] = group[_greedy(ranked, config.iou, config.metric)]
    return owner


def _sides(found: Detections, config: RuleConfig) -> Boxes:
    """Boxes whose sides are ``x2 - x1``, or ``x2 - x1 + 1`` where that is asked for."""
    return found.boxes + np.array([0.0, 0.0, 1.0, 1.0]) if config.plus_one else found.boxes


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


def soft_nms(found: Detections, config: RuleConfig) -> Detections:
    """Soft non-maximum suppression: overlapping boxes lose score instead of being dropped.

    Source: Bodla et al., "Soft-NMS", ICCV 2017, eq. 3 (linear) and 4 (gaussian).

    Args:
        found: boxes with their scores.
        config: ``decay`` ``linear`` multiplies scores by 1 - IoU where the overlap is above
            ``iou``; ``gaussian`` multiplies by exp(-IoU^2 / ``sigma``) and does without a
            threshold. Boxes that fall below ``floor`` are dropped; ``class_agnostic`` and
            ``plus_one`` count too.

    Returns:
        The kept boxes in descending final score, with those scores.
    """
    boxes, scores, labels = _sides(found, config), found.scores, found.labels
    final = scores.copy()
    groups = [np.arange(len(boxes))]
    if not config.class_agnostic:
        groups = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    for group in groups:
        final[group] = _soften(boxes[group], scores[group], config)
    keep = descending(final)
    keep = keep[final[keep] >= config.floor]
    return Detections(found.boxes[keep], final[keep], labels[keep])


def _soften(boxes: Boxes, scores: Floats, config: RuleConfig) -> Floats:
    """Final scores; the rest shrinks as boxes are chosen or fall below the floor."""
    final = scores.copy()
    rest = np.flatnonzero(scores >= config.floor)
    while len(rest):
        best = int(np.argmax(final[rest]))  # the first of equals: input order
        chosen, rest = rest[best], np.delete(rest, best)
        overlap = overlap_matrix(boxes[[chosen]], boxes[rest])[0]
        if config.decay == "gaussian":
            final[rest] *= np.exp(-(overlap**2) / config.sigma)
        else:
            final[rest] *= np.where(overlap > config.iou, 1 - overlap, 1.0)
        rest = rest[final[rest] >= config.floor]
    return final


def legacy_topn_fault(found: Detections, config: RuleConfig) -> Ints:
    """The published fusion with its fault, for comparison only.

    After class-wise NMS (+1 areas) the kept boxes, class by class, are cut to the ``top_n`` best,
    but the positions within that subset are then used on the full list: wrong boxes whenever more
    than ``top_n`` survive.

    Returns:
        Indices into the input.
    """
    keep = nms(found, replace(config, plus_one=True, metric="iou"))
    if config.top_n <= 0 or len(keep) <= config.top_n:
        return keep
    if not config.class_agnostic:
        keep = keep[np.argsort(found.labels[keep], kind="stable")]
    return descending(found.scores[keep])[: config.top_n]
