"""Every detection of a set with what it matches, from which curves, errors and intervals come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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

TRUTH = ("truth_image", "truth_row", "truth_label", "truth_ignore")
"""The columns of `Matched` that hold ground truth, a row an object."""


@dataclass(frozen=True)
class Matched:
    """Detections of a set, by descending score, matched at ``thresholds`` ``(T,)``.

    A detection: ``image`` and ``row`` (position in ``images`` and in ``found`` there), ``label``,
    ``score``, ``chosen`` ``(N, T)`` the matched ground truth or `NONE` or `IGNORED`. Ground truth:
    ``truth_image``, ``truth_row``, ``truth_label``, ``truth_ignore``. ``images`` are those the
    protocol scores, after its filter.
    """

    protocol: str
    images: Sequence[ScoredImage]
    classes: Mapping[int, str]
    thresholds: Floats
    image: Ints
    row: Ints
    label: Ints
    score: Floats
    chosen: Ints
    truth_image: Ints
    truth_row: Ints
    truth_label: Ints
    truth_ignore: NDArray[np.bool_]

    @property
    def is_coco(self) -> bool:
        """Whether a COCO protocol made this."""
        return self.protocol.startswith("coco")

    @property
    def counts(self) -> NDArray[np.bool_]:
        """Ground truth in the recall's denominator: COCO leaves ignored rows out, ``(M,)``."""
        return ~self.truth_ignore | (not self.is_coco)

    def with_truth_of(self, other: Matched) -> Matched:
        """The same with the arrays of another table's equal ground truth: held once in memory."""
        return replace(self, **{name: getattr(other, name) for name in TRUTH})


def matched(
    images: Sequence[ScoredImage],
    protocol: str,
    *,
    classes: Mapping[int, str],
    thresholds: Floats | None = None,
) -> Matched:
    """Match a set as a protocol does.

    Args:
        images: for the COCO protocols as `evaluate.coco_images` gives them; for the VisDrone
            protocols as read.
        protocol: its name.
        classes: names of the scored categories.
        thresholds: the protocol's ten IoU thresholds if None.
    """
    is_coco = protocol.startswith("coco")
    if not is_coco:
        images = [visdrone.drop_ignored(each) for each in images]
    truth, truth_image, truth_row = flat([each.truth for each in images])
    found, image, row = flat([each.found for each in images])
    scored = np.isin(truth[:, 5], list(classes))
    truth, truth_image, truth_row = truth[scored], truth_image[scored], truth_row[scored]
    keep = np.isin(found[:, 5], list(classes))
    group = image * _SHIFT + found[:, 5].astype(np.int64)
    if is_coco:
        order = by_group(group, found[:, 4])
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = rank_in_group(group[order])
        keep &= rank < int(protocol.partition("@")[2])
    else:
        keep &= row < visdrone.CAPS[-1]
    found, image, row, group = found[keep], image[keep], row[keep], group[keep]
    order = by_score(group, found[:, 4])
    found, image, row, group = found[order], image[order], row[order], group[order]
    if thresholds is None:
        thresholds = coco.IOUS if is_coco else visdrone.IOUS
    label_t = truth[:, 5].astype(np.int64)
    ignore = truth[:, 4] == 0
    chosen = match(
        Rows(group, found[:, :4]),
        found[:, 4],
        Rows(truth_image * _SHIFT + label_t, truth[:, :4]),
        ignore,
        thresholds,
    )
    label = found[:, 5].astype(np.int64)
    return Matched(
        protocol,
        images,
        dict(classes),
        thresholds,
        image,
        row,
        label,
        found[:, 4],
        chosen,
        truth_image,
        truth_row,
        label_t,
        ignore,
    )


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
    times = np.ones(len(table.images)) if weights is None else weights
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
