"""Matching detections to ground truth, for all images, classes and thresholds at once.

The greedy rule of Dollar's ``evalRes``, which the VisDrone toolkit and COCO share: in each group
(an image and a class) detections come by descending score; each takes the free ground truth of
greatest overlap at or above the threshold, the later one on equal overlap; ground truth marked
``ignore`` is taken only if no other fits, absorbs any number of detections, and its overlap is the
intersection over the detection's area.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmnet.core.overlaps import Floats, Ints, expand, pair_overlaps

NONE, IGNORED = -1, -2
"""In place of a ground-truth row: a false positive (FP); a match with ignored ground truth."""

_PAIRS = 1 << 14
"""Pairs of boxes looked at together: some 2 MB."""


@dataclass(frozen=True)
class Rows:
    """Boxes of a whole set: ``group`` ``(N,)`` ints, ``xywh`` ``(N, 4)``, rows in set order."""

    group: Ints
    xywh: Floats


def by_group(group: Ints, scores: Floats) -> Ints:
    """Rows ordered by group, then descending score, ties by row; shape ``(N,)``."""
    return np.lexsort((-scores, group))


def by_score(group: Ints, scores: Floats) -> Ints:
    """Rows by descending score over the whole set; ties by group, then by row; ``(N,)``."""
    inner = by_group(group, scores)
    return np.asarray(inner[np.argsort(-scores[inner], kind="stable")])


def flat(parts: Sequence[Floats], columns: int = 6) -> tuple[Floats, Ints, Ints]:
    """Join the row tables of images: rows, number of the image, position within the image."""
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    image = np.repeat(np.arange(len(parts)), lengths)
    position = np.arange(len(image)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.concatenate([*parts, np.zeros((0, columns))]), image, position


def rank_in_group(sorted_group: Ints) -> Ints:
    """Position of each row within its run of equal values, shape ``(N,)``."""
    first = np.searchsorted(sorted_group, sorted_group, side="left")
    return np.asarray(np.arange(len(sorted_group)) - first)


def match(
    found: Rows, scores: Floats, truth: Rows, ignore: NDArray[np.bool_], thresholds: Floats
) -> Ints:
    """Match every detection at every threshold.

    Args:
        found: detections.
        scores: ``(N,)`` their scores.
        truth: ground truth.
        ignore: ``(M,)`` ground truth that counts neither way.
        thresholds: ``(T,)`` ascending.

    Returns:
        ``(N, T)`` row of the matched ground truth, `NONE` or `IGNORED`.
    """
    result = np.full((len(found.group), len(thresholds)), NONE)
    order = by_group(found.group, scores)
    step = np.empty(len(order), dtype=np.int64)
    step[order] = rank_in_group(found.group[order])
    det, gt, overlap = _pairs(found, truth, ignore, float(thresholds.min()))
    _absorb(result, det, gt, overlap, ignore, thresholds)
    keep = ~ignore[gt]
    det, gt, overlap = det[keep], gt[keep], overlap[keep]
    # within a detection the last pair is the best one: greatest overlap, then latest row
    order = np.lexsort((gt, overlap, det, step[det]))
    det, gt, overlap = det[order], gt[order], overlap[order]
    free = np.ones((len(truth.group), len(thresholds)), dtype=bool)
    for part in _runs(step[det]):
        _take(result, free, det[part], gt[part], overlap[part], thresholds)
    return result


def _absorb(
    result: Ints, det: Ints, gt: Ints, overlap: Floats, ignore: NDArray[np.bool_], at: Floats
) -> None:
    """Mark detections that fit ignored ground truth; a regular match overwrites the mark."""
    some = ignore[gt]
    reach = np.zeros(len(result))
    np.maximum.at(reach, det[some], overlap[some])
    result[reach[:, None] >= at] = IGNORED


def _take(
    result: Ints, free: NDArray[np.bool_], det: Ints, gt: Ints, overlap: Floats, at: Floats
) -> None:
    """Let one detection of every group choose; ``det`` is sorted, no two share ground truth."""
    first = np.flatnonzero(np.append(True, det[1:] != det[:-1]))
    possible = free[gt] & (overlap[:, None] >= at)
    position = np.where(possible, np.arange(len(det))[:, None], -1)
    best = np.maximum.reduceat(position, first, axis=0)  # [D, T]
    row, column = np.nonzero(best >= 0)
    chosen = gt[best[row, column]]
    result[det[first][row], column] = chosen
    free[chosen, column] = False


def _runs(values: Ints) -> Iterator[slice]:
    """Slices of equal values in a sorted array."""
    edges = np.flatnonzero(np.append(True, values[1:] != values[:-1])) if len(values) else values
    for start, stop in zip(edges, np.append(edges[1:], len(values)), strict=False):
        yield slice(int(start), int(stop))


def _pairs(
    found: Rows, truth: Rows, ignore: NDArray[np.bool_], least: float
) -> tuple[Ints, Ints, Floats]:
    """Pairs of a group whose overlap is at least ``least``: detection, ground truth, overlap."""
    order = np.argsort(truth.group, kind="stable")
    groups = truth.group[order]
    start = np.searchsorted(groups, found.group, side="left")
    stop = np.searchsorted(groups, found.group, side="right")
    ends = np.cumsum(stop - start)
    parts: list[tuple[Ints, Ints, Floats]] = []
    begin = 0
    while begin < len(start):
        done = int(ends[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS, side="right")))
        owner, at = expand(start[begin:end], stop[begin:end])
        det, gt = owner + begin, order[at]
        overlap = pair_overlaps(found.xywh[det], truth.xywh[gt], ignore[gt])
        good = overlap >= least
        parts.append((det[good], gt[good], overlap[good]))
        begin = end
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    det, gt, overlap = (np.concatenate(column) for column in zip(*parts, strict=True))
    return det, gt, overlap
