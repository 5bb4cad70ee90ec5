"""Tables of the report: scores, classes, operating points, intervals, confusion, as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dmnet.core.records import Detections
from dmnet.fusion.evaluation.bootstrap import Comparison, Interval, compare, resample
from dmnet.fusion.evaluation.bootstrap import intervals as bootstrap_intervals
from dmnet.fusion.evaluation.matched import Matched
from dmnet.fusion.evaluation.operating_points import best_f1, confusion, operating_point
from dmnet.fusion.evaluation.scores import Scores


@dataclass(frozen=True)
class Result:
    """One result of the comparison: detections by image id and scores by any protocols."""

    name: str
    detections: Mapping[str, Detections]
    scores: Sequence[Scores]


def number(value: float, unit: str = "fraction") -> str:
    """A score as text, in points of hundred; a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{100 * value:.2f}" if unit == "fraction" else f"{value:.2f}"


def _by_protocol(results: Sequence[Result]) -> dict[str, dict[str, Scores]]:
    """Scores by protocol, then by result."""
    found: dict[str, dict[str, Scores]] = {}
    for result in results:
        for score in result.scores:
            found.setdefault(score.protocol, {})[result.name] = score
    return found


def score_tables(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One table per protocol: results in rows, metrics in columns, the best of a column marked."""
    out = []
    for protocol, found in _by_protocol(results).items():
        scores = list(found.values())
        metrics = list(dict.fromkeys(key for score in scores for key in score.summary))
        values = [[score.summary.get(key, math.nan) for key in metrics] for score in scores]
        out.append(
            {
                "protocol": protocol,
                "ignored": any(score.ignore_regions for score in scores),
                "metrics": metrics,
                "rows": _marked(list(found), values, scores[0].unit),
            }
        )
    return out


def _marked(
    names: Sequence[str], values: Sequence[Sequence[float]], unit: str
) -> list[dict[str, Any]]:
    table = np.array(values, dtype=np.float64).reshape(len(names), -1)
    filled = np.where(np.isnan(table), -1, table)
    best = filled.max(axis=0) if len(names) else filled
    full = 1.0 if unit == "fraction" else 100.0
    return [
        {
            "name": name,
            "cells": [
                {
                    "text": number(value, unit),
                    "best": len(names) > 1 and value == top,
                    "share": 0.0 if math.isnan(value) else min(100.0, 100 * value / full),
                }
                for value, top in zip(row.tolist(), best.tolist(), strict=True)
            ],
        }
        for name, row in zip(names, table, strict=True)
    ]


def class_tables(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One table per protocol: classes in rows, AP and AP50 of every result in columns."""
    out = []
    for protocol, found in _by_protocol(results).items():
        first = next(iter(found.values()))
        rows = []
        for label, facts in first.classes.items():
            cells = []
            for metric in ("AP", "AP50"):
                column = [score.classes[label][metric] for score in found.values()]
                cells += [
                    row["cells"][0]
                    for row in _marked(list(found), [[v] for v in column], first.unit)
                ]
            rows.append({"name": label, "objects": f"{facts['objects']:.0f}", "cells": cells})
        out.append({"protocol": protocol, "results": list(found), "rows": rows})
    return out


def points(tables: Mapping[str, Matched], threshold: float) -> list[dict[str, Any]]:
    """Rates and counts of every result at a score and at its best F1."""
    out = []
    for name, table in tables.items():
        for kind, point in (
            ("fixed", operating_point(table, threshold)),
            ("best F1", best_f1(table)),
        ):
            rates = (point.precision, point.recall, point.f1, point.mean_iou)
            counts = (point.tp, point.fp, point.fn)
            out.append(
                {
                    "name": name,
                    "kind": kind,
                    "threshold": f"{point.threshold:.3f}",
                    "rates": [number(value) for value in rates],
                    "counts": [f"{value:,}" for value in counts],
                }
            )
    return out


def intervals(
    tables: Mapping[str, Matched], repeats: int, against: Literal["first", "last"] = "last"
) -> list[dict[str, Any]]:
    """AP, AP50, AP75 with their intervals, and the differences to the first or of the last."""
    if repeats <= 0 or not len(next(iter(tables.values())).image_ids):
        return []
    names = list(tables)
    pivot = names[0] if against == "first" else names[-1]
    drawn = {name: resample(table, repeats=repeats) for name, table in tables.items()}
    out = []
    for name, table in tables.items():
        own = bootstrap_intervals(table, drawn[name])
        cells = [_interval(value) for value in own.values()]
        first, second = (pivot, name) if against == "first" else (name, pivot)
        if name == pivot:
            cells += ["–"] * 3
        else:
            gaps = compare(tables[first], tables[second], (drawn[first], drawn[second]))
            cells += [_difference(value) for value in gaps.values()]
        out.append({"name": name, "cells": cells})
    return out


def _interval(value: Interval) -> str:
    return f"{number(value.value)} [{number(value.low)},\u00a0{number(value.high)}]"


def _difference(value: Comparison) -> str:
    gap = value.difference
    low, high = f"{100 * gap.low:+.2f}", f"{100 * gap.high:+.2f}"
    p = f"p\u00a0=\u00a0{value.p_value:.2g}"
    return f"{100 * gap.value:+.2f} [{low},\u00a0{high}], {p}"


def matrix(table: Matched, threshold: float) -> dict[str, Any]:
    """Confusion matrix; a cell's shade is its share of the true class."""
    counts = confusion(table, threshold)
    share = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    names = list(table.classes.values())
    rows = []
    for index, name in enumerate([*names, "background"]):
        cells = [
            {
                "text": f"{value:,}" if value else "",
                "share": round(float(part), 3),
                "hit": at == index,
            }
            for at, (value, part) in enumerate(zip(counts[index], share[index], strict=True))
        ]
        rows.append({"name": name, "cells": cells})
    return {"columns": [*names, "missed"], "rows": rows, "threshold": f"{threshold:.3f}"}
