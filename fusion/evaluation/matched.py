"""Every detection of a set with what it matches, from which curves, errors and intervals come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dmnet.core.overlaps import Floats, Ints
from dmnet.fusion.evaluation import coco, visdrone
from dmnet.fusion.evaluation.matching import (
    Rows,
    by_group,
    by_score,
    flat,
    match,
    rank_in_group,
)
from dmnet.fusion.evaluation.precision_recall import average_precisions, cumulated, precision_of
from dmnet.fusion.evaluation.scored_images import ScoredImage

_SHIFT = 1 << 20  # labels fit below

TRUTH = ("truth_image", "truth_label", "truth_xywh", "truth_ignore")
"""The columns of `Matched` that hold ground truth, a row an object."""


@dataclass(frozen=True)
class Matched:
    """Detections of a set, by descending score, matched at ``thresholds`` ``(T,)``.

    A detection: ``image`` (position in ``image_ids``), ``label``, ``score``, box ``xywh``
    ``(N, 4)``, ``chosen`` ``(N, T)`` the matched ground truth or `NONE` or `IGNORED`. Ground truth,
    after the protocol's filter: ``truth_image``, ``truth_label``, ``truth_xywh``, ``truth_ignore``.
    """

    protocol: str
    image_ids: Sequence[str]
    classes: Mapping[int, str]
    thresholds: Floats
    image: Ints
    label: Ints
    score: Floats
    xywh: Floats
    chosen: Ints
    truth_image: Ints
    truth_label: Ints
    truth_xywh: Floats
    truth_ignore: NDArray[np.bool_]

    @property
    def is_coco(self) -> bool:
        """Whether a COCO protocol made this."""
        return self.protocol.startswith("coco")

    @property
    def counts(self) -> NDArray[np.bool_]:
        """Ground truth in the recall's denominator: COCO leaves ignored rows out, ``(M,)``."""
        return ~self.truth_ignore | (not self.is_coco)


def matched(
    images: Sequence[ScoredImage],
    protocol: str,
    *,
    classes: Mapping[int, str],
    thresholds: Floats | None = None,
    like: Matched | None = None,
) -> Matched:
    """Match a set as a protocol does.

    Args:
        images: for the COCO protocols as `evaluate.coco_images` gives them; for the VisDrone
            protocols as read.
        protocol: its name.
        classes: names of the scored categories.
        thresholds: the protocol's ten IoU thresholds if None.
        like: a table of the same ground truth, which is then held once in memory.
    """
    is_coco = protocol.startswith("coco")
    if not is_coco:
        images = [visdrone.drop_ignored(each) for each in images]
    if thresholds is None:
        thresholds = coco.IOUS if is_coco else visdrone.IOUS
    image, label, score, xywh = _found(images, protocol, list(classes))
    if like is None:
        truth_image, truth_label, truth_xywh, ignore = _truth(images, list(classes))
    else:
        truth_image, truth_label, truth_xywh, ignore = (getattr(like, name) for name in TRUTH)
    chosen = match(
        Rows(image * _SHIFT + label, xywh),
        score,
        Rows(truth_image * _SHIFT + truth_label, truth_xywh),
        ignore,
        thresholds,
    )
    return Matched(
        protocol,
        [each.image_id for each in images],
        dict(classes),
        thresholds,
        image,
        label,
        score,
        xywh,
        chosen,
        truth_image,
        truth_label,
        truth_xywh,
        ignore,
    )


def _truth(
    images: Sequence[ScoredImage], labels: list[int]
) -> tuple[Ints, Ints, Floats, NDArray[np.bool_]]:
    """The columns `TRUTH`, image by image."""
    rows, image, _ = flat([each.truth for each in images])
    scored = np.isin(rows[:, 5], labels)
    rows, image = rows[scored], image[scored]
    return image, rows[:, 5].astype(np.int64), rows[:, :4].copy(), rows[:, 4] == 0


def _found(
    images: Sequence[ScoredImage], protocol: str, labels: list[int]
) -> tuple[Ints, Ints, Floats, Floats]:
    """Image, label, score and box of the detections that count, by descending score."""
    rows, image, position = flat([each.found for each in images])
    keep = np.isin(rows[:, 5], labels)
    group = image * _SHIFT + rows[:, 5].astype(np.int64)
    if protocol.startswith("coco"):
        order = by_group(group, rows[:, 4])
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = rank_in_group(group[order])
        keep &= rank < int(protocol.partition("@")[2])
    else:
        keep &= position < visdrone.CAPS[-1]
    rows, image, group = rows[keep], image[keep], group[keep]
    order = by_score(group, rows[:, 4])
    rows = rows[order]
    return image[order], rows[:, 5].astype(np.int64), rows[:, 4].copy(), rows[:, :4].copy()


def ap_table(table: Matched, weights: Floats | None = None) -> Floats:
    """Average precision of every class and threshold, ``(classes, T)`` in 0 to 1.

    Args:
        table: the matched set.
        weights: how often each image counts, ``(images,)``; once if None.

    Returns:
        NaN for classes without ground truth; classes in the order of ``table.classes``.
    """
    out = np.full((len(table.classes), len(table.thresholds)), np.nan)
    for position, label in enumerate(table.classes):
        mine, truth = table.label == label, (table.truth_label == label) & table.counts
        share, total = None, float(truth.sum())
        if weights is not None:
            share = weights[table.image[mine]]
            total = float(weights[table.truth_image[truth]].sum())
        if total > 0:
            rule: Literal["voc", "coco"] = "coco" if table.is_coco else "voc"
            out[position] = average_precisions(table.chosen[mine], total, rule, share)
    return out


def set_ap(table: Matched, weights: Floats | None = None) -> Floats:
    """Class mean of the average precision, as the protocol takes it, ``(T,)`` in 0 to 1."""
    ap = ap_table(table, weights)
    present = ~np.isnan(ap[:, 0])
    if not present.any():
        return np.full(len(table.thresholds), np.nan)
    if table.protocol != "visdrone":
        return np.asarray(ap[present].mean(axis=0))
    times = np.ones(len(table.image_ids)) if weights is None else weights
    number = np.zeros(len(ap))
    for position, label in enumerate(table.classes):
        images = np.unique(table.truth_image[table.truth_label == label])
        number[position] = times[images].sum()
    return np.asarray(number[present] @ ap[present] / number[present].sum())


def curve(table: Matched, label: int, threshold: float = 0.5) -> tuple[Floats, Floats]:
    """Recall and precision of a class after each detection, by descending score, ``(N,)`` each."""
    column = int(np.argmin(np.abs(table.thresholds - threshold)))
    chosen = table.chosen[table.label == label, column]
    tp, fp = cumulated(chosen)
    total = max(1, int(((table.truth_label == label) & table.counts).sum()))
    return tp / total, precision_of(tp, fp)
