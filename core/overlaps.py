"""Which boxes overlap: exact pairs above a threshold, found through a grid of box centres.

Two boxes whose IoU exceeds ``t`` share more than ``t`` of the longer side on each axis, so their
centres lie close together and their sides are alike. Boxes are sorted into levels of similar size
and, in each level, into the cells of a grid; a query reads only the cells its bound can reach.
The exact test follows, in float64, so the answer is that of the full matrix while memory stays
linear in the number of boxes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dmnet.core.boxes import Boxes

Metric = Literal["iou", "ios"]
"""Intersection over union, or intersection over the smaller of the two areas."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_CANDIDATES = 1 << 19
"""Pairs tested at once: bounds the working memory to some tens of megabytes."""

_SLACK = 1e-6
"""Relative widening of the search bound, so that rounding never loses a pair."""


def _sides(boxes: Boxes) -> Floats:
    sides: Floats = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None)
    return sides


def _exceeds(
    inter: Floats, a: Floats, b: Floats, threshold: float, metric: Metric
) -> NDArray[np.bool_]:
    base = a + b - inter if metric == "iou" else np.minimum(a, b)
    ratio = np.divide(inter, base, out=np.zeros_like(inter), where=base > 0)
    return np.asarray(ratio > threshold)


def overlap_matrix(a: Boxes, b: Boxes, metric: Metric = "iou") -> Floats:
    """IoU or IoS of every pair of boxes x1 y1 x2 y2, shape ``(len(a), len(b))``."""
    inter = _shared(a[:, 0], a[:, 2], b[:, 0], b[:, 2])
    inter *= _shared(a[:, 1], a[:, 3], b[:, 1], b[:, 3])
    area_a, area_b = _sides(a).prod(axis=1)[:, None], _sides(b).prod(axis=1)
    base = np.minimum(area_a, area_b) if metric == "ios" else area_a + area_b
    if metric == "iou":
        base -= inter
    base[inter == 0] = 1.0  # nothing shared: 0, also for boxes without area
    inter /= base
    return inter


def _shared(a1: Floats, a2: Floats, b1: Floats, b2: Floats) -> Floats:
    """Length every pair of spans shares, ``(len(a), len(b))``."""
    length: Floats = np.minimum(a2[:, None], b2)
    length -= np.maximum(a1[:, None], b1)
    return np.maximum(length, 0.0, out=length)


def pair_overlaps(a: Floats, b: Floats, over_a: NDArray[np.bool_] | None = None) -> Floats:
    """IoU of box by box, from widths and heights as files give them.

    Adding the left edge to a width and subtracting it again would move an overlap across a
    threshold, so the areas come from the given sides.

    Args:
        a: ``(N, 4)`` left, top, width, height.
        b: ``(N, 4)`` likewise.
        over_a: ``(N,)`` pairs whose intersection is divided by the area of ``a`` instead.

    Returns:
        ``(N,)``; 0 where nothing is shared.
    """
    low = np.maximum(a[:, :2], b[:, :2])
    side = np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:]) - low
    inter = np.where((side > 0).all(axis=1), side[:, 0] * side[:, 1], 0.0)
    own = a[:, 2] * a[:, 3]
    base = own + b[:, 2] * b[:, 3] - inter
    if over_a is not None:
        base = np.where(over_a, own, base)
    return np.asarray(np.divide(inter, base, out=np.zeros_like(inter), where=base > 0))


def expand(start: Ints, stop: Ints) -> tuple[Ints, Ints]:
    """Concatenate ``range(start[i], stop[i])``; returns the owner ``i`` and the value of each."""
    count = stop - start
    owner = np.repeat(np.arange(len(start)), count)
    shift = start - (np.cumsum(count) - count)
    return owner, np.arange(len(owner)) + shift[owner]


@dataclass(frozen=True)
class _Level:
    """The boxes of one size range, sorted by grid cell."""

    members: Ints  # (n,) rows of the indexed boxes, in cell order
    columns: tuple[Floats, Floats, Floats, Floats, Floats]  # x1 y1 x2 y2 area, in cell order
    low: Floats  # (2,) least width, height
    high: Floats  # (2,) greatest width, height
    origin: Floats  # (2,) least centre
    cell: Floats  # (2,) cell width, height
    shape: tuple[int, int]  # rows, columns of cells
    table: Ints  # (rows * columns + 1,) first position of each cell

    @staticmethod
    def of(boxes: Boxes, members: Ints, threshold: float, metric: Metric) -> _Level:
        own = boxes[members]
        side, centre = _sides(own), (own[:, :2] + own[:, 2:]) / 2
        origin, extent = centre.min(axis=0), np.ptp(centre, axis=0)
        low, high = side.min(axis=0), side.max(axis=0)
        typical = side.mean(axis=0)
        reach = np.maximum(_reach(typical[None], low, high, threshold, metric)[0], 1e-9)
        cell = np.array([reach[0] / 3, reach[1] / 1.5])
        limit = 4 * len(members) + 64
        cells = np.maximum(np.ceil(extent / cell), 1)
        cell = cell * max(1.0, float(np.sqrt(cells.prod() / limit)))
        cell = np.maximum(cell, extent / limit + 1e-9)
        cols, rows = (np.floor(extent / cell).astype(np.int64) + 1).tolist()
        at = np.floor((centre - origin) / cell).astype(np.int64)
        index = np.minimum(at[:, 1], rows - 1) * cols + np.minimum(at[:, 0], cols - 1)
        order = np.argsort(index, kind="stable")
        table = np.zeros(rows * cols + 1, dtype=np.int64)
        np.cumsum(np.bincount(index, minlength=rows * cols), out=table[1:])
        own, area = own[order], side[order].prod(axis=1)
        x1, y1, x2, y2 = np.ascontiguousarray(own.T)
        return _Level(
            members[order], (x1, y1, x2, y2, area), low, high, origin, cell, (rows, cols), table
        )


def _reach(side: Floats, low: Floats, high: Floats, threshold: float, metric: Metric) -> Floats:
    """Greatest distance of centres per axis at which a pair can exceed the threshold, ``(n, 2)``.

    ``low`` and ``high`` bound the other box's sides; not positive where no partner is possible.
    """
    if metric == "ios":
        return np.asarray((side + high) / 2)

    def bound(other: Floats) -> Floats:
        return (side + other) / 2 - threshold * np.maximum(side, other)

    reach = np.maximum(bound(np.broadcast_to(high, side.shape)), bound(np.clip(side, low, high)))
    reach = np.maximum(reach, bound(np.broadcast_to(low, side.shape)))
    alike = (side * (1 + _SLACK) > threshold * low) & (high * (1 + _SLACK) > threshold * side)
    return np.where(alike, reach, -1.0)


class Index:
    """Boxes ``(N, 4)`` x1 y1 x2 y2, prepared for `pairs`."""

    def __init__(self, boxes: Boxes, threshold: float, metric: Metric) -> None:
        """Sort the boxes into size levels and grid cells; linear in N apart from the sort."""
        self.threshold, self.metric = threshold, metric
        longest = _sides(boxes).max(axis=1, initial=0.0)
        octave = np.floor(np.log2(np.maximum(longest, 1.0))).astype(np.int64)
        self.levels = [
            _Level.of(boxes, np.flatnonzero(octave == value), threshold, metric)
            for value in np.unique(octave)
        ]

    def pairs(self, query: Boxes) -> Iterator[tuple[Ints, Ints]]:
        """Yield ``(rows of query, rows of the index)`` of pairs above the threshold, in pieces."""
        side, centre = _sides(query), (query[:, :2] + query[:, 2:]) / 2
        area = side.prod(axis=1)
        for level in self.levels:
            row, start, stop = self._ranges(level, side, centre)
            ends = np.cumsum(stop - start)
            begin = 0
            while begin < len(row):
                done = int(ends[begin - 1]) if begin else 0
                end = max(begin + 1, int(np.searchsorted(ends, done + _CANDIDATES, "right")))
                piece = slice(begin, end)
                yield self._test(level, query, area, row[piece], start[piece], stop[piece])
                begin = end

    def _ranges(self, level: _Level, side: Floats, centre: Floats) -> tuple[Ints, Ints, Ints]:
        """Runs of cell-sorted boxes each query has to look at: query row, first, last + 1."""
        reach = _reach(side, level.low, level.high, self.threshold, self.metric) * (1 + _SLACK)
        reach = reach + _SLACK
        rows, cols = level.shape
        first = np.floor((centre - reach - level.origin) / level.cell)
        last = np.floor((centre + reach - level.origin) / level.cell)
        ok = (reach > _SLACK).all(axis=1) & (last >= 0).all(axis=1)
        ok &= (first[:, 0] < cols) & (first[:, 1] < rows)
        chosen = np.flatnonzero(ok)
        top = [cols - 1, rows - 1]
        lo = np.clip(first[chosen], 0, top).astype(np.int64)
        hi = np.clip(last[chosen], 0, top).astype(np.int64)
        owner, cell_row = expand(lo[:, 1], hi[:, 1] + 1)
        base = cell_row * cols
        start, stop = level.table[base + lo[owner, 0]], level.table[base + hi[owner, 0] + 1]
        some = stop > start
        return chosen[owner[some]], start[some], stop[some]

    def _test(
        self, level: _Level, query: Boxes, area: Floats, row: Ints, start: Ints, stop: Ints
    ) -> tuple[Ints, Ints]:
        owner, at = expand(start, stop)
        x1, y1, x2, y2, other = level.columns
        q = query[row]
        width = np.minimum(x2[at], q[:, 2][owner]) - np.maximum(x1[at], q[:, 0][owner])
        hit = np.flatnonzero(width > 0)
        owner, at, width = owner[hit], at[hit], width[hit]
        height = np.minimum(y2[at], q[:, 3][owner]) - np.maximum(y1[at], q[:, 1][owner])
        inter = width * np.clip(height, 0.0, None)
        mine = area[row][owner]
        good = _exceeds(inter, mine, other[at], self.threshold, self.metric)
        return row[owner[good]], level.members[at[good]]
