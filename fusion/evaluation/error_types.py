"""Error types and the average precision each one costs.

Source: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
An error is mended by an oracle and the gain in AP at IoU 0.5 is its cost; costs do not add up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dmnet.core.overlaps import Floats, Ints
from dmnet.fusion.evaluation.matched import TRUTH, Matched, set_ap
from dmnet.fusion.evaluation.matching import NONE
from dmnet.fusion.evaluation.operating_points import best_overlaps

TYPES = ("localisation", "class", "duplicate", "background", "both", "missed")
"""Wrong place, wrong class, found twice, nothing there, wrong class and place, not found."""

_LOC, _CLS, _DUP, _BKG, _BOTH = range(5)

FOREGROUND, BACKGROUND = 0.5, 0.1
"""Overlap from which a box is in place; overlap up to which there is nothing."""


@dataclass(frozen=True)
class ErrorCost:
    """Number of errors of a type and the AP50 (0 to 1) that mending them all would gain."""

    kind: str
    number: int
    cost: float


def error_kinds(table: Matched) -> tuple[Ints, Ints]:
    """Type of each FP at IoU 0.5, and the ground truth it is about.

    Returns:
        ``(N,)`` position in `TYPES`, -1 for detections that are no FP; ``(N,)`` ground
        truth that a mended box would match, -1 if none.
    """
    own, own_row, other, other_row = best_overlaps(table)
    false = table.chosen[:, 0] == NONE
    tests = [
        (own >= BACKGROUND) & (own < FOREGROUND),
        other >= FOREGROUND,
        own >= FOREGROUND,
        np.maximum(own, other) < BACKGROUND,
    ]
    kind = np.where(false, np.select(tests, [_LOC, _CLS, _DUP, _BKG], _BOTH), -1)
    about = np.select([kind == _LOC, kind == _CLS], [own_row, other_row], -1)
    return kind, about


def error_costs(table: Matched) -> list[ErrorCost]:
    """Count the errors of each type and mend each in turn.

    Args:
        table: matched by a COCO protocol, thresholds beginning with 0.5.
    """
    table = replace(table, thresholds=table.thresholds[:1], chosen=table.chosen[:, :1])
    if len(table.thresholds) == 0 or not np.isclose(table.thresholds[0], FOREGROUND):
        raise ValueError(f"needs matches at IoU 0.5, got {table.thresholds.tolist()}")
    before = _ap50(table)
    kind, about = error_kinds(table)
    missed = _missed(table, kind, about)
    out = []
    for number, name in enumerate(TYPES[:5]):
        mine = kind == number
        gain = _ap50(_mended(table, mine, about)) - before if mine.any() else 0.0
        out.append(ErrorCost(name, int(mine.sum()), gain))
    gain = _ap50(_without_truth(table, missed)) - before if missed.any() else 0.0
    return [*out, ErrorCost(TYPES[5], int(missed.sum()), gain)]


def _missed(table: Matched, kind: Ints, about: Ints) -> NDArray[np.bool_]:
    """Ground truth that neither a match nor a mended box would find."""
    missed = ~table.truth_ignore
    chosen = table.chosen[:, 0]
    missed[chosen[chosen >= 0]] = False
    missed[about[(about >= 0) & ((kind == _LOC) | (kind == _CLS))]] = False
    return missed


def _mended(table: Matched, mine: NDArray[np.bool_], about: Ints) -> Matched:
    """Turn errors into TP where their object is still free (the best one), drop the rest."""
    chosen, label = table.chosen[:, 0].copy(), table.label.copy()
    free = np.ones(len(table.truth_label), dtype=bool)
    free[chosen[chosen >= 0]] = False
    able = np.flatnonzero(mine & (about >= 0))  # by descending score
    able = able[free[about[able]]]
    targets, first = np.unique(about[able], return_index=True)
    mended = able[first]
    chosen[mended], label[mended] = targets, table.truth_label[targets]
    keep = ~mine
    keep[mended] = True
    return replace(
        table,
        image=table.image[keep],
        label=label[keep],
        score=table.score[keep],
        xywh=table.xywh[keep],
        chosen=chosen[keep, None],
    )


def _without_truth(table: Matched, missed: NDArray[np.bool_]) -> Matched:
    """Leave missed objects out; the matches of the others stay as they are."""
    position = np.cumsum(~missed) - 1
    chosen = np.where(table.chosen >= 0, position[table.chosen], table.chosen)
    return replace(table, chosen=chosen, **{name: getattr(table, name)[~missed] for name in TRUTH})


def _ap50(table: Matched) -> float:
    values: Floats = set_ap(table)
    return float(values[0])
