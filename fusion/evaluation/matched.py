"""Every detection of a set with its fate, from which curves, errors and intervals are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmnet.core.overlaps import Floats, Ints
from dmnet.core.records import CLASSES
from dmnet.fusion.evaluation import coco, visdrone
from dmnet.fusion.evaluation.matching import (
    NONE,
    Rows,
    by_group,
    by_score,
    flat,
    match,
    rank_in_group,
)

# the rules of what is scored live with the protocols
from dmnet.fusion.evaluation.samples import Sample

RECALLS: Floats = np.linspace(0, 1, 101)
"""COCO's recall steps."""

_SHIFT = 1 << 20  # labels fit below


@dataclass(frozen=True)
class Matched:
    """Detections of a set, by descending score, matched at ``thresholds`` ``(T,)``.

    A detection: ``image`` and ``row`` (position in ``samples`` and in ``found`` there), ``label``,
    ``score``, ``chosen`` ``(N, T)`` the matched ground truth or `NONE` or `IGNORED`. Ground truth:
    ``truth_image``, ``truth_row``, ``truth_label``, ``truth_ignore``. ``samples`` are those the
    protocol scores, after its filter.
    """

    protocol: str
    samples: Sequence[Sample]
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


def matched(
    samples: Sequence[Sample],
    protocol: str,
    *,
    classes: Mapping[int, str] = CLASSES,
    thresholds: Floats | None = None,
) -> Matched:
    """Match a set as a protocol does.

    Args:
        samples: for the COCO protocols as `evaluate.coco_samples` gives them; for the VisDrone
            protocols as read.
        protocol: its name.
        classes: names of the scored categories.
        thresholds: the protocol's ten IoU thresholds if None.
    """
    is_coco = protocol.startswith("coco")
    if not is_coco:
        samples = [visdrone.drop_ignored(sample) for sample in samples]
    truth, truth_image, truth_row = flat([sample.truth for sample in samples])
    found, image, row = flat([sample.found for sample in samples])
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
        samples,
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
        if weights is None:
            share, total = np.ones(int(mine.sum())), float(truth.sum())
        else:
            share = weights[table.image[mine]]
            total = float(weights[table.truth_image[truth]].sum())
        if total > 0:
            out[position] = _ap(table.chosen[mine], share, total, table.is_coco)
    return out


def _ap(chosen: Ints, share: Floats, total: float, is_coco: bool) -> Floats:
    if len(chosen) == 0:
        return np.zeros(chosen.shape[1])
    hits = np.cumsum((chosen >= 0) * share[:, None], axis=0)
    alarms = np.cumsum((chosen == NONE) * share[:, None], axis=0)
    seen = hits + alarms
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    recall = hits / total
    if not is_coco:
        return np.asarray((np.diff(recall, axis=0, prepend=0) * envelope).sum(axis=0))
    return np.array([_at_steps(recall[:, t], envelope[:, t]) for t in range(chosen.shape[1])])


def _at_steps(recall: Floats, envelope: Floats) -> float:
    """Mean precision at COCO's 101 recall steps."""
    at = np.searchsorted(recall, RECALLS - 1e-12, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


def set_ap(table: Matched, weights: Floats | None = None) -> Floats:
    """Class mean of the average precision, as the protocol takes it, ``(T,)`` in 0 to 1."""
    ap = ap_table(table, weights)
    present = ~np.isnan(ap[:, 0])
    if not present.any():
        return np.full(len(table.thresholds), np.nan)
    if table.protocol != "visdrone":
        return np.asarray(ap[present].mean(axis=0))
    times = np.ones(len(table.samples)) if weights is None else weights
    number = np.zeros(len(ap))
    for position, label in enumerate(table.classes):
        images = np.unique(table.truth_image[table.truth_label == label])
        number[position] = times[images].sum()
    return np.asarray(number[present] @ ap[present] / number[present].sum())


def curve(table: Matched, label: int, threshold: float = 0.5) -> tuple[Floats, Floats]:
    """Recall and precision of a class after each detection, by descending score, ``(N,)`` each."""
    column = int(np.argmin(np.abs(table.thresholds - threshold)))
    chosen = table.chosen[table.label == label, column]
    hits, alarms = np.cumsum(chosen >= 0), np.cumsum(chosen == NONE)
    total = max(1, int(((table.truth_label == label) & table.counts).sum()))
    return hits / total, hits / np.maximum(1, hits + alarms)
