"""What a detector does at a working point: precision, recall, F1, mean IoU, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import from_xywh
from dmnet.core.overlaps import Floats, Ints, overlap_matrix
from dmnet.core.records import Annotations, Detections
from dmnet.fusion.evaluation.coco import coco_samples
from dmnet.fusion.evaluation.matched import Matched, matched
from dmnet.fusion.evaluation.matching import NONE, Rows, match
from dmnet.fusion.evaluation.samples import samples_of


@dataclass(frozen=True)
class WorkingPoint:
    """Counts and rates of the detections at or above a score; NaN where nothing is divided."""

    threshold: float
    precision: float
    recall: float
    f1: float
    mean_iou: float
    hits: int
    alarms: int
    misses: int


def working_point(
    table: Matched, threshold: float, *, label: int | None = None, iou: float = 0.5
) -> WorkingPoint:
    """Precision, recall, F1 and mean IoU of the matched pairs at a score threshold.

    Args:
        table: the matched set.
        threshold: detections with this score or more count.
        label: one class, or None for all together.
        iou: one of the table's thresholds; a match needs at least this overlap.
    """
    chosen, overlap, total = _fates(table, label, iou)
    score = table.score if label is None else table.score[table.label == label]
    above = score >= threshold
    hit = above & (chosen >= 0)
    hits, alarms = int(hit.sum()), int((above & (chosen == NONE)).sum())
    return WorkingPoint(
        threshold,
        _ratio(hits, hits + alarms),
        _ratio(hits, total),
        _ratio(2 * hits, hits + alarms + total),
        float(overlap[hit].mean()) if hits else float("nan"),
        hits,
        alarms,
        total - hits,
    )


def operating_point(
    truths: Sequence[Annotations],
    results: Mapping[str, Detections],
    threshold: float,
    *,
    iou: float = 0.5,
) -> WorkingPoint:
    """`working_point` of records in memory; ground truth of score 0 is left out."""
    samples = coco_samples(samples_of(truths, results))
    table = matched(samples, "coco@500", thresholds=np.array([iou]))
    return working_point(table, threshold, iou=iou)


def best_f1(table: Matched, *, label: int | None = None, iou: float = 0.5) -> WorkingPoint:
    """The working point of greatest F1; of equal ones that with the highest threshold."""
    chosen, _, total = _fates(table, label, iou)
    score = table.score if label is None else table.score[table.label == label]
    if len(score) == 0:
        return working_point(table, 0.0, label=label, iou=iou)
    hits, alarms = np.cumsum(chosen >= 0), np.cumsum(chosen == NONE)
    f1 = 2 * hits / np.maximum(1, hits + alarms + total)
    last = np.append(score[1:] != score[:-1], True)  # equal scores come together
    best = np.flatnonzero(last)[np.argmax(f1[last])]
    return working_point(table, float(score[best]), label=label, iou=iou)


def _fates(table: Matched, label: int | None, iou: float) -> tuple[Ints, Floats, int]:
    """Chosen ground truth, its IoU (0 if none), and the number of objects."""
    chosen = table.chosen[:, _column(table, iou)]
    mine = np.ones(len(chosen), bool) if label is None else table.label == label
    objects = table.counts if label is None else table.counts & (table.truth_label == label)
    return chosen[mine], pair_iou(table, chosen)[mine], int(objects.sum())


def pair_iou(table: Matched, chosen: Ints) -> Floats:
    """IoU of each detection with its chosen ground truth, ``(N,)``; 0 where there is none."""
    out = np.zeros(len(chosen))
    hit = np.flatnonzero(chosen >= 0)
    a, b = found_xywh(table)[hit], truth_xywh(table)[chosen[hit]]
    low = np.maximum(a[:, :2], b[:, :2])
    side = np.clip(np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - low, 0, None)
    inter = side.prod(axis=1)
    out[hit] = inter / (a[:, 2] * a[:, 3] + b[:, 2] * b[:, 3] - inter)
    return out


def found_xywh(table: Matched) -> Floats:
    """Boxes of the table's detections, left top width height, ``(N, 4)``."""
    return _gather([sample.found for sample in table.samples], table.image, table.row)


def truth_xywh(table: Matched) -> Floats:
    """Boxes of the table's ground truth, left top width height, ``(M, 4)``."""
    parts = [sample.truth for sample in table.samples]
    return _gather(parts, table.truth_image, table.truth_row)


def _gather(parts: list[Floats], image: Ints, row: Ints) -> Floats:
    start = np.cumsum([0, *(len(part) for part in parts)])
    return np.concatenate([*parts, np.zeros((0, 6))])[start[image] + row, :4]


def _column(table: Matched, iou: float) -> int:
    close = np.flatnonzero(np.isclose(table.thresholds, iou))
    if len(close) == 0:
        raise ValueError(f"matched at {table.thresholds.tolist()}, not at IoU {iou}")
    return int(close[0])


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")


def confusion(table: Matched, threshold: float, *, iou: float = 0.5) -> NDArray[np.int64]:
    """Confusion matrix at a score threshold.

    Detections keep the match of their own class; those left over are matched, by score, to what is
    left of the ground truth of any class.

    Args:
        table: the matched set.
        threshold: detections with this score or more count.
        iou: least overlap of a match, one of the table's thresholds.

    Returns:
        ``(C + 1, C + 1)``: row true class, column predicted class, in the order of
        ``table.classes``; the last row counts false alarms on background, the last column misses.
    """
    truth, predicted = confusion_pairs(table, threshold, iou=iou)
    size = len(table.classes) + 1
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def confusion_pairs(table: Matched, threshold: float, *, iou: float = 0.5) -> tuple[Ints, Ints]:
    """True and predicted class position of every entry of the confusion matrix."""
    chosen, owner = cross_matches(table, threshold, iou=iou)
    labels = np.array(list(table.classes))
    position = np.full(int(labels.max(initial=0)) + 1, len(labels))
    position[labels] = np.arange(len(labels))
    above = (table.score >= threshold) & (chosen > -2)
    hit = above & (chosen >= 0)
    alarms = above & (chosen == NONE)
    missed = (owner < 0) & ~table.truth_ignore
    background = len(labels)
    truth = [
        position[table.truth_label[chosen[hit]]],
        np.full(alarms.sum(), background),
        position[table.truth_label[missed]],
    ]
    predicted = [
        position[table.label[hit]],
        position[table.label[alarms]],
        np.full(missed.sum(), background),
    ]
    return np.concatenate(truth), np.concatenate(predicted)


def cross_matches(table: Matched, threshold: float, *, iou: float = 0.5) -> tuple[Ints, Ints]:
    """Matches within classes, then across them among what is left.

    Returns:
        The ground truth of each detection (or NONE, IGNORED) and the detection of each ground
        truth (or -1).
    """
    chosen = table.chosen[:, _column(table, iou)].copy()
    chosen[table.score < threshold] = NONE
    owner = np.full(len(table.truth_label), -1)
    hit = np.flatnonzero(chosen >= 0)
    owner[chosen[hit]] = hit
    left_d = np.flatnonzero((chosen == NONE) & (table.score >= threshold))
    left_t = np.flatnonzero((owner < 0) & ~table.truth_ignore)
    extra = match(
        Rows(table.image[left_d], found_xywh(table)[left_d]),
        table.score[left_d],
        Rows(table.truth_image[left_t], truth_xywh(table)[left_t]),
        np.zeros(len(left_t), dtype=bool),
        np.array([iou]),
    )[:, 0]
    more = extra >= 0
    chosen[left_d[more]] = left_t[extra[more]]
    owner[left_t[extra[more]]] = left_d[more]
    return chosen, owner


def best_overlaps(table: Matched) -> tuple[Floats, Ints, Floats, Ints]:
    """Each detection's greatest IoU with ground truth of its class and of other classes.

    Returns:
        IoU and ground-truth row (-1 if none) for the own class, then for the others, ``(N,)`` each.
    """
    size = len(table.label)
    own, other = np.zeros(size), np.zeros(size)
    own_row, other_row = np.full(size, -1), np.full(size, -1)
    boxes_d, boxes_t = from_xywh(found_xywh(table)), from_xywh(truth_xywh(table))
    order_d = np.argsort(table.image, kind="stable")
    edges_d = np.searchsorted(table.image[order_d], np.arange(len(table.samples) + 1))
    edges_t = np.searchsorted(table.truth_image, np.arange(len(table.samples) + 1))
    for image in range(len(table.samples)):
        d = order_d[edges_d[image] : edges_d[image + 1]]
        t = np.arange(edges_t[image], edges_t[image + 1])
        t = t[~table.truth_ignore[t]]
        if len(d) == 0 or len(t) == 0:
            continue
        overlap = overlap_matrix(boxes_d[d], boxes_t[t])
        same = table.label[d][:, None] == table.truth_label[t][None, :]
        for mask, value, row in ((same, own, own_row), (~same, other, other_row)):
            part = np.where(mask, overlap, 0.0)
            best = part.argmax(axis=1)
            value[d] = part[np.arange(len(d)), best]
            row[d] = np.where(value[d] > 0, t[best], -1)
    return own, own_row, other, other_row
