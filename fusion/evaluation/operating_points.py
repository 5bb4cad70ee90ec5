"""What a detector does at an operating point: precision, recall, F1, mean IoU, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import from_xywh
from dmnet.core.overlaps import Floats, Ints, overlap_matrix, pair_overlaps
from dmnet.core.records import Annotations, Detections
from dmnet.fusion.evaluation.coco import coco_images
from dmnet.fusion.evaluation.matched import Matched, matched
from dmnet.fusion.evaluation.matching import NONE, Rows, match
from dmnet.fusion.evaluation.precision_recall import cumulated
from dmnet.fusion.evaluation.scored_images import classes_of, scored_images


@dataclass(frozen=True)
class OperatingPoint:
    """Counts and rates of the detections at or above a score; NaN where nothing is divided."""

    threshold: float
    precision: float
    recall: float
    f1: float
    mean_iou: float
    tp: int
    fp: int
    fn: int


IOU = 0.5
"""Least overlap of a match; it has to be one of the table's thresholds."""


def operating_point(table: Matched, threshold: float) -> OperatingPoint:
    """Precision, recall, F1 and mean IoU of the matched pairs at a score threshold.

    Args:
        table: the matched set.
        threshold: detections with this score or more count.
    """
    chosen = table.chosen[:, _column(table)]
    overlap, total = pair_iou(table, chosen), int(table.counts.sum())
    above = table.score >= threshold
    hit = above & (chosen >= 0)
    tp, fp = int(hit.sum()), int((above & (chosen == NONE)).sum())
    return OperatingPoint(
        threshold,
        _ratio(tp, tp + fp),
        _ratio(tp, total),
        _ratio(2 * tp, tp + fp + total),
        float(overlap[hit].mean()) if tp else float("nan"),
        tp,
        fp,
        total - tp,
    )


def operating_point_of(
    truths: Sequence[Annotations],
    results: Mapping[str, Detections],
    threshold: float,
) -> OperatingPoint:
    """`operating_point` of records in memory; ground truth of score 0 is left out."""
    images = coco_images(scored_images(truths, results))
    scored = classes_of(truths).scored
    table = matched(images, "coco@500", classes=scored, thresholds=np.array([IOU]))
    return operating_point(table, threshold)


def best_f1(table: Matched) -> OperatingPoint:
    """The operating point of greatest F1; of equal ones that with the highest threshold."""
    score = table.score
    if len(score) == 0:
        return operating_point(table, 0.0)
    tp, fp = cumulated(table.chosen[:, _column(table)])
    f1 = 2 * tp / np.maximum(1, tp + fp + int(table.counts.sum()))
    last = np.append(score[1:] != score[:-1], True)  # equal scores come together
    best = np.flatnonzero(last)[np.argmax(f1[last])]
    return operating_point(table, float(score[best]))


def pair_iou(table: Matched, chosen: Ints) -> Floats:
    """IoU of each detection with its chosen ground truth, ``(N,)``; 0 where there is none."""
    out = np.zeros(len(chosen))
    hit = np.flatnonzero(chosen >= 0)
    out[hit] = pair_overlaps(table.xywh[hit], table.truth_xywh[chosen[hit]])
    return out


def _column(table: Matched) -> int:
    close = np.flatnonzero(np.isclose(table.thresholds, IOU))
    if len(close) == 0:
        raise ValueError(f"matched at {table.thresholds.tolist()}, not at IoU {IOU}")
    return int(close[0])


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")


def confusion(table: Matched, threshold: float) -> NDArray[np.int64]:
    """Confusion matrix at a score threshold.

    Detections keep the match of their own class; those left over are matched, by score, to what is
    left of the ground truth of any class.

    Args:
        table: the matched set.
        threshold: detections with this score or more count.

    Returns:
        ``(C + 1, C + 1)``: row true class, column predicted class, in the order of
        ``table.classes``; the last row counts FP on background, the last column FN.
    """
    truth, predicted = confusion_pairs(table, threshold)
    size = len(table.classes) + 1
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def confusion_pairs(table: Matched, threshold: float) -> tuple[Ints, Ints]:
    """True and predicted class position of every entry of the confusion matrix."""
    chosen, owner = cross_matches(table, threshold)
    labels = np.array(list(table.classes))
    position = np.full(int(labels.max(initial=0)) + 1, len(labels))
    position[labels] = np.arange(len(labels))
    above = (table.score >= threshold) & (chosen > -2)
    hit = above & (chosen >= 0)
    false = above & (chosen == NONE)
    missed = (owner < 0) & ~table.truth_ignore
    background = len(labels)
    truth = [
        position[table.truth_label[chosen[hit]]],
        np.full(false.sum(), background),
        position[table.truth_label[missed]],
    ]
    predicted = [
        position[table.label[hit]],
        position[table.label[false]],
        np.full(missed.sum(), background),
    ]
    return np.concatenate(truth), np.concatenate(predicted)


def cross_matches(table: Matched, threshold: float) -> tuple[Ints, Ints]:
    """Matches within classes, then across them among what is left.

    Returns:
        The ground truth of each detection (or NONE, IGNORED) and the detection of each ground
        truth (or -1).
    """
    chosen = table.chosen[:, _column(table)].copy()
    chosen[table.score < threshold] = NONE
    owner = np.full(len(table.truth_label), -1)
    hit = np.flatnonzero(chosen >= 0)
    owner[chosen[hit]] = hit
    left_d = np.flatnonzero((chosen == NONE) & (table.score >= threshold))
    left_t = np.flatnonzero((owner < 0) & ~table.truth_ignore)
    extra = match(
        Rows(table.image[left_d], table.xywh[left_d]),
        table.score[left_d],
        Rows(table.truth_image[left_t], table.truth_xywh[left_t]),
        np.zeros(len(left_t), dtype=bool),
        np.array([IOU]),
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
    order_d = np.argsort(table.image, kind="stable")
    images = len(table.image_ids)
    edges_d = np.searchsorted(table.image[order_d], np.arange(images + 1))
    edges_t = np.searchsorted(table.truth_image, np.arange(images + 1))
    for image in range(images):
        d = order_d[edges_d[image] : edges_d[image + 1]]
        t = np.arange(edges_t[image], edges_t[image + 1])
        t = t[~table.truth_ignore[t]]
        if len(d) == 0 or len(t) == 0:
            continue
        overlap = overlap_matrix(from_xywh(table.xywh[d]), from_xywh(table.truth_xywh[t]))
        same = table.label[d][:, None] == table.truth_label[t][None, :]
        for mask, value, row in ((same, own, own_row), (~same, other, other_row)):
            part = np.where(mask, overlap, 0.0)
            best = part.argmax(axis=1)
            value[d] = part[np.arange(len(d)), best]
            row[d] = np.where(value[d] > 0, t[best], -1)
    return own, own_row, other, other_row
