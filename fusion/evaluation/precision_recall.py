"""Precision, recall and average precision from matches: the one computation beside the library's.

COCO scores come from the library (`dmnet.fusion.evaluation.coco`); curves, error costs, bootstrap
and the VisDrone protocol count here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from dmnet.core.overlaps import Floats, Ints
from dmnet.fusion.evaluation.matching import NONE

RECALLS: Floats = np.linspace(0, 1, 101)
"""COCO's recall steps."""


def cumulated(chosen: Ints, weights: Floats | None = None) -> tuple[Floats | Ints, Floats | Ints]:
    """TP and FP among the first 1, 2, ... detections.

    Args:
        chosen: ``(N, T)`` or ``(N,)`` matched ground truth, `NONE` or `IGNORED`, by descending
            score.
        weights: ``(N,)`` how often each detection counts; once if None.

    Returns:
        Two arrays of the shape of ``chosen``.
    """
    tp, fp = (chosen >= 0).astype(np.int64), (chosen == NONE).astype(np.int64)
    if weights is None:
        return np.cumsum(tp, axis=0), np.cumsum(fp, axis=0)
    return np.cumsum(tp * weights[:, None], axis=0), np.cumsum(fp * weights[:, None], axis=0)


def precision_of(tp: Floats | Ints, fp: Floats | Ints) -> Floats:
    """TP over all detections that count; 0 before the first one."""
    return np.asarray(tp / np.maximum(1, tp + fp))


def average_precisions(
    chosen: Ints, total: float, rule: Literal["voc", "coco"], weights: Floats | None = None
) -> Floats:
    """`average_precision` from matches, one threshold after another: a tenth of the memory.

    Args:
        chosen: ``(N, T)`` as `cumulated` takes it.
        total: number of ground-truth rows, above 0.
        rule: see `average_precision`.
        weights: ``(N,)`` how often each detection counts; once if None.

    Returns:
        ``(T,)`` in 0 to 1.
    """
    columns = (chosen[:, [each]] for each in range(chosen.shape[1]))
    each = [average_precision(*cumulated(one, weights), total, rule) for one in columns]
    return np.concatenate([*each, np.zeros(0)])


def average_precision(
    tp: Floats | Ints, fp: Floats | Ints, total: float, rule: Literal["voc", "coco"]
) -> Floats:
    """Area under the monotone precision envelope.

    Args:
        tp: ``(N, T)`` as `cumulated` gives them.
        fp: ``(N, T)`` likewise.
        total: number of ground-truth rows, above 0.
        rule: ``voc`` takes every recall step (Everingham et al. 2010), ``coco`` the mean of the
            precision at 101 recalls.

    Returns:
        ``(T,)`` in 0 to 1.
    """
    if len(tp) == 0:
        return np.zeros(tp.shape[1])
    envelope = np.maximum.accumulate(precision_of(tp, fp)[::-1], axis=0)[::-1]
    if rule == "voc":
        steps = np.diff(tp, axis=0, prepend=0) / total * envelope
        return np.asarray(np.cumsum(steps, axis=0)[-1])  # one by one, whatever T is
    recall = tp / total
    return np.array([_at_steps(recall[:, t], envelope[:, t]) for t in range(tp.shape[1])])


def _at_steps(recall: Floats, envelope: Floats) -> float:
    """Mean precision at COCO's recall steps."""
    at = np.searchsorted(recall, RECALLS - 1e-12, side="left")
    return float(np.append(envelope, 0.0)[at].mean())
